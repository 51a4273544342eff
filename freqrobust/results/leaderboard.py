"""Ranking what reports measured, as far as their samples can tell it apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

from freqrobust.core.errors import SpecError
from freqrobust.core.text import near_miss
from freqrobust.numerics.statistics import independent_difference, paired_difference
from freqrobust.results.certificates import Counted
from freqrobust.results.records import ThreatRecord
from freqrobust.results.report import Report
from freqrobust.results.summary import (
    Entry,
    Level,
    Measure,
    distinct,
    entries,
    headline,
    level,
    settings,
    short_name,
    statements,
    verdict_label,
    warning_text,
    with_defense,
)
from freqrobust.results.view import footnotes

#: Chance that any of the ranks of a board is wrong, at most.
ALPHA = 0.05


@dataclass
class Standing:
    """One entry of a board.

    Attributes:
        name: how it is called on this board.
        report: the name of its report.
        measures: its headline, by label.
        ranks: the best and the worst rank that the samples allow; None where it has no number to rank by.
        verdict: what the diagnostics of the report say about its robust accuracy.
        level: how that verdict is marked.
    """

    name: str
    report: str
    entry: Entry
    measures: dict[str, Counted]
    ranks: tuple[int, int] | None = None
    verdict: str | None = None
    level: Level | None = None

    @property
    def rank_text(self) -> str:
        """``1``, ``2-4``, or a dash."""
        if self.ranks is None:
            return "-"
        best, worst = self.ranks
        return f"{best}" if best == worst else f"{best}-{worst}"


@dataclass
class Board:
    """Entries in order, best first.

    Attributes:
        by: the label of the measure they are ranked by, the first of ``labels``.
        notes: what to know about the ranks.
        remarks: what each report says about its numbers: verdicts, footnotes and warnings.
    """

    by: str
    labels: list[str]
    standings: list[Standing]
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def board(reports: Mapping[str, Report], by: str | None = None) -> Board:
    """Rank every model and defense of all reports.

    A rank is a range: an entry comes after those that are better than it, and before those that it is better
    than, where one is better if the interval of the difference excludes zero. Entries that do not differ share their
    ranks; they are ordered by the measure, then by the clean accuracy, then by name. Differences are paired where both
    were measured on the same samples (Newcombe 1998), and the intervals hold jointly (Bonferroni over all pairs).

    Args:
        reports: by name.
        by: what to rank by: ``clean``, ``lfc``, or a threat such as ``Linf 8/255``; by default the largest
            eps, of the Linf norm if there is one, under which the most entries have a worst case.

    Raises:
        SpecError: no report has what to rank by.
    """
    standings = _standings(reports)
    measures = _measures(reports.values())
    chosen = _find(measures, by) if by is not None else _default(measures, standings)
    ranked = [s for s in standings if _number(s, chosen.label) is not None]
    _rank(ranked, reports, chosen.label)
    ties = [chosen.label, *(label for label in ("clean", _default(measures, standings).label) if label != chosen.label)]
    ordered = sorted(
        ranked, key=lambda s: (*(-(_number(s, label) or 0.0) for label in ties), s.ranks or (0, 0), s.name)
    )
    rest = [s for s in standings if s.ranks is None]
    notes = _rank_notes(ranked, reports, chosen)
    notes += [f"{s.name}: not ranked, as it has no {chosen.label}" for s in rest]
    notes += differences(reports)
    labels = [chosen.label, *(measure.label for measure in measures if measure.label != chosen.label)]
    return Board(chosen.label, labels, [*ordered, *rest], notes, _remarks(reports))


def _remarks(reports: Mapping[str, Report]) -> list[str]:
    found = []
    for name, report in reports.items():
        found += [f"{name}: {one.text}" for one in statements(report)]
        found += [f"{name}: {one}" for one in footnotes(report)]
        found += [f"{name}: warning: {warning_text(report, one)}" for one in report.warnings]
    return found


def _standings(reports: Mapping[str, Report]) -> list[Standing]:
    models = [(name, index) for name, report in reports.items() for index in range(len(report.models))]
    short = [short_name(reports[name].models[index]) for name, index in models]
    long = [f"{name}: {text}" for (name, _), text in zip(models, short, strict=True)]
    names = dict(zip(models, distinct(short, long), strict=True))
    found = []
    for name, report in reports.items():
        measures = headline(report)
        diagnoses = {Entry(d.model, d.defense_spec): d for d in report.diagnostics}
        for entry in entries(report):
            model, diagnosis = names[name, entry.model], diagnoses.get(entry)
            found.append(
                Standing(
                    name=with_defense(model, entry.defense),
                    report=name,
                    entry=entry,
                    measures={m.label: m.found[entry] for m in measures if entry in m.found},
                    verdict=verdict_label(diagnosis) if diagnosis is not None else None,
                    level=level(diagnosis) if diagnosis is not None else None,
                )
            )
    return found


def _measures(reports: Iterable[Report]) -> list[Measure]:
    """The measures of all reports, each once: clean, LFC, then the threats by norm and eps."""
    found: dict[str, Measure] = {}
    for report in reports:
        for measure in headline(report):
            found.setdefault(measure.label, measure)
    norms = {"linf": 0, "l2": 1, "l1": 2}

    def order(measure: Measure) -> tuple[int, int, float, bool]:
        certified = measure.certificate is not None
        if measure.threat is None:
            return (3 if certified else 0 if measure.label == "clean" else 1, 0, 0.0, certified)
        return (2, norms.get(measure.threat.norm, len(norms)), measure.threat.eps, certified)

    return sorted(found.values(), key=order)


def _find(measures: list[Measure], by: str) -> Measure:
    wanted = " ".join(by.lower().split())
    for measure in measures:
        label = measure.label.lower()
        if wanted in (label, label.removeprefix("worst case "), label.partition(",")[0]):
            return measure
    known = [m.label.removeprefix("worst case ").partition(",")[0].lower() for m in measures]
    raise SpecError(f"cannot rank by {by!r}{near_miss(wanted, known)} (there is: {', '.join(known)})")


def _default(measures: list[Measure], standings: list[Standing]) -> Measure:
    attacked = [m for m in measures if m.certificate is None]
    threatened = [m for m in attacked if m.threat is not None]

    def preference(measure: Measure) -> tuple[int, int, float]:
        having = sum(_number(s, measure.label) is not None for s in standings)
        eps = measure.threat.eps if measure.threat is not None else 0.0
        return (having, measure.threat is not None and measure.threat.norm == "linf", eps)

    return max(threatened or attacked, key=preference)


def _number(standing: Standing, label: str) -> float | None:
    one = standing.measures.get(label)
    return one.accuracy if one is not None else None


def _rank(ranked: list[Standing], reports: Mapping[str, Report], label: str) -> None:
    n = len(ranked)
    beaten_by, beats = [0] * n, [0] * n
    pairs = list(itertools.combinations(range(n), 2))
    z = NormalDist().inv_cdf(1 - ALPHA / 2 / max(1, len(pairs)))
    for i, j in pairs:
        low, high = _interval(ranked[i], ranked[j], reports, label, z)
        better, worse = (i, j) if low > 0 else (j, i)
        if low > 0 or high < 0:
            beats[better] += 1
            beaten_by[worse] += 1
    for standing, above, below in zip(ranked, beaten_by, beats, strict=True):
        standing.ranks = (1 + above, n - below)


def _interval(
    one: Standing, other: Standing, reports: Mapping[str, Report], label: str, z: float
) -> tuple[float, float]:
    """Of the difference of their accuracies, one minus other."""
    a, b = one.measures[label], other.measures[label]
    if same_samples(reports[one.report], reports[other.report]):
        return compare(a, b, z)
    return independent_difference(a.correct, a.n, b.correct, b.n, z)[1]


def compare(one: Counted, other: Counted, z: float) -> tuple[float, float]:
    """Interval of the paired difference of two accuracies on the same samples, one minus other."""
    a, b = one.right(), other.right()
    both, only_first, only_second = (int(x.sum()) for x in (a & b, a & ~b, ~a & b))
    return paired_difference(both, only_first, only_second, len(a) - both - only_first - only_second, z)[1]


def same_samples(one: Report, other: Report) -> bool:
    """Whether both were measured on the same images and labels, in the same order."""
    a, b = one.data, other.data
    return (a.sha256, a.n, a.ids) == (b.sha256, b.n, b.ids)


def _rank_notes(ranked: list[Standing], reports: Mapping[str, Report], chosen: Measure) -> list[str]:
    if len(ranked) < 2:
        return []
    label = chosen.label
    pairs = len(ranked) * (len(ranked) - 1) // 2
    notes = [
        f"ranked by {label}: a range is all the ranks that the samples allow "
        f"({_many(pairs, 'comparison')}, jointly at {100 * (1 - ALPHA):.0f} %)"
    ]
    if all(s.ranks == (1, len(ranked)) for s in ranked):
        notes.append(f"no entry can be told from any other by {label}")
    if chosen.threat is not None and chosen.certificate is None:
        sets: dict[tuple[str, ...], list[str]] = {}
        for s in ranked:
            sets.setdefault(_attacks(reports[s.report], s.entry, chosen.threat), []).append(s.name)
        if len(sets) > 1:
            listed = "; ".join(f"{', '.join(names)}: {', '.join(found) or 'none'}" for found, names in sets.items())
            notes.append(f"the worst cases are over different attacks, and fewer attacks look more robust: {listed}")
    return notes


def _attacks(report: Report, entry: Entry, threat: ThreatRecord) -> tuple[str, ...]:
    """Specs, in order, of the adaptive attacks that count under a threat."""
    found = {
        cell.attack_spec
        for cell in report.cells
        if Entry(cell.model, cell.defense_spec) == entry
        and cell.kind == "adversarial"
        and cell.knowledge == "adaptive"
        and cell.status == "ok"
        and (cell.threat is None or (cell.threat.norm == threat.norm and cell.threat.eps <= threat.eps))
    }
    return tuple(sorted(found))


def differences(reports: Mapping[str, Report]) -> list[str]:
    """What was not the same for all reports, in words."""
    found = []
    name, first = next(iter(reports.items()))
    apart = [other for other, report in reports.items() if not same_samples(first, report)]
    if apart:
        shown = "; ".join(
            f"{key}: {r.data.spec} [{r.data.split}], n = {r.data.n}" + ("" if r.data.ids == "all" else ", a subset")
            for key, r in ((k, reports[k]) for k in (name, *apart))
        )
        found.append(f"not measured on the same samples, so these are compared as independent samples: {shown}")
    by_report = {key: settings(report) for key, report in reports.items()}
    for what in settings(first):
        values = {key: used[what] for key, used in by_report.items()}
        if len(set(values.values())) > 1:
            found.append(f"different {what}s: {'; '.join(f'{key}: {value}' for key, value in values.items())}")
    found += _different_thresholds(reports)
    for key, report in reports.items():
        failed = sum(cell.status == "failed" for cell in report.cells)
        if failed:
            found.append(f"{key}: {_many(failed, 'cell')} failed, and what failed is in no worst case")
        unproved = sum(record.status == "failed" for record in report.certificates)
        if unproved:
            found.append(f"{key}: {_many(unproved, 'certificate')} failed")
    return found


def _different_thresholds(reports: Mapping[str, Report]) -> list[str]:
    values = {
        key: ", ".join(f"{row.name} >= {row.required:g}" for row in r.gate.thresholds if row.required is not None)
        if r.gate is not None and r.gate.thresholds
        else "none"
        for key, r in reports.items()
    }
    if len(set(values.values())) < 2:
        return []
    return [f"different thresholds: {'; '.join(f'{key}: {value}' for key, value in values.items())}"]


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
