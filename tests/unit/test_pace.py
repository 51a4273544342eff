"""Progress inside of a batch, from the passes that an attack makes."""

from __future__ import annotations

import time

import pytest
import torch

from freqrobust import Attack, evaluate
from freqrobust.core.progress import Silent
from freqrobust.harness.pace import Pace


class Told(Silent):
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, float]] = []

    def begin(self, label: str, total: int) -> None:
        self.events.append((label, float(total)))

    def advance(self, amount: int) -> None:
        self.events.append(("advance", float(amount)))

    def within(self, amount: float) -> None:
        self.events.append(("within", amount))


@pytest.fixture(autouse=True)
def _every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "INTERVAL", 0.0)


def amounts(size: int, expected: float, images: list[int], differentiated: bool = False) -> list[float]:
    told = Told()
    pace = Pace(told)
    pace.expected = expected
    pace.begin(size)
    for count in images:
        pace.passed(count, differentiated)
    pace.end()
    return [amount for _, amount in told.events]


def test_a_step_of_a_robust_batch_is_its_share() -> None:
    assert amounts(8, 100, [8] * 50) == pytest.approx([8 * step / 100 for step in range(1, 51)])
    assert amounts(8, 300, [8] * 50, differentiated=True) == pytest.approx([8 * step / 100 for step in range(1, 51)])


def test_samples_that_leave_bring_the_end_nearer() -> None:
    found = amounts(100, 100, [100] * 5 + [2] * 20)
    assert found[4] == pytest.approx(5)
    assert found[5] > 70  # 502 passes of an image are done, and 94 steps of 2 images are left
    assert found == sorted(found)


@pytest.mark.parametrize("images", [[7] * 500, [7, 7, 1, 1, 7, 7, 3] * 40, [1] * 1000, [70] * 30])
def test_it_moves_on_and_never_reaches_the_end(images: list[int]) -> None:
    found = amounts(7, 20, images)
    assert found == sorted(found)
    assert found[3] > 0
    assert max(found) < 7


def test_attacks_move_without_reporting_anything() -> None:
    class Steps(Attack):
        kind = "adversarial"
        needs_gradient = False
        steps: int = 30
        norm: str = "linf"
        eps: float = 0.0

        def perturb(self, model, images, labels, context):
            for _ in range(self.steps):
                time.sleep(0.001)
                model(images)
            return images

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    images = torch.rand(6, 1, 4, 4)
    labels = model(images).argmax(dim=1)
    told = Told()
    evaluate(model, (images, labels), attacks=[Steps()], diagnose=None, device="cpu", examples=0, progress=told)
    cell = told.events[max(i for i, (name, _) in enumerate(told.events) if name not in ("advance", "within")) :]
    inside = [amount for name, amount in cell if name == "within"]
    assert len(inside) >= 30
    assert inside == sorted(inside)
    assert inside[0] < 1
    assert 2 < inside[-1] < 6
    assert sum(amount for name, amount in cell if name == "advance") == 6
