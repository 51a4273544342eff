"""Analyses: plugins that measure something other than an accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from freqrobust.core.errors import PluginError
from freqrobust.plugins.plugin import Plugin
from freqrobust.plugins.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import PluginSpec
    from freqrobust.results.analysis import AnalysisResult, AnalysisTable


class Analysis(Plugin):
    """Something other than an accuracy that a model and images tell. Subclasses implement :meth:`run`.

    One run looks at one model, undefended or defended; :meth:`tables` and :meth:`draw` show several side by side.
    """

    #: :meth:`run` looks at images; one that looks at weights alone runs without any
    needs_data: ClassVar[bool] = True
    #: :meth:`run` looks at a model; one that looks at the data alone, with networks that it trains itself, is run once
    needs_model: ClassVar[bool] = True
    command: ClassVar[str | None] = "analyze"

    def attack_specs(self) -> list[PluginSpec[Attack]]:
        """The adversarial attacks that :meth:`run` runs; by default none.

        They are checked before anything is measured: those that need a deterministic model are refused for stochastic
        defenses.
        """
        return []

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> AnalysisResult:
        """What was found, in a subclass of ``AnalysisResult`` with fields of its own.

        ``model`` is the defended model, in eval mode; passes go through ``context``, which batches, votes where
        the defense is random, and keys all randomness. With ``needs_data = False`` there may be no images: then
        ``data`` and the passes of ``context`` raise an error that says so. With ``needs_model = False`` there is no
        model: then ``model`` and the passes of ``context`` do.
        """
        raise PluginError(f"{type(self).__name__} does not implement run()")

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        """The results in words and numbers; none where a table makes no sense."""
        return []

    def draw(self, results: Sequence[AnalysisResult]) -> Figure | None:
        """All results side by side on one scale, as a matplotlib figure; None where there is nothing to draw."""
        return None


analyses = Registry("analysis", "freqrobust.analyses", Analysis, "run")
