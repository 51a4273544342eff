"""The sequential plan: its error rates over every order of small data sets, and over random orders of larger ones."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from freqrobust.numerics.sequential_test import Plan, looks_for, plan


def decided(stops: Plan, right: np.ndarray) -> tuple[bool, int]:
    counts = np.cumsum(right)
    for look, seen in enumerate(stops.looks):
        verdict = stops.decide(look, int(counts[seen - 1]))
        if verdict is not None:
            return verdict, seen
    raise AssertionError("undecided after all samples")


def exact_error(stops: Plan, n: int, total: int, need: int) -> Fraction:
    """Share of all placements of ``total`` right samples that are decided wrongly."""
    wrong = 0
    for places in itertools.combinations(range(n), total):
        right = np.zeros(n, dtype=int)
        right[list(places)] = 1
        wrong += decided(stops, right)[0] != (total >= need)
    return Fraction(wrong, math.comb(n, total))


@pytest.mark.parametrize(
    ("need", "false_pass", "false_fail"), [(7, 0.1, 0.1), (3, 0.2, 0.05), (11, 0.05, 0.3), (7, 0.4, 0.4)]
)
def test_error_rates_over_every_order(need: int, false_pass: float, false_fail: float) -> None:
    n = 14
    stops = plan(n, need, false_pass, false_fail, looks=(3, 5, 8, 11, 14))
    errors = [exact_error(stops, n, total, need) for total in range(n + 1)]
    assert max(errors[:need]) <= false_pass
    assert max(errors[need:]) <= false_fail
    # the plan is not idle: near the threshold it does risk something where it may
    if min(false_pass, false_fail) >= 0.1:
        assert errors[need - 1] > 0
        assert errors[need] > 0


@pytest.mark.parametrize("required", [0.1, 0.5, 0.9])
def test_error_rates_over_random_orders(required: float) -> None:
    n, orders = 500, 1500
    need = math.ceil(required * n)
    stops = plan(n, need, 0.05, 0.05)
    generator = np.random.default_rng(0)
    for total, allowed in ((need - 1, 0.05), (need, 0.05), (need - 25, 0.01), (need + 25, 0.01)):
        right = np.arange(n) < total
        wrong = sum(decided(stops, generator.permutation(right))[0] != (total >= need) for _ in range(orders))
        assert wrong / orders <= allowed + 3 * math.sqrt(allowed * (1 - allowed) / orders)


def test_far_from_the_threshold_few_samples_are_enough() -> None:
    n, generator = 1000, np.random.default_rng(0)
    stops = plan(n, 450, 0.05, 0.05)
    for share in (0.05, 0.9):
        used = [decided(stops, generator.permutation(np.arange(n) < share * n))[1] for _ in range(200)]
        assert np.mean(used) < 0.1 * n


@pytest.mark.parametrize(("need", "verdict"), [(0, True), (-1, True), (101, False)])
def test_what_no_sample_can_change_is_decided_at_the_first_look(need: int, verdict: bool) -> None:
    for right in (np.zeros(100, dtype=int), np.ones(100, dtype=int)):
        stops = plan(100, need, 0.05, 0.05)
        assert decided(stops, right) == (verdict, stops.looks[0])


def test_the_last_look_is_exact() -> None:
    for n, need in ((1, 1), (7, 4), (100, 50), (333, 300)):
        stops = plan(n, need, 0.01, 0.01)
        assert stops.looks[-1] == n
        assert stops.decide(len(stops.looks) - 1, need) is True
        assert stops.decide(len(stops.looks) - 1, need - 1) is False


def test_certainty_stops_too() -> None:
    """When enough are right, or can no longer become right, it is decided, however small the error rates."""
    stops = plan(100, 90, 1e-9, 1e-9)
    right = np.arange(100) >= 11  # 11 of the first look's samples are wrong: 90 are out of reach
    assert decided(stops, right) == (False, stops.looks[0])


@pytest.mark.parametrize("n", [1, 15, 16, 31, 32, 100, 500, 10000])
def test_looks_end_with_all_samples(n: int) -> None:
    looks = looks_for(n)
    assert looks[-1] == n
    assert list(looks) == sorted(set(looks))
    assert len(looks) <= 20
    assert min(np.diff([0, *looks])) >= min(n, 16)
