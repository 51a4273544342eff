"""Reports as runs of TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from freqrobust.core.text import one_line
from freqrobust.reports._tracking import Tracker, legal_names, tracked, write_files

if TYPE_CHECKING:
    from freqrobust.results.report import Report


class TensorBoard(Tracker):
    """A run of TensorBoard per report: accuracies with intervals, conditions, verdicts and pictures; the target is a directory."""

    requires: ClassVar[Mapping[str, str]] = {"tensorboard": "freqrobust[tensorboard]"}
    place: ClassVar[str] = "DIR"

    def check_target(self, target: str) -> None:
        from freqrobust.core.files import check_writable

        check_writable(Path(target) / "run" / "events", f"{target}")

    def send(self, name: str, report: Report, target: str) -> str:
        from freqrobust.core.files import user_path
        from freqrobust.results.events import legal_tag, summary_writer

        folder = user_path(target, "the directory of TensorBoard") / _folder_name(name)
        what = tracked(report)
        files = write_files(report, folder)
        # what an earlier run of the same command wrote is hidden by purge_step, so that no value is there twice
        with summary_writer()(log_dir=str(folder), purge_step=0) as writer:
            for tag, value in legal_names(what.metrics, legal_tag).items():
                writer.add_scalar(tag, value, 0)
            writer.add_text("config", _table(what.params), 0)
            writer.add_text("verdicts", _table(what.tags), 0)
            for tag, path in files.items():
                if path.suffix == ".png":
                    writer.add_image(f"pictures/{tag}", _pixels(path), 0, dataformats="HWC")
        return str(folder)


def _folder_name(name: str) -> str:
    """The run's name as one folder, so that it cannot be one elsewhere."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "report"


def _pixels(path: Path) -> object:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _table(values: Mapping[str, str]) -> str:
    """A table in Markdown, which TensorBoard renders and sanitises."""
    rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in values.items()]
    return "\n".join(["| name | value |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", one_line(text))
