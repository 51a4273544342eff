"""Processes that share the tasks of a run make the report that one process makes, whatever each of them does and when."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from freqrobust import Attack, Certificate, Certified, Defense
from freqrobust.data.loading import as_data
from freqrobust.harness.sharing import Merge, Shard
from freqrobust.harness.tasks import perform
from support.networks import untrained
from support.sharing import content, in_blocks_of, shared_report

N, BLOCK = 22, 8


@dataclass
class Shuffled:
    """All tasks, in a random order; the process may stop before one of them."""

    seed: int = 0
    stop: int | None = None
    reports: bool = True
    done: list[str] = field(default_factory=list)
    kind: str | None = None
    environment: dict[str, Any] | None = None

    def opened(self, run_dir, shared):
        return nullcontext()

    def measure(self, name, tasks, journal, failures) -> bool:
        order = random.Random(self.seed).sample(list(tasks), len(tasks)) if self.seed else tasks
        for task in order:
            if len(self.done) == self.stop:
                raise KeyboardInterrupt
            perform(task, journal, failures)
            self.done.append(task.label)
        return True


class Counting(nn.Module):
    """Counts the images that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = untrained(0)
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return self.inner(x)


class Breaks(Attack):
    """Moves all pixels; fails on some samples, at some eps."""

    eps: float = 0.1
    norm: str = "linf"
    where: tuple[float, ...] = ()
    among: tuple[int, ...] = ()
    nested: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = False

    def perturb(self, model, images, labels, context):
        if self.eps in self.where and (not self.among or set(context.ids.tolist()) & set(self.among)):
            raise ValueError(f"it does not work at {self.eps}")
        signs = (
            context.initial_signs if context.initial_signs is not None else context.uniform(images.shape[1:], "x") - 0.5
        )
        return (images + self.eps * signs.sign()).clamp(0, 1)


class TogetherMoved(Attack):
    """Moves every image towards the mean of its batch."""

    eps: float = 0.1
    norm: str = "linf"
    batch_invariant: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False

    def perturb(self, model, images, labels, context):
        return images + (images.mean(dim=0, keepdim=True) - images).clamp(-self.eps, self.eps)


class BreaksWhenMade(Defense):
    """Cannot be applied."""

    def apply(self, model, context):
        raise ValueError("no such layer")


class Picky(nn.Module):
    def __init__(self, model: nn.Module, threshold: float) -> None:
        super().__init__()
        self.model, self.threshold = model, threshold

    def forward(self, x):
        if bool((x[:, 0, 0, 0] > self.threshold).any()):
            raise ValueError("too bright")
        return self.model(x)


class BreaksOnSome(Defense):
    """Fails on bright images."""

    threshold: float = 0.9

    def apply(self, model, context):
        return Picky(model, self.threshold)


class HalfCertified(Certificate):
    """Radii that do not depend on eps; fails on some samples."""

    eps: float = 0.1
    norm: str = "l2"
    radius_decides: ClassVar[bool] = True
    guarantee: ClassVar[str] = "statistical"
    fails: bool = False
    calls: ClassVar[list[int]] = []

    def certify(self, model, images, labels, context):
        self.calls.append(len(images))
        if self.fails and 9 in context.ids.tolist():
            raise ValueError("no bound")
        radius = images.flatten(1).mean(dim=1) * context.correct
        return Certified(radius >= self.eps, radius=radius, forwards=len(images))

    def statement(self):
        return "nothing at all is claimed by this test"


SWEEP = [Breaks(eps=eps) for eps in (0.02, 0.05, 0.1)]
RUNS = {
    "sweeps, a shift, an attack that prepares itself": {
        "attacks": ["pgd:eps=[0.02,0.05,0.1],steps=3", "fgsm:eps=0.1", "lfc:radius=2", "fourier:eps=0.1,directions=4"],
        "defenses": ["lowpass:radius=2"],
        "oblivious": True,
    },
    "an attack on whole batches": {"attacks": [TogetherMoved()], "batch_size": 5},
    "a stochastic defense and its certificate": {
        "attacks": ["pgd:eps=[0.05,0.1],steps=2"],
        "defenses": ["randomized-smoothing:sigma=0.25,copies=2"],
        "certify": ["smoothing:eps=[0.05,0.3],n=40,n0=10,alpha=0.01"],
        "oblivious": True,
    },
    "distances": {"attacks": ["ddn:steps=5", "fmn:steps=5"]},
    "certificates": {"attacks": ["clean"], "certify": ["crown:eps=[0.001,0.01]", "ibp:eps=0.001"]},
    "a measurement that budgets share": {
        "attacks": ["clean"],
        "certify": [HalfCertified(eps=0.2), HalfCertified(eps=0.4)],
    },
    "a certificate that fails": {
        "attacks": ["clean"],
        "certify": [HalfCertified(eps=0.2, fails=True), HalfCertified(eps=0.4, fails=True)],
    },
    "one eps fails": {"attacks": [Breaks(eps=eps, where=(0.05,)) for eps in (0.02, 0.05, 0.1)]},
    "the smallest eps fails in one block": {
        "attacks": [Breaks(eps=eps, where=(0.02,), among=(9,)) for eps in (0.02, 0.05, 0.1)]
    },
    "two eps fail": {"attacks": [Breaks(eps=eps, where=(0.02, 0.05), among=(9,)) for eps in (0.02, 0.05, 0.1)]},
    "a defense fails": {
        "attacks": ["fgsm:eps=0.1", "lfc:radius=2"],
        "defenses": [BreaksWhenMade(), "lowpass:radius=2"],
        "oblivious": True,
    },
    "a defense fails on some samples": {
        "attacks": ["fgsm:eps=0.02"],
        "defenses": [BreaksOnSome(threshold=0.97)],
        "oblivious": True,
    },
    "a defense fails on the examples": {
        "attacks": ["fgsm:eps=0.3"],
        "defenses": [BreaksOnSome(threshold=0.9999), "lowpass:radius=2"],
        "oblivious": True,
    },
    "quick checks": {
        "attacks": ["pgd:eps=[0.005,0.01],steps=2"],
        "diagnose": "quick",
        "defenses": ["lowpass:radius=2"],
    },
    "all checks": {
        "attacks": ["pgd:eps=0.005,steps=2"],
        "diagnose": "full",
        "defenses": ["lowpass:radius=2"],
        "oblivious": True,
    },
    "fewer samples than a block": {"attacks": SWEEP, "first": 5},
    "pictures": {"attacks": SWEEP, "examples": 2},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    in_blocks_of(monkeypatch, BLOCK)


@pytest.fixture
def data():
    images = torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = untrained(0)(images).argmax(dim=1)
    labels[::7] = (labels[::7] + 1) % 4
    return as_data((images, labels))


@pytest.fixture(params=RUNS)
def case(request, data):
    return untrained(0), data, RUNS[request.param]


def report(case, sharing=None, **more):
    model, data, options = case
    return shared_report(model, data, sharing, **{**options, **more})


def test_shards_in_any_order_make_the_same_report(case, tmp_path) -> None:
    expected = content(report(case))
    for number in (3, 1, 2):
        assert report(case, Shard(number, 3), run_dir=tmp_path / "shards") is None
    assert content(report(case, Merge(), run_dir=tmp_path / "shards")) == expected
    assert content(report(case, Shuffled(1), run_dir=tmp_path / "queue")) == expected
