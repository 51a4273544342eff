"""Numbers and names as all reports write them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freqrobust.results import AnalysisRecord, Cell, Difference, ModelRecord, PublishedRecord, Report, WorstCase

#: From so many samples on, an interval is narrow enough for another digit.
_FINE = 2000


def digits(report: Report) -> int:
    """Decimals of the ends of an interval."""
    return 1 if report.data.n >= _FINE else 0


def percent(share: float) -> str:
    """``45.2`` for 0.452."""
    return _positive_zero(f"{100 * share:.1f}")


def points(share: float) -> str:
    """A difference in percentage points, with its sign."""
    text = f"{100 * share:+.1f}"
    return "+0.0" if text == "-0.0" else text


def interval(ends: tuple[float, float], decimals: int) -> str:
    """``[41, 50]``, in percent or percentage points."""
    low, high = (_positive_zero(f"{100 * end:.{decimals}f}") for end in ends)
    return f"[{low}, {high}]"


def _positive_zero(text: str) -> str:
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


def accuracy(one: Cell | WorstCase, decimals: int, mark: str = "") -> str:
    """``45.2 [41, 50]``, or ``failed``; ``mark`` comes after the number."""
    if one.accuracy is None or one.ci95 is None:
        return "failed"
    return f"{percent(one.accuracy)}{mark} {interval(one.ci95, decimals)}"


def difference(one: Difference, decimals: int) -> str:
    """``+1.0 [-6, 8]``."""
    return f"{points(one.points)} {interval(one.ci95, decimals)}"


def one_line(text: object) -> str:
    """Text of others on one line, without characters that control a terminal, a file or the direction of writing.

    Example:
        >>> one_line("two\\n lines and a \\x1b[31mcolour")
        'two lines and a \\ufffd[31mcolour'
    """
    return "".join(" " if c.isspace() else "\ufffd" if _controls(c) else c for c in " ".join(str(text).split()))


def _controls(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")


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
    return (
        f"{data.spec} [{data.split}], n = {data.n}, seed {report.seed}, {environment.device}, {environment.precision}"
    )


def title(report: Report) -> str:
    """What was measured, in a few words: the model, or how many there are."""
    if len(report.models) == 1:
        return report.models[0].name or report.models[0].arch
    return f"{len(report.models)} models"


def readings(record: AnalysisRecord) -> Iterator[str]:
    """What an analysis says of each model and defense: the frequencies it depends on, and why."""
    several = len(record.models) > 1
    for result in record.results:
        names = ([result.label] if several or result.label else []) + [result.defense_spec]
        where = " + ".join(name for name in names if name and name != "none") or "undefended"
        reading = f"{result.reading} frequencies. " if result.reading is not None else ""
        if reading or result.sentence:
            yield f"{where}: {reading}{result.sentence}"
