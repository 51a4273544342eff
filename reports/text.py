"""Numbers and names as all reports write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from freqrobust.core.percent import interval, percent, points
from freqrobust.results.analysis import AnalysisTable
from freqrobust.results.cells import WorstCase
from freqrobust.results.robustness_curve import budgets, robustness_curves
from freqrobust.results.robustness_tables import accuracy_table, summary_table
from freqrobust.results.summary import entry_labels, entry_of, model_labels, oblivious_attacks

if TYPE_CHECKING:
    from freqrobust.results.analysis_record import AnalysisRecord
    from freqrobust.results.certificates import Counted
    from freqrobust.results.diagnosis import Check, Diagnosis
    from freqrobust.results.records import Difference, ModelRecord, PublishedRecord
    from freqrobust.results.report import Report

#: The default criterion, which is not worth mentioning.
MISCLASSIFICATION = "misclassification"
#: What a certified accuracy is, for the notes below tables.
CERTIFIED = (
    "A certified accuracy is a lower bound; of a deterministic certificate, certified <= true <= attacked within the "
    "same budget. The notes say what each certificate is about."
)
#: From so many samples on, an interval is narrow enough for another digit.
_FINE = 2000


def digits(report: Report) -> int:
    """Decimals of the ends of an interval."""
    return 1 if report.data.n >= _FINE else 0


def accuracy(one: Counted, decimals: int, mark: str = "") -> str:
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
        "architecture": "used by the published weights of this architecture",
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
    return f"{text} ({published.source}, on its complete test set)"


def conditions(report: Report | AnalysisRecord) -> str:
    """On what was measured and how, in one line."""
    data, environment = report.data, report.environment
    samples = f"{data.spec} [{data.split}], n = {data.n}, " if data is not None else ""
    criterion = getattr(report, "criterion", MISCLASSIFICATION)
    counted = f", adversarial by the criterion {criterion}" if criterion != MISCLASSIFICATION else ""
    return f"{samples}seed {report.seed}, {environment.device}, {environment.precision}{counted}"


def title(report: Report) -> str:
    """What was measured, in a few words: the model, or how many there are."""
    if len(report.models) == 1:
        return report.models[0].name or report.models[0].arch
    return f"{len(report.models)} models"


def readings(record: AnalysisRecord) -> Iterator[str]:
    """The sentences of an analysis, by model and defense: the frequencies that it depends on, and why."""
    for result in record.results:
        where = result.label or result.defense_spec
        reading = f"{result.reading} frequencies. " if result.reading is not None else ""
        if reading or result.sentence:
            yield f"{where}: {reading}{result.sentence}"


def corruption_tables(report: Report) -> Iterator[AnalysisTable]:
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
        kind = "read from the published files" if one.source == "files" else "generated"
        against = f", CE against {one.reference}" if one.reference is not None else ""
        label = labels.get(entry_of(one), one.defense_spec)
        title = f"{label}: {one.part} corruptions, {kind}{'' if one.complete else ', not all of them'}{against}"
        yield AnalysisTable(title=title, columns=["corruption", *severities, "mean", *errors], rows=rows)


def robustness_tables(report: Report) -> Iterator[AnalysisTable]:
    """Of each norm with a minimum-norm attack: what the robustness curves amount to, and the accuracy by eps.

    Where attacks were run at these budgets, their worst case is below the accuracy of the curve.
    """
    labels, decimals = entry_labels(report), digits(report)
    for norm, measured in robustness_curves(report).items():
        eps = budgets(norm, measured)
        curves = [(labels[one.entry], one.curve) for one in measured]
        yield summary_table(entry_head(report), curves, norm, eps[-1], [", ".join(one.attacks) for one in measured])
        table = accuracy_table(entry_head(report), curves, norm, eps, decimals)
        rows = []
        for one, row in zip(measured, table.rows, strict=True):
            worst = {point.eps: point.record for point in one.points if isinstance(point.record, WorstCase)}
            rows.append(row)
            if worst:
                texts = [accuracy(worst[e], decimals) if e in worst else "-" for e in eps]
                rows.append([f"{labels[one.entry]} (worst case)", *texts])
        yield table.model_copy(update={"rows": rows})


#: The head of the paired differences from the undefended model.
AGAINST = "vs. undefended"
#: The title of the table of oblivious attacks, and what its last column is.
OBLIVIOUS = "Oblivious attacks (adversarial examples crafted on the undefended model)"
OVERSTATED = "overstated by"


def oblivious_table(report: Report) -> AnalysisTable | None:
    """Accuracy under adaptive and oblivious attacks side by side; None without oblivious attacks."""
    labels, decimals = entry_labels(report), digits(report)
    rows = [
        [
            labels[pair.entry],
            pair.adaptive.attack_spec,
            accuracy(pair.adaptive, decimals),
            accuracy(pair.oblivious, decimals),
            points(pair.overstated_by) if pair.overstated_by is not None else "-",
        ]
        for pair in oblivious_attacks(report)
    ]
    columns = [entry_head(report), "attack", "adaptive", "oblivious", OVERSTATED]
    return AnalysisTable(title=OBLIVIOUS, columns=columns, rows=rows) if rows else None


def entry_head(report: Report) -> str:
    """The head of a column of entries."""
    return "model and defense" if len(report.models) > 1 else "defense"


def check_table(diagnosis: Diagnosis) -> AnalysisTable:
    """What each check of a diagnosis measured."""
    rows = [
        [
            check.name,
            check.status,
            check_number(check.measured, check),
            check_number(check.threshold, check),
            check_reason(check),
            check.source,
        ]
        for check in diagnosis.checks
    ]
    return AnalysisTable(title="Checks", columns=["check", "result", "measured", "at most", "why", "source"], rows=rows)


def provenance(report: Report) -> Iterator[tuple[str, str]]:
    """Where the numbers come from: models, data, versions."""
    environment, data = report.environment, report.data
    for label, model in zip(model_labels(report), report.models, strict=True):
        yield "Model", f"{label}: {model.arch} ({model.spec}), {model.parameters:,} parameters"
        yield "Weights", f"sha256 {model.sha256}"
        yield "Normalisation", describe_normalization(model)
        if model.published is not None:
            yield "Published", describe_published(model.published)
    yield "Data", f"{data.spec} [{data.split}], {data.classes} classes, {' x '.join(map(str, data.shape))}"
    yield "Samples", f"{data.n}, {'all there are' if data.ids == 'all' else 'a subset, ids in the JSON report'}"
    yield "Data hash", f"sha256 {data.sha256}"
    yield "Seed", str(report.seed)
    yield "Criterion", report.criterion
    yield "Device", f"{environment.device}, {environment.precision}"
    yield "Versions", f"freqrobust {report.freqrobust_version}, torch {environment.torch}, python {environment.python}"
    yield "Commit", environment.git or "not in a repository"
    yield "Created", report.created
    yield "Status", report.status


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)
