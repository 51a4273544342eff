"""Reports made from outcomes that are known, and saved adversarial examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from freqrobust import Report
from freqrobust.plugins.selection import parse_attacks, parse_defenses
from freqrobust.results.outcomes import pack
from support.saved import command, digits, folder, model, other, undefended  # noqa: F401

Outcomes = Mapping[str, Any]


def _model(spec: str) -> dict[str, Any]:
    return {"spec": spec, "arch": "resnet20", "sha256": "0" * 64, "parameters": 1, "normalize": {"source": "none"}}


def _counted(right: np.ndarray | None, n: int) -> dict[str, Any]:
    if right is None:
        return {"n": n, "correct": 0, "outcomes": None, "status": "failed", "error": "it broke"}
    return {"n": n, "correct": int(right.sum()), "outcomes": pack(right)}


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    """A report of ``{"[defense/]attack spec": right or None}``; worst cases are over the adversarial cells.

    ``right`` is a boolean array, or a number: so many right, the first ones.
    """

    def make(outcomes: Outcomes, n: int = 100, models: int = 1, **changes: Any) -> Report:
        cells, worst = [], []
        for index in range(models):
            for defense, found in _by_defense(outcomes, n).items():
                chain = parse_defenses([defense])[0]
                owner = {
                    "model": index,
                    "defense": chain.name,
                    "defense_spec": chain.spec,
                    "defense_params": chain.params,
                }
                inside: dict[tuple[str, float], np.ndarray] = {}
                for spec, right in found.items():
                    named, threat = _attack(spec)
                    cells.append({**owner, **named, **_counted(right, n)})
                    if threat is not None and right is not None:
                        inside[threat] = right & inside.get(threat, right)
                for threat, right in inside.items():
                    smaller = [
                        found_there
                        for key, found_there in inside.items()
                        if key[0] == threat[0] and key[1] <= threat[1]
                    ]
                    row = {**owner, "threat": {"norm": threat[0], "eps": threat[1]}}
                    worst.append({**row, **_counted(np.logical_and.reduce([right, *smaller]), n)})
        values = {
            "freqrobust_version": "0.1.0",
            "created": "2026-01-01T00:00:00Z",
            "seed": 0,
            "status": "complete",
            "models": [_model(f"net{index}.pt") for index in range(models)],
            "data": {
                "spec": "test.npz",
                "split": "test",
                "n": n,
                "classes": 10,
                "shape": [3, 32, 32],
                "sha256": "d" * 64,
                "ids": "all",
            },
            "environment": {"python": "3.11", "torch": "2", "device": "cpu", "precision": "fp32"},
            "cells": cells,
            "worst_case": worst,
            **changes,
        }
        return Report.model_validate(values)

    return make


def _by_defense(outcomes: Outcomes, n: int) -> dict[str, dict[str, np.ndarray | None]]:
    found: dict[str, dict[str, np.ndarray | None]] = {}
    for name, value in outcomes.items():
        defense, bar, attack = name.rpartition("|")
        right = np.arange(n) < value if isinstance(value, int) else value
        found.setdefault(defense if bar else "undefended", {})[attack] = (
            None if right is None else np.asarray(right, bool)
        )
    return found


def _attack(spec: str) -> tuple[dict[str, Any], tuple[str, float] | None]:
    spec, mark, _ = spec.partition("@oblivious")
    knowledge = {"knowledge": "oblivious"} if mark else {}
    if spec == "clean":
        return {"attack": "clean", "attack_spec": "clean", "attack_params": {}, "kind": "shift", **knowledge}, None
    one = parse_attacks([spec])[0]
    threat = one.plugin.threat()
    named = {"attack": one.name, "attack_spec": one.spec, "attack_params": one.params, "kind": one.plugin.kind}
    if threat is None:
        return {**named, **knowledge}, None
    return {**named, "threat": {"norm": threat.norm, "eps": threat.eps}, **knowledge}, tuple(threat)
