"""How findings are shown, whether in a terminal or as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from freqrobust.core.percent import interval, percent, points
from freqrobust.results.analysis import AnalysisTable
from freqrobust.results.findings import Findings, Measured, Trend, Verdict

VERDICTS: tuple[Verdict, ...] = ("reproduced", "not reproduced", "undecided")


def measured_table(measured: Iterable[Measured]) -> AnalysisTable:
    """Measured values beside published ones; columns that would be empty are left out."""
    found = list(measured)
    columns = {
        "quantity": [one.name if one.unit in ("", "%") else f"{one.name} ({one.unit})" for one in found],
        "published": [_value(one.published, one.unit) if one.published is not None else "" for one in found],
        "here": [_value(one.value, one.unit) for one in found],
        "95 % interval": [_interval(one.ci95, one.unit) if one.ci95 is not None else "" for one in found],
    }
    kept = {title: texts for title, texts in columns.items() if any(texts)}
    rows = [list(row) for row in zip(*kept.values(), strict=True)]
    return AnalysisTable(title="Published and measured", columns=list(kept), rows=rows)


def _value(value: float, unit: str) -> str:
    return f"{percent(value)} %" if unit == "%" else f"{value:.4g}"


def _interval(ends: tuple[float, float], unit: str) -> str:
    return interval(ends, 1) if unit == "%" else f"[{ends[0]:.4g}, {ends[1]:.4g}]"


def estimate_text(trend: Trend) -> str:
    """The estimate that decides, with its interval: ``+12.3 points [8.0, 16.1]``."""
    estimate = f"{points(trend.estimate)} points" if trend.unit == "%" else f"{trend.estimate:+.3g}"
    if trend.ci95 is None:
        return f"{estimate} (exact)"
    ends = interval(trend.ci95, 1) if trend.unit == "%" else f"[{trend.ci95[0]:.3g}, {trend.ci95[1]:.3g}]"
    return f"{estimate} {ends}"


def counts(findings: Findings) -> dict[Verdict, int]:
    """How many trends have each verdict."""
    found = Counter(trend.verdict for trend in findings.trends)
    return {verdict: found[verdict] for verdict in VERDICTS}


def verdict_line(findings: Findings) -> str:
    """The verdicts in words: ``3 of 4 trends reproduced, 1 undecided``."""
    numbers, total = counts(findings), len(findings.trends)
    if not total:
        return "no trends"
    first = f"{numbers['reproduced']} of {total} trend{'s' if total > 1 else ''} reproduced"
    return ", ".join([first, *(f"{numbers[v]} {v}" for v in VERDICTS[1:] if numbers[v])])


def data_text(findings: Findings) -> str:
    """The images in words."""
    parts = [
        f"{one.n} {what} images ({one.spec}, {'x'.join(map(str, one.shape))})"
        for one, what in ((findings.train_data, "training"), (findings.data, "test"))
        if one is not None
    ]
    return ", ".join(parts)


def all_settings(findings: Findings) -> dict[str, str]:
    """What was done, in words: data, device and seed beside what the experiment says itself."""
    environment = findings.environment
    own = {"data": data_text(findings), **findings.settings}
    run = {
        "scale": findings.scale,
        "seed": str(findings.seed),
        "device": f"{environment.device}, torch {environment.torch}" if environment is not None else "",
        "time": f"{findings.seconds:g} s",
    }
    return {name: text for name, text in {**own, **run}.items() if text}
