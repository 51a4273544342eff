"""What trackers of experiments are sent of a report: accuracies with their intervals, conditions, verdicts, files."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from freqrobust.core.files import identity, write_atomically
from freqrobust.core.text import one_line
from freqrobust.results.reporter import Publisher, reports
from freqrobust.results.summary import certified_label, diagnosed, model_labels, verdict_label

if TYPE_CHECKING:
    from freqrobust.results.certificates import Counted
    from freqrobust.results.report import Report

#: What the ends of an interval are called, before the name of the accuracy.
LOW, HIGH = "ci95_low", "ci95_high"

#: The parts of a name, such as ``("undefended", "pgd:eps=8/255")``.
Name = tuple[str, ...]


@dataclass(frozen=True)
class Tracked:
    """What a tracker is sent of one report.

    Attributes:
        metrics: accuracies and the ends of their 95 % intervals, as shares, by name.
        params: conditions of the evaluation, by name.
        tags: verdicts, by name.
    """

    metrics: dict[Name, float]
    params: dict[str, str]
    tags: dict[str, str]


class Tracker(Publisher):
    """A publisher that sends one run per report. Subclasses implement :meth:`send`.

    Standard output as the target shows what would be sent.
    """

    def render(self, report: Report, target: IO[str]) -> None:
        what = tracked(report)
        for kind, values in (
            ("metric", {"/".join(name): f"{value:.6g}" for name, value in what.metrics.items()}),
            ("param", what.params),
            ("tag", what.tags),
        ):
            for name, value in values.items():
                target.write(f"{kind}\t{one_line(name)}\t{one_line(value)}\n")

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        for name, report in reports.items():
            target.write(f"run\t{one_line(name)}\n")
            self.render(report, target)

    def publish(self, reports: Mapping[str, Report], target: str) -> str:
        return ", ".join([self.send(name, report, target) for name, report in reports.items()])

    def send(self, name: str, report: Report, target: str) -> str:
        """Send one report as the run ``name``; where it is afterwards."""
        raise NotImplementedError


def tracked(report: Report) -> Tracked:
    """What a tracker is sent of a report. Cells that failed have no accuracy and are left out."""
    metrics: dict[Name, float] = {}
    for name, counted in _accuracies(report):
        if counted.accuracy is not None and counted.ci95 is not None:
            metrics[name] = counted.accuracy
            metrics[(LOW, *name)], metrics[(HIGH, *name)] = counted.ci95
    return Tracked(metrics, _params(report), _tags(report))


def _accuracies(report: Report) -> Iterator[tuple[Name, Counted]]:
    from freqrobust.results.cell_reference import referenced

    models = model_labels(report)

    def name(model: int, defense: str, what: str) -> Name:
        return (models[model], defense, what) if len(models) > 1 else (defense, what)

    for reference, measured in referenced(report):
        yield name(measured.model, measured.defense_spec, reference.label), measured
    for record in report.certificates:
        yield name(record.model, record.defense_spec, certified_label(record)), record


def _params(report: Report) -> dict[str, str]:
    data, environment = report.data, report.environment
    values: dict[str, Any] = {f"config.{key}": value for key, value in report.config.items()}
    for number, (label, model) in enumerate(zip(model_labels(report), report.models, strict=True)):
        prefix = "model" if len(report.models) == 1 else f"model{number}"
        values |= {prefix: label, f"{prefix}.spec": model.spec, f"{prefix}.arch": model.arch}
        values |= {f"{prefix}.sha256": model.sha256, f"{prefix}.parameters": model.parameters}
    values |= {"data": data.spec, "data.split": data.split, "data.n": data.n, "data.sha256": data.sha256}
    values |= {"seed": report.seed, "criterion": report.criterion, "freqrobust": report.freqrobust_version}
    values |= {"torch": environment.torch, "device": environment.device, "precision": environment.precision}
    return {key: text for key, value in values.items() if (text := _text(value))}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "" if value is None else one_line(value)


def _tags(report: Report) -> dict[str, str]:
    tags = {"status": report.status, "created": report.created}
    tags |= {f"verdict {diagnosed(report, one)}": verdict_label(one) for one in report.diagnostics}
    if report.gate is not None:
        tags["gate"] = "passed" if report.gate.passed else "failed"
    failed = sum(cell.status == "failed" for cell in report.cells)
    if failed:
        tags["failed cells"] = str(failed)
    return tags


def legal_names(names: Mapping[Name, float], legal: Callable[[str], str], longest: int = 250) -> dict[str, float]:
    """Metrics by names that a tracker accepts; names that become equal are numbered, long ones end in a hash.

    Args:
        names: the metrics.
        legal: makes one part of a name legal; parts are joined by slashes.
        longest: characters of a name, at most.
    """
    found: dict[str, float] = {}
    for parts, value in names.items():
        name = whole = "/".join(legal(part) for part in parts)
        if len(whole) > longest:
            name = whole = f"{whole[: longest - 13]}_{identity(parts)[:8]}"
        number = 1
        while name in found:
            number += 1
            name = f"{whole}_{number}"
        found[name] = value
    return found


def write_files(report: Report, folder: Path) -> dict[str, Path]:
    """Write the files of a report: JSON, the page where jinja2 is installed, and the pictures of its analyses.

    Returns:
        The files by what they are: ``report``, ``page``, and the names of pictures.
    """
    found = {"report": folder / "report.json"}
    write_atomically(found["report"], report.dumps())
    if find_spec("jinja2") is not None:
        page = io.StringIO()
        reports.get("html")().render(report, page)
        found["page"] = folder / "report.html"
        write_atomically(found["page"], page.getvalue())
    for number, record in enumerate(report.analyses, 1):
        if record.picture is not None:
            stem = re.sub(r"[^A-Za-z0-9_-]+", "-", record.name).strip("-") or "analysis"
            path = folder / "pictures" / f"{number}-{stem}.{record.picture.format}"
            write_atomically(path, base64.b64decode(record.picture.base64))
            found[f"{number}-{stem}"] = path
    return found
