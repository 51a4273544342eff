"""What is shown of an epoch in a terminal: one line of text, and the values of probes beside the progress bar."""

from __future__ import annotations

from freqrobust.core.progress import fitted
from freqrobust.results.training_record import EpochRecord, ProbeResult

#: Longest line that a terminal of 80 columns shows without a break.
WIDTH = 79


def epoch_line(record: EpochRecord, epochs: int, width: int = WIDTH) -> str:
    """One epoch in at most ``width`` characters; what does not fit is left out, the least important first.

    Probes are shown in percent on the training and the held-out samples, ``clean 71/64``, clean and adversarial ones
    before shifts; a star marks the best epoch so far.
    """
    star = "*" if record.best else ""
    start = f"epoch {record.epoch:{len(str(epochs))}}/{epochs}{star}: loss {record.loss:.3f}"
    parts = [start, *(_pair(result) for result in _by_importance(record.probes))]
    if not record.probes:
        parts.append(f"accuracy on training batches {record.accuracy:.1%}")
    whole = ", ".join([*parts, _duration(record.seconds + record.probe_seconds)])
    return whole if len(whole) <= width else fitted(parts, width)


def live_parts(records: list[EpochRecord]) -> list[str]:
    """The latest value of every probe in percent, ``lfc 41``, for the live display, the most important first.

    Each is on the held-out samples, or where there are none on the training samples.
    """
    latest = {result.name: result for record in records for result in record.probes}
    shown = _by_importance(list(latest.values()))
    return [f"{result.label} {100 * result.shown.accuracy:.0f}" for result in [*shown[1:], *shown[:1]]]


def _by_importance(results: list[ProbeResult]) -> list[ProbeResult]:
    """Clean, adversarial, shifts; otherwise as they were given."""
    order = {"clean": 0, "adversarial": 1, "shift": 2}
    return sorted(results, key=lambda result: order[result.kind])


def _pair(result: ProbeResult) -> str:
    parts = [result.train] if result.held_out is None else [result.train, result.held_out]
    return f"{result.label} {'/'.join(f'{100 * part.accuracy:.0f}' for part in parts)}"


def _duration(seconds: float) -> str:
    """``3.2 s``, ``45 s`` or ``2:05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60}:{whole % 60:02} min"
