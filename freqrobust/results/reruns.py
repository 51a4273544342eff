"""In what the results of two runs of the same options differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from freqrobust.core.percent import percent
from freqrobust.core.text import one_line
from freqrobust.results.analysis_record import AnalysisRecord
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.certificates import CertificateRecord
from freqrobust.results.records import EnvironmentRecord
from freqrobust.results.report import Report
from freqrobust.results.training_record import TrainingRecord

#: Values that are not results: they differ from run to run.
NOT_RESULTS = {"seconds", "probe_seconds", "forwards", "backwards"}


def environment_differences(
    old: EnvironmentRecord, new: EnvironmentRecord, old_version: str, new_version: str
) -> list[str]:
    """``torch 2.7.0 instead of 2.6.0``: in what the two runs were made differently."""
    pairs = {"freqrobust": (old_version, new_version)}
    pairs |= {name: (getattr(old, name), getattr(new, name)) for name in ("python", "torch", "device", "precision")}
    return [one_line(f"{name} {now} instead of {before}") for name, (before, now) in pairs.items() if before != now]


def report_differences(old: Report, new: Report) -> list[str]:
    """A line for each cell, worst case, certificate and verdict that differs; times and passes are not compared."""
    before, after = dict(_counted(old)), dict(_counted(new))
    lines = [f"{name}: it is missing" for name in before if name not in after]
    lines += [f"{name}: it is new" for name in after if name not in before]
    for name in before:
        if name in after and (text := _difference(before[name], after[name])) is not None:
            lines.append(f"{name}: {text}")
    verdicts = [{(d.model, d.defense_spec): d.verdict for d in report.diagnostics} for report in (old, new)]
    for key in dict.fromkeys([*verdicts[0], *verdicts[1]]):
        was, now = verdicts[0].get(key, "none"), verdicts[1].get(key, "none")
        if was != now:
            lines.append(f"verdict on {key[1]}: {now} instead of {was}")
    return [one_line(line) for line in lines]


def _counted(report: Report) -> Iterator[tuple[str, Cell | WorstCase | CertificateRecord]]:
    """Everything that is a number of samples, by a name that is the same in every run."""
    records: list[Cell | WorstCase | CertificateRecord] = [*report.cells, *report.worst_case, *report.certificates]
    for record in records:
        model = f"model {record.model + 1}, " if len(report.models) > 1 else ""
        if isinstance(record, Cell):
            knowledge = " (oblivious)" if record.knowledge == "oblivious" else ""
            yield f"{model}{record.defense_spec} / {record.attack_spec}{knowledge}", record
        elif isinstance(record, WorstCase):
            yield f"{model}{record.defense_spec} / worst case, {record.threat.norm} {record.threat.eps:.4g}", record
        else:
            yield f"{model}{record.defense_spec} / {record.certificate_spec}", record


def _difference(old: Cell | WorstCase | CertificateRecord, new: Any) -> str | None:
    """How one number differs; None where every sample has the same outcome."""
    statuses = getattr(old, "status", "ok"), getattr(new, "status", "ok")
    if statuses[0] != statuses[1]:
        return f"{statuses[1]} instead of {statuses[0]}"
    if old.outcomes == new.outcomes and old.n == new.n:
        return None
    if old.n != new.n or old.accuracy is None or new.accuracy is None:
        return f"{new.n} samples instead of {old.n}"
    changed = int((old.right() != new.right()).sum())
    samples = "1 sample has" if changed == 1 else f"{changed} samples have"
    return f"{percent(new.accuracy)} instead of {percent(old.accuracy)}; {samples} another outcome"


def analysis_differences(old: AnalysisRecord, new: AnalysisRecord) -> list[str]:
    """A line for each field of the results that differs."""
    return _field_differences(
        {f"{n + 1}": result.model_dump(mode="json") for n, result in enumerate(old.results)},
        {f"{n + 1}": result.model_dump(mode="json") for n, result in enumerate(new.results)},
        "result",
    )


def training_differences(old: TrainingRecord, new: TrainingRecord) -> list[str]:
    """A line for each number of an epoch that differs, and for the best epoch."""
    lines = _field_differences(
        {f"{epoch.epoch}": epoch.model_dump(mode="json") for epoch in old.epochs},
        {f"{epoch.epoch}": epoch.model_dump(mode="json") for epoch in new.epochs},
        "epoch",
    )
    if old.best_epoch != new.best_epoch:
        lines.append(f"best epoch: {new.best_epoch} instead of {old.best_epoch}")
    return lines


def _field_differences(old: Mapping[str, Any], new: Mapping[str, Any], word: str) -> list[str]:
    lines = []
    for key in dict.fromkeys([*old, *new]):
        if key not in old or key not in new:
            lines.append(f"{word} {key}: it is {'new' if key in new else 'missing'}")
            continue
        for field in dict.fromkeys([*old[key], *new[key]]):
            pairs = list(_leaves(old[key].get(field), new[key].get(field)))
            differing = [(a, b) for a, b in pairs if a != b]
            if field in NOT_RESULTS or not differing:
                continue
            if len(pairs) == 1:
                lines.append(f"{word} {key}, {field}: {differing[0][1]} instead of {differing[0][0]}")
                continue
            gaps = [abs(a - b) for a, b in differing if _is_number(a) and _is_number(b)]
            most = f", by at most {max(gaps):.3g}" if gaps else ""
            lines.append(f"{word} {key}, {field}: {len(differing)} of {len(pairs)} values differ{most}")
    return [one_line(line) for line in lines]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _leaves(old: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    """The numbers and texts of two values, in pairs; of another shape, the two as they are."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for a, b in zip(old, new, strict=True):
            yield from _leaves(a, b)
    elif isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key in old:
            if key not in NOT_RESULTS:
                yield from _leaves(old[key], new[key])
    else:
        yield old, new
