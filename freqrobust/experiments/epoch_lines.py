"""What is shown of an epoch in a terminal: one line of text, and the values of probes beside the progress bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from freqrobust.core.text import one_line
from freqrobust.results.training_record import EpochRecord, ProbeResult

#: Longest line that a terminal of 80 columns shows without a break.
WIDTH = 79


def epoch_line(record: EpochRecord, epochs: int, width: int = WIDTH) -> str:
    """One epoch in at most ``width`` characters; what does not fit is left out, the least important first.

    Probes are shown in percent on the training and the held-out samples, ``clean 71/64``; a star marks the best epoch so
    far. The clean images and adversarial probes are the most important; of a sweep, the first value is more important
    than the others; the seconds are the least important.
    """
    star = "*" if record.best else ""
    parts = {0: f"epoch {record.epoch}/{epochs}{star}: loss {record.loss:.3f}"}
    offered = {1 + record.probes.index(result): _pair(result) for result in _by_importance(record.probes)}
    if not record.probes:
        offered[1] = f"accuracy on training batches {record.accuracy:.1%}"
    offered[len(record.probes) + 2] = _duration(record.seconds + record.probe_seconds)
    for position, text in offered.items():
        if len(_joined({**parts, position: text})) <= width:
            parts[position] = text
    return _joined(parts)[:width]


def _joined(parts: dict[int, str]) -> str:
    return one_line(", ".join(text for _, text in sorted(parts.items())))


def live_parts(records: Sequence[EpochRecord]) -> list[str]:
    """The latest value of every probe in percent, ``lfc 41``, for the live display, the most important first.

    Each is on the held-out samples, or where there are none on the training samples. The accuracy on training batches is
    beside them, so that adversarial probes and shifts come before the clean images.
    """
    latest = {result.name: result for record in records for result in record.probes}
    shown = _by_importance(list(latest.values()))
    shown.sort(key=lambda result: result.kind == "clean")
    return [f"{result.label} {100 * result.shown.accuracy:.0f}" for result in shown]


def _by_importance(results: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Clean, adversarial, shifts; of those the first of each attack before the second of any."""
    order = {"clean": 0, "adversarial": 1, "shift": 2}
    seen: Counter[str] = Counter()
    ranks = []
    for position, result in enumerate(results):
        attack = result.name.partition(":")[0]
        ranks.append((order[result.kind], seen[attack], position))
        seen[attack] += 1
    return [results[position] for *_, position in sorted(ranks)]


def _pair(result: ProbeResult) -> str:
    parts = [result.train] if result.held_out is None else [result.train, result.held_out]
    return f"{result.label} {'/'.join(f'{100 * part.accuracy:.0f}' for part in parts)}"


def _duration(seconds: float) -> str:
    """``3.2 s``, ``45 s`` or ``2:05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60}:{whole % 60:02} min"
