"""Real checkpoints on real images, through the command line: the reference counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Reported = Callable[..., dict[str, Any]]

FACTORY = """
from torch import nn
def make():
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10),
    )
"""


def counts(report: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(cell["defense_spec"], cell["attack_spec"]): cell["correct"] for cell in report["cells"]}


@pytest.mark.slow
def test_resnet20(shared: Path, report: Reported) -> None:
    found = report(
        *(
            "eval",
            "--model",
            shared / "checkpoints/resnet20-12fca82f.th",
            "--data",
            shared / "data/cifar10/test_500.npz",
        ),
        *("--attack", "lfc:radius=12", "--defense", "smooth:rho=0.25"),
        *("--device", "cpu"),
    )
    model = found["models"][0]
    assert model["arch"] == "resnet20"
    assert model["normalize"]["source"] == "architecture"
    assert model["normalize"]["preset"] == "imagenet"
    assert model["parameters"] == 269722
    correct = counts(found)
    for cell, expected in {
        ("undefended", "clean"): 455,
        ("undefended", "lfc:radius=12"): 404,
        ("smooth:rho=0.25", "clean"): 251,
    }.items():
        assert abs(correct[cell] - expected) <= 1, cell


def test_a_network_that_is_not_known(
    shared: Path, report: Reported, rejected: Callable[..., str], write: Callable[[str, str], str]
) -> None:
    """The file holds two networks, of a cascade; the first one is what the reference counts are of."""
    checkpoint = shared / "checkpoints/cifar_small_36px.pth"
    data = ["--data", shared / "data/cifar10/test_500.npz", "--device", "cpu"]
    message = rejected("eval", "--model", checkpoint, *data)
    assert "cifar_small_36px.pth fits no known architecture; the closest is" in message
    assert "--arch" in message
    write("net.py", FACTORY)
    options = ["--arch", "net.py:make", "--normalize", "0.485,0.456,0.406/0.225,0.225,0.225"]
    attacks = ["--attack", "lfc:radius=4", "--attack", "hfc:radius=4"]
    found = report("eval", "--model", checkpoint, *data, *options, *attacks)
    assert found["models"][0]["normalize"]["source"] == "given"
    correct = counts(found)
    for attack, expected in {"clean": 269, "lfc:radius=4": 234, "hfc:radius=4": 54}.items():
        assert abs(correct["undefended", attack] - expected) <= 1, attack
