"""What a report says first: its entries, a model under a defense each, and the measures of its headline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Literal, NamedTuple

from freqrobust.core.errors import SpecError
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.specs import UNDEFENDED, parse_params
from freqrobust.plugins.suites import HEADLINE_RADIUS, scaled_radius
from freqrobust.results.cells import Cell
from freqrobust.results.certificates import CertificateRecord, Counted
from freqrobust.results.corruptions import CorruptionSummary
from freqrobust.results.diagnosis import Diagnosis, Verdict
from freqrobust.results.gate_view import failed_rows, gate_verdict
from freqrobust.results.records import ModelRecord, ThreatRecord, Warned
from freqrobust.results.report import Report

#: Specs of files, which are named by what comes after the last slash.
_FILES = (".pt", ".pth", ".th", ".ckpt", ".safetensors", ".pt2")
#: The order in which norms are shown and, where nothing else is asked for, preferred.
_NORMS = {"linf": 0, "l2": 1, "l1": 2}


class Entry(NamedTuple):
    """A model under a defense: the position of the model in the report, and the spec of the defense."""

    model: int
    defense: str


class Measure(NamedTuple):
    """One number per entry, all comparable: a row of the headline.

    Attributes:
        label: what it is called.
        found: the number of each entry that has one.
        threat: of a worst case or a certificate.
        certificate: what certified the number, where it is a lower bound.
    """

    label: str
    found: dict[Entry, Counted]
    threat: ThreatRecord | None = None
    certificate: str | None = None


def model_labels(report: Report) -> list[str]:
    """A short name for each model, different for each: the given name, the file's stem, or the spec.

    Example:
        >>> [PurePath(path).stem for path in ("nets/a.pt", "nets/b.pt")]
        ['a', 'b']
    """
    return distinct(
        [short_name(record) for record in report.models],
        [record.name or record.spec for record in report.models],
    )


def model_prefixes(report: Report) -> list[str]:
    """What names of cells begin with, for each model: nothing for a single model, else its label."""
    return [f"{label}: " for label in model_labels(report)] if len(report.models) > 1 else [""]


def settings(report: Report) -> dict[str, str]:
    """What results of the same model on the same data may depend on, by its name."""
    environment = report.environment
    return {
        "seed": str(report.seed),
        "freqrobust version": report.freqrobust_version,
        "torch version": environment.torch,
        "device": environment.device,
        "precision": environment.precision,
    }


def short_name(record: ModelRecord) -> str:
    if record.name:
        return record.name
    path = PurePath(record.spec)
    return path.stem if record.spec.lower().endswith(_FILES) and path.stem else record.spec


def distinct(short: Sequence[str], long: Sequence[str]) -> list[str]:
    """The short names, the long ones where short ones coincide, and numbers where these do too.

    Example:
        >>> distinct(["net", "net", "other"], ["a/net.pt", "b/net.pt", "other.pt"])
        ['a/net.pt', 'b/net.pt', 'other']
        >>> distinct(["net", "net"], ["net.pt", "net.pt"])
        ['net.pt (1)', 'net.pt (2)']
    """
    names = [a if short.count(a) == 1 else b for a, b in zip(short, long, strict=True)]
    return [n if names.count(n) == 1 else f"{n} ({names[: i + 1].count(n)})" for i, n in enumerate(names)]


def entries(report: Report) -> list[Entry]:
    """Every model with every defense it was measured under, as in the report."""
    return list(dict.fromkeys(Entry(cell.model, cell.defense_spec) for cell in report.cells))


def entry_labels(report: Report) -> dict[Entry, str]:
    """How tables name an entry: by its defense, and by its model where there are several."""
    if len(report.models) == 1:
        return {entry: entry.defense for entry in entries(report)}
    models = model_labels(report)
    return {entry: with_defense(models[entry.model], entry.defense) for entry in entries(report)}


def with_defense(model: str, defense: str) -> str:
    """The name of a model under a defense."""
    return model if defense == UNDEFENDED else f"{model} + {defense}"


def headline(report: Report) -> list[Measure]:
    """Clean accuracy, LFC at the headline's radius, and for each threat the worst case and what is certified."""
    found = [Measure("clean", {entry_of(c): c for c in report.cells if c.attack == "clean"})]
    radius = headline_radius(report)
    low: dict[Entry, Counted] = {entry_of(c): c for c in report.cells if _is_lfc(c, radius)}
    if low:
        found.append(Measure(f"LFC, radius {radius:g}", low))
    for threat in by_norm([*threats(report), *(c.threat for c in report.certificates if c.threat is not None)]):
        rows: dict[Entry, Counted] = {entry_of(w): w for w in report.worst_case if w.threat == threat}
        found += [Measure(f"worst case {threat_text(threat)}", rows, threat)] if rows else []
        found += _certified(report, threat)
    return found + _certified(report, None)


def _certified(report: Report, threat: ThreatRecord | None) -> list[Measure]:
    """What each certificate says about a threat, or about no ball."""
    found: dict[str, Measure] = {}
    for record in report.certificates:
        if record.threat == threat:
            label = certified_label(record)
            measure = found.setdefault(label, Measure(label, {}, threat, certificate_name(record)))
            measure.found[entry_of(record)] = record
    return list(found.values())


def certified_label(record: CertificateRecord) -> str:
    """``certified Linf 2/255 (crown)``."""
    budget = f"{threat_text(record.threat)} " if record.threat is not None else ""
    return f"certified {budget}({certificate_name(record)})"


def certificate_name(record: CertificateRecord) -> str:
    """The spec of a certificate without its budget: ``crown``, ``smoothing:n=10000``."""
    head, _, params = record.certificate_spec.partition(":")
    try:
        kept = [f"{key}={value}" for key, value in parse_params(params, params) if key not in ("norm", "eps")]
    except SpecError:  # a report can contain anything
        return record.certificate_spec
    return f"{head}:{','.join(kept)}" if kept else head


def attacks(report: Report) -> list[Measure]:
    """Every attack with the accuracy of each entry under it, adaptive attacks only."""
    found: dict[str, dict[Entry, Counted]] = {}
    for cell in report.cells:
        if cell.knowledge == "adaptive":
            found.setdefault(cell.attack_spec, {})[entry_of(cell)] = cell
    return [Measure(spec, cells) for spec, cells in found.items()]


class Oblivious(NamedTuple):
    """One attack on one entry: adaptive, and with adversarial examples crafted on the undefended model."""

    entry: Entry
    adaptive: Cell
    oblivious: Cell

    @property
    def overstated_by(self) -> float | None:
        """How much more robust the defense looks under the oblivious attack, as a share."""
        if self.adaptive.accuracy is None or self.oblivious.accuracy is None:
            return None
        return self.oblivious.accuracy - self.adaptive.accuracy


def oblivious_attacks(report: Report) -> list[Oblivious]:
    """Every pair of an adaptive and an oblivious cell of the same attack and entry.

    Minimum-norm attacks are left out: their accuracies have no budget, so that the difference of the two is no number of
    points by which a robust accuracy is overstated.
    """
    compared = [c for c in report.cells if c.knowledge == "adaptive" and c.distances is None]
    adaptive = {(entry_of(c), c.attack_spec): c for c in compared}
    return [
        Oblivious(entry_of(cell), adaptive[entry_of(cell), cell.attack_spec], cell)
        for cell in report.cells
        if cell.knowledge == "oblivious" and (entry_of(cell), cell.attack_spec) in adaptive
    ]


def entry_of(record: Counted | CorruptionSummary | Diagnosis) -> Entry:
    """The entry that a part of a report is about."""
    return Entry(record.model, record.defense_spec)


def threats(report: Report) -> list[ThreatRecord]:
    """The threats of the worst cases, each once: norm by norm, with growing eps."""
    return by_norm(row.threat for row in report.worst_case)


def by_norm(several: Iterable[ThreatRecord]) -> list[ThreatRecord]:
    """Each threat once: Linf, L2, L1 and others, with growing eps."""
    found: list[ThreatRecord] = []
    for threat in several:
        if threat not in found:
            found.append(threat)
    return sorted(found, key=lambda t: (_NORMS.get(t.norm, len(_NORMS)), t.norm, t.eps))


def threat_text(threat: ThreatRecord) -> str:
    """``Linf 8/255``."""
    return str(Threat(threat.norm, threat.eps))


def eps_text(threat: ThreatRecord) -> str:
    """The eps in the shorter spelling: ``8/255``, ``0.1``."""
    return Threat(threat.norm, threat.eps).eps_text


def headline_radius(report: Report) -> float:
    """The radius of the headline's LFC, for this report's image size."""
    return scaled_radius(HEADLINE_RADIUS, tuple(report.data.shape))


def _is_lfc(cell: Cell, radius: float) -> bool:
    params = cell.attack_params
    return (
        cell.attack == "lfc"
        and params.get("radius") == radius
        and params.get("shape") == "circle"
        and not params.get("clip")
    )


def at_chance(record: Counted) -> bool:
    """Whether an accuracy under shift is no better than independent predictions and labels would give."""
    chance = record.chance_accuracy if isinstance(record, Cell) else None
    return chance is not None and record.ci95 is not None and record.ci95[0] <= chance


def where(report: Report, warning: Warned) -> str:
    """What a warning is about, with a colon after it, as far as that is not obvious."""
    parts = [model_labels(report)[warning.model]] if len(report.models) > 1 else []
    parts += [warning.defense] if warning.defense else []
    return f"{', '.join(parts)}: " if parts else ""


def warning_text(report: Report, warning: Warned) -> str:
    """A warning with what it is about, and its code."""
    return f"{where(report, warning)}{warning.message} ({warning.code})"


def warning_lines(report: Report) -> list[str]:
    """A line for each code of a warning: the first one, and how many others there are.

    What a verdict says is not said again.
    """
    said = {entry_of(one): one.sentence for one in report.diagnostics if one.verdict == "not meaningful"}
    found: dict[str, list[str]] = {}
    for warning in report.warnings:
        verdict = said.get(Entry(warning.model, warning.defense or UNDEFENDED), "")
        if warning.message.partition("; ")[0] not in verdict:
            found.setdefault(warning.code, []).append(f"{where(report, warning)}{warning.message}")
    return [
        f"warning {code}{f' ({len(texts)} times)' if len(texts) > 1 else ''}: {texts[0]}"
        for code, texts in found.items()
    ]


def verdict_label(diagnosis: Diagnosis) -> str:
    """The verdict as a label beside a number; of quick checks alone it says so, as they claim little."""
    quick = diagnosis.verdict == "no problem found" and diagnosis.depth == "quick"
    return f"{diagnosis.verdict} by quick checks" if quick else diagnosis.verdict


Level = Literal["good", "neutral", "inconclusive", "bad"]


class Statement(NamedTuple):
    """One thing that a reader has to know before any number."""

    level: Level
    text: str


_LEVELS: dict[Verdict, Level] = {
    "no problem found": "good",
    "nothing to check": "neutral",
    "inconclusive": "inconclusive",
    "overestimated": "bad",
    "not meaningful": "bad",
}


def level(diagnosis: Diagnosis) -> Level:
    """How a verdict is marked; quick checks that found no problem are no success."""
    found = _LEVELS[diagnosis.verdict]
    return "neutral" if found == "good" and diagnosis.depth == "quick" else found


def statements(report: Report) -> list[Statement]:
    """The verdicts: of the gate, on what failed, and of the diagnostics on each robust accuracy."""
    found = []
    if report.gate is not None:
        found.append(Statement("good" if report.gate.passed else "bad", gate_verdict(report.gate)))
        found += [Statement("bad", f"{row.name}: {row.text}") for row in failed_rows(report.gate)]
    failures = sum(cell.status == "failed" for cell in report.cells)
    if failures:
        found.append(Statement("bad", f"{failures} of {len(report.cells)} cells failed and are in no worst case"))
    unproved = sum(record.status == "failed" for record in report.certificates)
    if unproved:
        found.append(Statement("bad", f"{unproved} of {len(report.certificates)} certificates failed"))
    found += [Statement(level(diagnosis), verdict_text(report, diagnosis)) for diagnosis in report.diagnostics]
    return found


def verdict_text(report: Report, diagnosis: Diagnosis) -> str:
    """The sentence of a diagnosis, with the entry that it is about and beginning with the verdict."""
    verdict, sentence = diagnosis.verdict, diagnosis.sentence
    return f"{diagnosed(report, diagnosis)}: {sentence if sentence.startswith(verdict) else f'{verdict}: {sentence}'}"


def diagnosed(report: Report, diagnosis: Diagnosis) -> str:
    """The label of the entry that a diagnosis is about."""
    return entry_labels(report).get(entry_of(diagnosis), diagnosis.defense_spec)
