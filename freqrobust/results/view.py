"""What reports show of cells, worst cases and certificates besides their accuracy, from the declarations of their values.

Every form of report goes through :func:`facts`, :func:`footnotes`, :func:`ranges` and :func:`details`: a value that is
declared in :mod:`freqrobust.results.cell_numbers` is in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel

from freqrobust.numerics.threat import norm_name
from freqrobust.results.analysis import AnalysisTable
from freqrobust.results.cells import WorstCase
from freqrobust.results.certificates import CertificateRecord, Counted
from freqrobust.results.report import Report
from freqrobust.results.summary import (
    certificate_name,
    certified_label,
    entry_labels,
    entry_of,
    threat_text,
)
from freqrobust.results.value import Value, declared


class Fact(NamedTuple):
    """One value of a cell, a worst case or a certificate.

    Attributes:
        key: its name in the JSON report; columns of CSV have it.
        value: as recorded.
        text: as written where a person reads it; empty where there is nothing to say.
    """

    key: str
    label: str
    value: Any
    text: str
    place: Literal["column", "note", "detail"]


def facts(record: Counted) -> list[Fact]:
    """All values of a cell, a worst case or a certificate in their order, those of records inside of it as well."""
    return list(_facts(type(record), record))


def _facts(cls: type[BaseModel], record: BaseModel | None) -> Iterator[Fact]:
    for key, value in declared(cls).items():
        content = getattr(record, key, None)
        parts = get_args(cls.model_fields[key].annotation)
        inner = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        if inner:
            yield from _facts(inner[0], content)
        else:
            norm = getattr(record, "norm", None) if value.by_norm else None
            label = f"{value.label} ({norm_name(norm)})" if norm is not None else value.label
            yield Fact(key, label, content, _text(content, value), value.place)


def _text(content: Any, value: Value) -> str:
    if isinstance(content, Mapping):
        return ", ".join(f"{name} {count}" for name, count in content.items())
    if isinstance(content, list):
        return "; ".join(map(str, content))
    if value.share:
        return f"{100 * content:.1f} %" if content is not None else ""
    if content is None or (not content and not value.zero):
        return ""
    return f"{content:.4g}" if isinstance(content, float) else str(content)


def notes(record: Counted) -> list[str]:
    """What a reader has to know about one number."""
    found: list[str] = _certificate_notes(record) if isinstance(record, CertificateRecord) else []
    for fact in facts(record):
        if fact.place == "note" and fact.text:
            found += fact.value if isinstance(fact.value, list) else [f"{fact.label}: {fact.text}"]
    return found


class Footnote(NamedTuple):
    """Something that a reader has to know about one number.

    Attributes:
        entry: the labels of the models and defenses.
        about: the specs of the attacks, or which worst cases or certificates.
        text: what there is to know.
        worst_case: whether it is about a worst case or a certificate, which are in the headline.
    """

    entry: str
    about: str
    text: str
    worst_case: bool

    def __str__(self) -> str:
        return f"{self.entry} / {self.about}: {self.text}"


def footnotes(report: Report) -> list[Footnote]:
    """The notes on all worst cases, on what is certified, then on all cells; the same note on several cells once."""
    labels = entry_labels(report)
    found = []
    records: list[Counted] = [*report.worst_case, *report.certificates, *report.cells]
    for record in records:
        label = labels.get(entry_of(record), record.defense_spec)
        worst = isinstance(record, WorstCase | CertificateRecord)
        found += [Footnote(label, name_of(record), text, worst) for text in notes(record)]
    return [*_statements(report), *_joined(_joined(found, "entry"), "about")]


def _joined(several: Sequence[Footnote], field: Literal["entry", "about"]) -> list[Footnote]:
    """Footnotes that differ in one field only as one, with all values of that field."""
    values: dict[Footnote, dict[str, None]] = {}
    for note in several:
        if field == "entry":
            values.setdefault(note._replace(entry=""), {})[note.entry] = None
        else:
            values.setdefault(note._replace(about=""), {})[note.about] = None
    joined = [(note, ", ".join(names)) for note, names in values.items()]
    return [note._replace(entry=text) if field == "entry" else note._replace(about=text) for note, text in joined]


def _statements(report: Report) -> list[Footnote]:
    """What each certificate states, once for all defenses and budgets of which it states the same."""
    labels = entry_labels(report)
    about: dict[tuple[str, str], dict[str, None]] = {}
    texts: dict[tuple[str, str], dict[str, None]] = {}
    for record in report.certificates:
        if record.status == "failed":  # nothing is certified
            continue
        text = f"{record.guarantee} lower bound: {record.statement}"
        key = certificate_name(record), _without_budget(text, record)
        about.setdefault(key, {})[labels.get(entry_of(record), record.defense_spec)] = None
        texts.setdefault(key, {})[text] = None
    return [
        Footnote(
            ", ".join(about[name, general]),
            f"certified ({name})",
            general if len(several) > 1 else next(iter(several)),
            True,
        )
        for (name, general), several in texts.items()
    ]


def _without_budget(text: str, record: CertificateRecord) -> str:
    """A statement for a sweep over eps, which names the budget instead of its numbers."""
    return text.replace(threat_text(record.threat), "the budget") if record.threat is not None else text


def _certificate_notes(record: CertificateRecord) -> list[str]:
    """On how many samples a certificate abstained, and how large the radii are; once for a sweep over eps."""
    if record.shared_with is not None:
        return []
    found = []
    if record.abstained is not None:
        found.append(f"abstained on {record.abstained} of {record.n} samples")
    radii = record.certified_radii()
    if radii is not None and (radii > 0).any():
        found.append(f"median radius {float(np.median(radii[radii > 0])):.4g} of {(radii > 0).sum()} samples")
    return ["; ".join(found)] if found else []


def name_of(record: Counted) -> str:
    """The attack with what it knows, or which worst case or certificate."""
    if isinstance(record, CertificateRecord):
        return certified_label(record)
    if isinstance(record, WorstCase):
        return f"worst case {threat_text(record.threat)}"
    return record.attack_spec + (" (oblivious)" if record.knowledge == "oblivious" else "")


def ranges(report: Report) -> list[str]:
    """Every value that is no footnote, from its smallest to its largest in all cells."""
    return [f"{label} {_range(several)}" for label, several in _by_label(report.cells).items()]


def _by_label(records: Iterable[Counted]) -> dict[str, list[Fact]]:
    """The facts that are no footnotes, without empty ones, in the order of their declaration."""
    found: dict[str, list[Fact]] = {}
    for fact in (fact for record in records for fact in facts(record) if fact.place != "note"):
        found.setdefault(fact.label, []).extend([fact] if fact.text else [])
    return {label: several for label, several in found.items() if several}


def _range(several: list[Fact]) -> str:
    if all(isinstance(fact.value, int | float) for fact in several):
        several = sorted(several, key=lambda fact: fact.value)
        low, high = several[0].text, several[-1].text
        return low if low == high else f"{low.removesuffix(' %')} to {high}"
    return ", ".join(dict.fromkeys(fact.text for fact in several))


def details(report: Report) -> AnalysisTable | None:
    """A row for each cell and certificate with every value that is no footnote; None where there is none."""
    labels = entry_labels(report)
    records: list[Counted] = [*report.cells, *report.certificates]
    heads = list(_by_label(records))
    rows = []
    for record in records:
        texts = {fact.label: fact.text for fact in facts(record)}
        rows.append([labels[entry_of(record)], name_of(record), *(texts.get(head) or "-" for head in heads)])
    if not heads:
        return None
    entry = "model and defense" if len(report.models) > 1 else "defense"
    return AnalysisTable(title="Details of every cell", columns=[entry, "attack", *heads], rows=rows)
