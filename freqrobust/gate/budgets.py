"""Gate cells that can fail: budgets at which the accuracy of a model is neither high nor low, found by measuring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from freqrobust.core.errors import SpecError
from freqrobust.core.text import near_miss
from freqrobust.gate.regression import Rules, expected_drop, hindrance
from freqrobust.numerics.threat import norm_name
from freqrobust.plugins import suites

if TYPE_CHECKING:
    from freqrobust.data.dataset import ImageData
    from freqrobust.results.report import Report

#: Accuracies between which a gate cell can drop and rise.
LOWEST, HIGHEST = 0.2, 0.8
#: The accuracies near which budgets are chosen.
AIMS = (0.6, 0.35)
#: Samples that are measured.
SAMPLES = 100
#: Budgets that are measured first, and the unit that they are written in.
GRIDS: dict[str, tuple[tuple[float, ...], str]] = {
    "linf": ((0.25, 0.5, 1, 2, 4, 8, 16, 32, 64), "/255"),
    "l2": ((0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8), ""),
    "l1": ((0.5, 1, 2, 5, 10, 20, 50, 100), ""),
}
#: Further budgets between two that are too small and too large, at most.
BISECTIONS = 5
STEPS = 10


@dataclass(frozen=True)
class Chosen:
    """What a project evaluates, and why.

    Attributes:
        attacks: specs of the attacks and filters; empty where no budget was found.
        comments: the measured accuracies, a line each.
        warnings: gate cells that can hardly or never fail, and threats without a budget.
    """

    attacks: list[str]
    comments: list[str]
    warnings: list[str]


def search(
    measure: Callable[[list[float]], dict[float, float]], grid: Sequence[float]
) -> tuple[list[float], dict[float, float]]:
    """Budgets with an accuracy from 20 to 80 %, at most two, and the accuracy at every budget that was measured.

    If there is none in the grid, the gap between the largest budget with a higher accuracy and the smallest with a lower
    one is bisected, geometrically.

    Args:
        measure: the accuracies at some budgets.
        grid: the first budgets, in increasing order.
    """
    found = measure(list(grid))
    for _ in range(BISECTIONS):
        if any(LOWEST <= accuracy <= HIGHEST for accuracy in found.values()):
            break
        low = max((eps for eps, accuracy in found.items() if accuracy > HIGHEST), default=None)
        high = min((eps for eps, accuracy in found.items() if accuracy < LOWEST), default=None)
        if high is None or (low is not None and low >= high):
            break
        middle = float(f"{(low * high) ** 0.5 if low is not None else high / 4:.2g}")
        if middle in found:
            break
        found |= measure([middle])
    inside = {eps: accuracy for eps, accuracy in found.items() if LOWEST <= accuracy <= HIGHEST}
    chosen = {min(inside, key=lambda eps: abs(inside[eps] - aim)) for aim in AIMS} if inside else set()
    return sorted(chosen), dict(sorted(found.items()))


def choose(model: Any, data: ImageData, norms: Sequence[str] = ("linf",), rules: Rules | None = None) -> Chosen:
    """Measure a model on a few samples, and choose the cells of its gate.

    Args:
        model: a module from images in [0, 1] to logits.
        data: the images of the gate.
        norms: of the threats.
        rules: those of the gate.

    Raises:
        SpecError: an unknown norm.
        FreqRobustError: the model cannot be measured.
    """
    from freqrobust.harness.evaluate import evaluate

    check_norms(norms)
    rules, part = rules or Rules(), data.limit(SAMPLES)

    def run(attacks: list[str]) -> Report:
        return evaluate(model, part, attacks=attacks, diagnose=None)

    filters = suites.quick(data.shape)[:2]
    first = run(filters)
    clean, low, high = (_accuracy(first, number) for number in range(3))
    measured = [f"clean {clean:.0%}", *(f"{spec} {a:.0%}" for spec, a in zip(filters, (low, high), strict=True))]
    cells = {"clean": clean, filters[0]: low}
    attacks, comments, warnings = list(filters), [f"on {len(part)} samples: {', '.join(measured)}"], []
    for norm in dict.fromkeys(norms):
        grid, unit = GRIDS[norm]

        def accuracies(levels: list[float], norm: str = norm, unit: str = unit) -> dict[float, float]:
            report = run([_spec(norm, levels, unit)])
            return {level: _accuracy(report, number) for number, level in enumerate(levels, 1)}

        budgets, found = search(accuracies, grid)
        shown = ", ".join(f"{eps:g}{unit} {accuracy:.0%}" for eps, accuracy in found.items())
        comments.append(f"PGD-{STEPS}, {norm_name(norm)}, by eps: {shown}")
        if budgets:
            attacks.append(_spec(norm, budgets, unit))
            cells |= {f"worst-{norm}-{eps:g}{unit}": found[eps] for eps in budgets}
        else:
            warnings.append(
                f"no {norm_name(norm)} budget with an accuracy from {LOWEST:.0%} to {HIGHEST:.0%} was found (by eps: {shown}); "
                "choose one, or a gate on these cells can hardly fail"
            )
    chance = 1 / data.classes
    drop = expected_drop(len(data), len(cells), rules.alpha)
    for name, accuracy in cells.items():
        why = hindrance(accuracy, rules.max_drop, drop, None if name.startswith("worst") else chance)
        if why is not None:
            warnings.append(f"the gate cell {name} {why[0]} fail: its accuracy is {accuracy:.1%}, {why[1]}")
    found_any = len(attacks) > len(filters)
    return Chosen(attacks if found_any else [], comments, warnings)


def check_norms(norms: Sequence[str]) -> None:
    """Refuse a norm that has no grid of budgets.

    Raises:
        SpecError: there is one.
    """
    for norm in norms:
        if norm not in GRIDS:
            raise SpecError(f"unknown norm {norm!r}{near_miss(norm, GRIDS)} ({', '.join(GRIDS)})")


def _spec(norm: str, levels: Sequence[float], unit: str) -> str:
    eps = ",".join(f"{level:g}{unit}" for level in levels)
    given = "" if norm == "linf" else f",norm={norm}"
    return f"pgd:eps={f'[{eps}]' if len(levels) > 1 else eps},steps={STEPS}{given}"


def _accuracy(report: Report, number: int) -> float:
    """The accuracy of a cell by its position; cell 0 is the clean one.

    Raises:
        SpecError: it could not be measured.
    """
    cell = report.cells[number]
    if cell.accuracy is None:
        raise SpecError(f"{cell.attack_spec} could not be measured: {cell.error}; --no-measure writes the file without")
    return cell.accuracy
