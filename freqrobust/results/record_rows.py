"""The columns of a cell, a worst case or a certificate in tables for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from freqrobust.results.cells import Cell
from freqrobust.results.certificates import CertificateRecord, Counted
from freqrobust.results.diagnosis import Diagnosis
from freqrobust.results.report import Report
from freqrobust.results.summary import Entry, entry_of


def identity(report: Report, record: Counted, labels: Sequence[str]) -> dict[str, object]:
    """What was measured: the model, by its label, the data, the defense and the attack."""
    return {
        "model": labels[record.model],
        "arch": report.models[record.model].arch,
        "data": report.data.spec,
        "split": report.data.split,
        "seed": report.seed,
        "defense": record.defense_spec,
        **_attack(record),
    }


def _attack(record: Counted) -> dict[str, object]:
    threat = {
        "norm": record.threat.norm if record.threat else None,
        "eps": record.threat.eps if record.threat else None,
    }
    if isinstance(record, CertificateRecord):
        return {
            "attack": record.certificate_spec,
            "kind": "certificate",
            **threat,
            "status": record.status,
            "error": record.error,
            "guarantee": record.guarantee,
            "statement": record.statement,
        }
    if not isinstance(record, Cell):
        return {"attack": "worst case", "kind": "worst case", **threat, "status": "ok"}
    return {
        "attack": record.attack_spec,
        "kind": record.kind,
        **threat,
        "radius": record.attack_params.get("radius"),
        "knowledge": record.knowledge,
        "status": record.status,
        "error": record.error,
    }


def rates(record: Counted) -> dict[str, object]:
    """Counts and shares, and the paired difference from the undefended model."""
    low, high = record.ci95 or (None, None)
    change = record.difference
    ends = change.ci95 if change else (None, None)
    return {
        "n": record.n,
        "correct": record.correct if record.accuracy is not None else None,
        "accuracy": record.accuracy,
        "ci95_low": low,
        "ci95_high": high,
        "difference": change.points if change else None,
        "difference_ci95_low": ends[0],
        "difference_ci95_high": ends[1],
    }


def verdict(record: Counted, diagnoses: Mapping[Entry, Diagnosis]) -> dict[str, object]:
    """The verdict, where it is about a robust accuracy."""
    diagnosis = diagnoses.get(entry_of(record))
    shift = isinstance(record, Cell) and record.kind == "shift"
    if diagnosis is None or shift or isinstance(record, CertificateRecord):
        return {"verdict": None, "verdict_sentence": None}
    return {"verdict": diagnosis.verdict, "verdict_sentence": diagnosis.sentence}
