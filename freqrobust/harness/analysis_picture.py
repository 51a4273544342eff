"""The picture of an analysis as a file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from freqrobust.core.user_code import running_user_code
from freqrobust.results.figures import PictureFormat, file_of, styled

if TYPE_CHECKING:
    from freqrobust.harness.analysis import Analysis
    from freqrobust.results.analysis import AnalysisResult


def picture_file(plugin: Analysis, results: Sequence[AnalysisResult], format: PictureFormat) -> bytes | None:
    """The content of the picture of results; None where the analysis draws nothing."""
    with styled(), running_user_code(f"{type(plugin).__name__} failed"):
        figure = plugin.draw(results)
        return file_of(figure, format) if figure is not None else None
