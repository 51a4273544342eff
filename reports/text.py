"""Numbers and names as all reports write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from freqrobust.core.percent import interval, percent, points
from freqrobust.results.summary import Entry, entry_labels

if TYPE_CHECKING:
    from freqrobust.results.analysis_record import AnalysisRecord
    from freqrobust.results.cells import Cell, WorstCase
    from freqrobust.results.diagnosis import Check
    from freqrobust.results.records import Difference, ModelRecord, PublishedRecord
    from freqrobust.results.report import Report

#: From so many samples on, an interval is narrow enough for another digit.
_FINE = 2000


def digits(report: Report) -> int:
    """Decimals of the ends of an interval."""
    return 1 if report.data.n >= _FINE else 0


def accuracy(one: Cell | WorstCase, decimals: int, mark: str = "") -> str:
    """``45.2 [41, 50]``, or ``failed``; ``mark`` comes after the number."""
    if one.accuracy is None or one.ci95 is None:
        return "failed"
    return f"{percent(one.accuracy)}{mark} {interval(one.ci95, decimals)}"


def difference(one: Difference, decimals: int) -> str:
    """``+1.0 [-6, 8]``."""
    return f"{points(one.points)} {interval(one.ci95, decimals)}"


def check_number(value: float | None, check: Check) -> str:
    """What a check measured, or the most that passes: a share in percent, or a count."""
    if value is None:
        return "-"
    return f"{percent(value)} %" if check.unit == "share" else f"{value:.4g}"


def check_reason(check: Check) -> str:
    """Why a check ended as it did, and by which attack."""
    parts = [check.reason, f"by {check.attack}" if check.attack else None]
    return "; ".join(part for part in parts if part)


def describe_normalization(model: ModelRecord) -> str:
    """The normalisation and where it came from, in words."""
    record = model.normalize
    if record.source == "none" and not record.mean:
        return "inside the model given"
    numbers = f"mean {', '.join(f'{m:g}' for m in record.mean)}, std {', '.join(f'{s:g}' for s in record.std)}"
    preset = f"{record.preset} ({numbers})" if record.preset else numbers
    sources = {
        "given": "as given",
        "checkpoint": "from the checkpoint",
        "architecture": "what this architecture's published weights use",
        "trial": "the best of those tried",
        "none": "none needed",
    }
    scores = ", ".join(f"{name} {score:.1%}" for name, score in record.scores.items())
    return f"{preset}, {sources[record.source]}" + (f"; tried: {scores}" if scores else "")


def describe_published(published: PublishedRecord) -> str:
    """What the model's source reports for it, in words."""
    threat = " ".join(part for part in (published.threat_model, published.eps) if part)
    figures = {
        "clean": published.clean,
        f"AutoAttack ({threat})": published.autoattack,
        "corruptions": published.corruptions,
    }
    text = ", ".join(f"{name} {share:.2%}" for name, share in figures.items() if share is not None)
    return f"{text} ({published.source}, on its whole test set)"


def conditions(report: Report | AnalysisRecord) -> str:
    """On what was measured and how, in one line."""
    data, environment = report.data, report.environment
    samples = f"{data.spec} [{data.split}], n = {data.n}, " if data is not None else ""
    criterion = getattr(report, "criterion", "misclassification")  # an analysis has none
    judged = "" if criterion == "misclassification" else f", criterion {criterion}"
    return f"{samples}seed {report.seed}, {environment.device}, {environment.precision}{judged}"


def title(report: Report) -> str:
    """What was measured, in a few words: the model, or how many there are."""
    if len(report.models) == 1:
        return report.models[0].name or report.models[0].arch
    return f"{len(report.models)} models"


def readings(record: AnalysisRecord) -> Iterator[str]:
    """What an analysis says of each model and defense: the frequencies it depends on, and why."""
    for result in record.results:
        where = result.label or (result.defense_spec if result.defense_spec != "none" else "undefended")
        reading = f"{result.reading} frequencies. " if result.reading is not None else ""
        if reading or result.sentence:
            yield f"{where}: {reading}{result.sentence}"


class Plain(NamedTuple):
    """A table of text: a title, the heads of its columns, and its rows."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def corruption_tables(report: Report) -> Iterator[Plain]:
    """Accuracy in percent by corruption and severity, a table for each summary, the means last."""
    labels = entry_labels(report)
    for one in report.corruptions:
        severities = sorted({severity for row in one.rows for severity in row.accuracies})
        errors = ["CE"] if one.reference is not None else []
        rows = [
            [row.name, *(_share(row.accuracies.get(s)) for s in severities), _share(row.accuracy)]
            + [_share(row.ce) for _ in errors]
            for row in one.rows
        ]
        rows.append(["mean", *("" for _ in severities), _share(one.mean_accuracy), *(_share(one.mce) for _ in errors)])
        kind = "read from the published files" if one.source == "files" else "made on the fly"
        against = f", CE against {one.reference}" if one.reference is not None else ""
        label = labels.get(Entry(one.model, one.defense_spec), one.defense_spec)
        title = f"{label}: {one.part} corruptions, {kind}{'' if one.complete else ', not all of them'}{against}"
        yield Plain(title, ["corruption", *severities, "mean", *errors], rows)


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)
