"""Ranks are ranges that the samples allow, and what is not comparable is said."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest

from freqrobust.core.errors import SpecError
from freqrobust.results.cells import Cell, WorstCase
from freqrobust.results.diagnosis import Diagnosis
from freqrobust.results.leaderboard import board
from freqrobust.results.outcomes import pack
from freqrobust.results.records import DataRecord, EnvironmentRecord, ModelRecord, NormalizeRecord, ThreatRecord
from freqrobust.results.report import Report

Make = Callable[..., Report]
EPS = {"1": 1 / 255, "8": 8 / 255}


def report(name: str, clean: np.ndarray, worst: dict[float, np.ndarray], **changed: object) -> Report:
    """A report of one undefended model with these outcomes per sample."""
    n = len(clean)
    cell = {"defense": "undefended", "defense_spec": "undefended", "defense_params": {}, "n": n}
    threats = {eps: ThreatRecord(norm="linf", eps=eps) for eps in worst}
    cells = [
        Cell(
            **cell,
            attack="clean",
            attack_spec="clean",
            attack_params={},
            kind="shift",
            correct=int(clean.sum()),
            outcomes=pack(clean),
        )
    ]
    cells += [
        Cell(
            **cell,
            attack="pgd",
            attack_spec=f"pgd:eps={eps:g}",
            attack_params={"eps": eps},
            kind="adversarial",
            threat=threats[eps],
            correct=int(right.sum()),
            outcomes=pack(right),
        )
        for eps, right in worst.items()
    ]
    rows = [
        WorstCase(**cell, threat=threats[eps], correct=int(right.sum()), outcomes=pack(right))
        for eps, right in worst.items()
    ]
    values = {
        "freqrobust_version": "0.1.0",
        "created": "2026-01-01T00:00:00Z",
        "seed": 0,
        "status": "complete",
        "models": [ModelRecord(spec=f"{name}.pt", arch="net", sha256=name, parameters=1, normalize=NormalizeRecord())],
        "data": DataRecord(spec="d", split="test", n=n, classes=10, shape=[3, 32, 32], sha256="0", ids="all"),
        "environment": EnvironmentRecord(python="3", torch="2", device="cpu", precision="fp32"),
        "cells": cells,
        "worst_case": rows,
    }
    return Report(**{**values, **changed})


def outcomes(accuracy: float, n: int = 200, seed: int = 0) -> np.ndarray:
    """The easiest samples are right: nested outcomes, so that pairs are as informative as they can be."""
    order = np.random.default_rng(seed).permutation(n)
    right = np.zeros(n, dtype=bool)
    right[order[: round(accuracy * n)]] = True
    return right


def simple(name: str, clean: float, worst: float, **changed: object) -> Report:
    n = int(changed.pop("n", 200))  # type: ignore[call-overload]
    return report(name, outcomes(clean, n), {EPS["8"]: outcomes(worst, n)}, **changed)


def ranks(found: dict[str, Report], by: str | None = None) -> dict[str, str]:
    return {s.name: s.rank_text for s in board(found, by).standings}


def test_clear_differences_are_ranked_and_others_share_ranks() -> None:
    found = {
        "a": simple("a", 0.9, 0.2),
        "b": simple("b", 0.8, 0.5),
        "c": simple("c", 0.7, 0.49),
        "d": simple("d", 1, 0),
    }
    assert ranks(found) == {"b": "1-2", "c": "1-2", "a": "3", "d": "4"}
    assert list(ranks(found)) == ["b", "c", "a", "d"]
    assert ranks(found, "clean") == {"d": "1", "a": "2", "b": "3", "c": "4"}


def test_equal_outcomes_cannot_be_told_apart() -> None:
    made = board({"a": simple("a", 0.9, 0.0), "b": simple("b", 0.8, 0.0), "c": simple("c", 0.7, 0.0)})
    assert [s.rank_text for s in made.standings] == ["1-3"] * 3
    assert any("no entry can be told from any other" in note for note in made.notes)


def test_pairs_see_more_than_independent_samples() -> None:
    """Twelve samples that only one gets right are enough on the same samples, and not on others."""
    a, b = simple("a", 0.9, 0.50), simple("b", 0.9, 0.44)
    assert ranks({"a": a, "b": b}) == {"a": "1", "b": "2"}
    elsewhere = b.model_copy(update={"data": b.data.model_copy(update={"sha256": "1", "spec": "other"})})
    made = board({"a": a, "b": elsewhere})
    assert [s.rank_text for s in made.standings] == ["1-2", "1-2"]
    assert any("not measured on the same samples" in note and "other" in note for note in made.notes)


def newcombe(a: np.ndarray, b: np.ndarray, z: float) -> tuple[float, float]:
    """The paired score interval from its definition: the roots of the score tests, and the correlation."""

    def limits(p: float, n: int) -> tuple[float, float]:
        roots = np.roots([1 + z**2 / n, -(2 * p + z**2 / n), p**2])
        return float(min(roots.real)), float(max(roots.real))

    n = len(a)
    table = np.array([[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]], dtype=float)
    margins = np.prod(table.sum(0)) * np.prod(table.sum(1))
    cross = table[0, 0] * table[1, 1] - table[0, 1] * table[1, 0]
    cross = max(cross - n / 2, 0) if cross > 0 else cross
    phi = cross / np.sqrt(margins) if margins > 0 else 0.0
    pa, pb = a.mean(), b.mean()
    (la, ua), (lb, ub) = limits(pa, n), limits(pb, n)
    low = pa - pb - np.sqrt((pa - la) ** 2 - 2 * phi * (pa - la) * (ub - pb) + (ub - pb) ** 2)
    high = pa - pb + np.sqrt((ua - pa) ** 2 - 2 * phi * (ua - pa) * (pb - lb) + (pb - lb) ** 2)
    return float(low), float(high)


def test_ranks_are_those_of_the_definition() -> None:
    """Against a count over all pairs, with the interval written down from its definition."""
    generator = np.random.default_rng(3)
    for _ in range(20):
        right = generator.random((5, 120)) < generator.uniform(0.2, 0.6, (5, 1))
        found = {f"m{i}": report(f"m{i}", right[i], {EPS["8"]: right[i]}) for i in range(5)}
        z = NormalDist().inv_cdf(1 - 0.05 / 2 / 10)
        better = {(i, j): newcombe(right[i], right[j], z)[0] > 0 for i, j in itertools.permutations(range(5), 2)}
        expected = {
            f"m{i}": (
                1 + sum(better[j, i] for j in range(5) if j != i),
                5 - sum(better[i, j] for j in range(5) if j != i),
            )
            for i in range(5)
        }
        assert {s.name: s.ranks for s in board(found).standings} == expected


def test_true_ranks_lie_in_the_ranges() -> None:
    """In at least 95 % of draws every true rank is in its range; accuracies and correlation as between real models."""
    generator = np.random.default_rng(0)
    true = np.array([0.50, 0.46, 0.30, 0.28])
    draws, covered = 200, 0
    for _ in range(draws):
        shared = generator.random(300)
        noise = generator.random((4, 300))
        right = np.where(generator.random((4, 300)) < 0.7, shared, noise) < true[:, None]
        found = {f"m{i}": report(f"m{i}", right[i], {EPS["8"]: right[i]}) for i in range(4)}
        standings = {s.name: s.ranks or (0, 0) for s in board(found).standings}
        covered += all(standings[f"m{i}"][0] <= i + 1 <= standings[f"m{i}"][1] for i in range(4))
    assert covered / draws >= 0.95


def test_the_default_is_the_largest_budget_that_most_have() -> None:
    both = {EPS["1"]: outcomes(0.5), EPS["8"]: outcomes(0.1)}
    a, b = report("a", outcomes(0.9), both), report("b", outcomes(0.9), {EPS["1"]: outcomes(0.4)})
    assert board({"a": a, "b": b}).by == "worst case Linf 1/255"
    made = board({"a": a, "b": b}, "linf 8/255")
    assert [s.rank_text for s in made.standings] == ["1", "-"]
    assert any(note.startswith("b: not ranked") for note in made.notes)
    assert made.labels[0] == "worst case Linf 8/255"


def test_what_differs_is_said() -> None:
    a = simple("a", 0.9, 0.5)
    b = simple("b", 0.8, 0.4, seed=3)
    b.environment.torch = "2.1"
    b.cells[1].attack_spec = "fgsm"
    notes = " | ".join(board({"a": a, "b": b}).notes)
    for part in ("different seeds: a: 0; b: 3", "different torch versions", "over different attacks", "b: fgsm"):
        assert part in notes
    assert board({"a": a, "again": a}).notes == board({"a": a, "again": a}).notes
    assert "different" not in " ".join(board({"a": a, "c": simple("c", 0.8, 0.4)}).notes)


def test_verdicts_are_beside_the_ranks() -> None:
    a = simple("a", 0.9, 0.5)
    a.diagnostics = [
        Diagnosis(
            defense="undefended",
            defense_spec="undefended",
            defense_params={},
            verdict="overestimated",
            sentence="it is",
            checks=[],
        )
    ]
    assert {s.name: s.verdict for s in board({"a": a, "b": simple("b", 0.8, 0.4)}).standings} == {
        "a": "overestimated",
        "b": None,
    }


def test_names_are_distinct() -> None:
    same = {"one": simple("net", 0.9, 0.5), "two": simple("net", 0.9, 0.4), "three": simple("other", 0.9, 0.1)}
    assert set(ranks(same)) == {"one: net", "two: net", "other"}


def test_nothing_to_rank_by() -> None:
    with pytest.raises(SpecError, match=r"cannot rank by 'linf 8/25'; did you mean 'linf 8/255'\? \(there is: clean, "):
        board({"a": simple("a", 0.9, 0.5)}, "linf 8/25")
