"""Checks of how an attack went: silent with attacks that work, each fires on the failure that it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import Attack, InputDefense, evaluate, load_data
from freqrobust.harness.diagnosis import examine
from freqrobust.harness.diagnosis.checks import FULL_CHECKS
from freqrobust.harness.diagnosis.traces import RISING, Recorder
from freqrobust.numerics.threat import Norm
from freqrobust.plugins.criterion import Misclassification
from freqrobust.plugins.registry import attacks
from freqrobust.training.loop import fit
from freqrobust.training.plan import sgd_plan

NAMES = ["loss still rising", "silent success", "steps without effect", "scale of gradients"]


@pytest.fixture(autouse=True)
def _indicators_alone(monkeypatch) -> None:
    """The full part without its other checks."""
    monkeypatch.setattr(examine, "FULL_CHECKS", tuple(c for c in FULL_CHECKS if c.name in NAMES))
    monkeypatch.setattr(examine, "QUICK_CHECKS", ())


def diagnosed(model: nn.Module, data, attack, **options):
    report = evaluate(model, data, attacks=[attack], device="cpu", diagnose="full", oblivious=False, **options)
    return report.diagnostics[-1]


def statuses(diagnosis) -> dict[str, str]:
    return {c.name: c.status for c in diagnosis.checks if c.name in NAMES}


def check(diagnosis, name):
    return next(c for c in diagnosis.checks if c.name == name)


@pytest.mark.parametrize("spec", ["pgd:eps=0.1,steps=20", "pgd:norm=l2,eps=0.8,steps=20", "apgd:eps=0.1,steps=20"])
def test_they_pass_with_attacks_that_work(network, digits, spec) -> None:
    found = diagnosed(network, digits, spec)
    assert set(statuses(found).values()) == {"passed"}, [c.reason for c in found.checks]
    for name in NAMES:
        assert spec.split(",")[0] in check(found, name).reason
        assert ";" not in check(found, name).reason  # no advice where nothing failed
    assert check(found, "loss still rising").n <= 64


def test_steps_that_are_too_small(network, digits) -> None:
    found = diagnosed(network, digits, "pgd:eps=0.1,steps=20,step_size=0.0002,random_start=false")
    assert statuses(found) == dict.fromkeys(NAMES, "passed") | {"loss still rising": "failed"}
    rising = check(found, "loss still rising")
    assert rising.measured == rising.n > 40  # all robust samples
    assert rising.reason.endswith("; use more steps or a larger step size")
    assert found.verdict == "inconclusive"
    assert "larger step size" in found.sentence


class Forgetful(Attack):
    """Random search that returns its last image, adversarial or not."""

    eps: float = 0.1
    norm: Norm = "linf"
    returned: str = "last"

    def perturb(self, model, images, labels, context):
        other = attacks.parse(f"pgd:eps={self.eps},steps=10")[0].plugin
        found = other.perturb(model, images, labels, context)
        x = found.clone().requires_grad_(True)
        model(x).sum().backward()
        return found if self.returned == "best" else images


@pytest.mark.parametrize("returned", ["last", "best"])
def test_an_attack_that_does_not_return_what_it_found(network, digits, returned) -> None:
    found = diagnosed(network, digits, Forgetful(returned=returned))
    silent = check(found, "silent success")
    if returned == "best":
        assert silent.measured == 0
        assert silent.status == "passed"
        return
    honest = evaluate(network, digits, attacks=["pgd:eps=0.1,steps=10"], device="cpu", diagnose=None)
    clean, attacked = honest.cells
    assert silent.status == "failed"
    assert silent.measured == silent.additional == clean.correct - attacked.correct
    assert "best image of all steps" in silent.reason
    assert found.verdict == "overestimated"


def test_what_was_lost_counts_in_the_worst_case(network, digits) -> None:
    report = evaluate(network, digits, attacks=[Forgetful()], device="cpu", diagnose="full")
    honest = evaluate(network, digits, attacks=["pgd:eps=0.1,steps=10"], device="cpu", diagnose=None)
    assert report.cells[1].correct == report.cells[0].correct
    assert report.worst_case[0].correct == honest.cells[1].correct


class Rounds(InputDefense):
    """Quantises and does not say so: its gradient is zero."""

    def transform(self, images):
        return (images * 8).round() / 8


class Shattered(InputDefense):
    """A smooth and strong oscillation of every pixel: gradients are exact, and say nothing of the next step."""

    def transform(self, images):
        return images + 0.02 * torch.sin(20000 * images)


@pytest.mark.parametrize("defense", [Rounds(), Shattered()])
def test_gradients_that_do_not_help(network, digits, defense) -> None:
    found = diagnosed(network, digits, "pgd:eps=0.05,steps=20", defenses=[defense])
    useless = check(found, "steps without effect")
    assert useless.status == "failed", useless.reason
    assert "BPDA" in useless.reason
    assert check(found, "silent success").status == "passed"


class Signs(nn.Module):
    """A network with activations of -1 and 1 behind its first layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(((x > 0.3).to(x.dtype) - x).detach() * 0.5 + 0 * x + x.detach() * 0.5)


class Scaled(nn.Module):
    """Other outputs of the same network."""

    def __init__(self, network: nn.Module, temperature: float, softmax: bool) -> None:
        super().__init__()
        self.network, self.temperature, self.softmax = network, temperature, softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x) * self.temperature
        return logits.softmax(dim=1) if self.softmax else logits


def test_signs_as_activations(network, digits) -> None:
    found = diagnosed(Signs(network), digits, "pgd:eps=0.05,steps=10")
    assert check(found, "steps without effect").status == "failed"


@pytest.mark.parametrize(("temperature", "softmax", "status"), [(1, False, "passed"), (100, False, "failed")])
def test_the_scale_of_the_logits(network, digits, temperature, softmax, status) -> None:
    found = diagnosed(Scaled(network, temperature, softmax), digits, "pgd:eps=0.02,steps=10")
    scale = check(found, "scale of gradients")
    assert scale.status == status, scale.reason
    if status == "failed":
        assert "divide large logits" in scale.reason
        margin = diagnosed(Scaled(network, temperature, softmax), digits, "pgd:eps=0.02,steps=10,loss=margin")
        assert check(margin, "scale of gradients").status == "passed"  # as advised


def test_a_saturated_softmax(network, digits) -> None:
    found = diagnosed(Scaled(network, 200, True), digits, "pgd:eps=0.02,steps=10")
    assert check(found, "scale of gradients").status == "failed"


def test_they_do_not_apply_to_random_models_and_single_steps(network, digits) -> None:
    single = diagnosed(network, digits, "fgsm:eps=0.05")
    assert statuses(single)["loss still rising"] == "not applicable"
    assert "makes 1 steps" in check(single, "loss still rising").reason
    random = diagnosed(network, digits.first(16), "pgd:eps=0.05,steps=2", defenses=["gaussian-noise:sigma=0.05"])
    assert set(statuses(random).values()) == {"not applicable"}


def test_other_criteria_have_their_own_margins(network, digits) -> None:
    found = diagnosed(network, digits, "pgd:eps=0.1,steps=20", criterion="topk:k=2")
    assert set(statuses(found).values()) == {"passed"}, [c.reason for c in found.checks]


def test_an_attack_is_run_once_and_taken_from_the_journal(network, digits, tmp_path) -> None:
    def passes(found) -> tuple[int, int]:
        return found.forwards, found.backwards

    first = diagnosed(network, digits, "pgd:eps=0.1,steps=20", run_dir=tmp_path)
    second = diagnosed(network, digits, "pgd:eps=0.1,steps=20", run_dir=tmp_path)
    assert second == first
    clean = evaluate(network, digits, attacks=["clean"], device="cpu").cells[0].correct
    # the quick checks; then 20 steps, the last image, the image that was returned and the best one
    assert passes(first) == (3 * 64 + (20 + 3) * clean, 64 + 20 * clean)


class Known(nn.Module):
    """Logits ``(0, value)`` for the images that are values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = x.flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(value), value], dim=1)


def summary(curves: list[list[float]]) -> dict[str, list[bool]]:
    """What is said of these margins, one row for each step."""
    values = torch.tensor(curves)
    n = values.shape[1]
    images, labels = torch.zeros(n, 1, 1, 1), torch.zeros(n, dtype=torch.int64)
    recorder = Recorder(
        Known(), images, labels, Misclassification(), lambda x: torch.ones(len(x), dtype=torch.bool), []
    )
    for row in values:
        x = row.view(n, 1, 1, 1).requires_grad_(True)
        recorder(x).sum().backward()
    return {name: flags.tolist() for name, flags in recorder.summary().items()}


def test_curves_in_closed_form() -> None:
    """A line, a curve that converges, one that goes down, one that is flat at last, and one that rises late."""
    steps = np.linspace(0, 1, 21)
    line = steps - 2
    converges = 1 - np.exp(-9 * steps) - 2
    down, late = -steps - 1, np.where(steps > 0.9, 0.5, 0) - 2
    flat = np.minimum(steps, 0.5) - 2
    found = summary(np.stack([line, converges, down, flat, late], axis=1).tolist())
    assert RISING < 0.1  # the last tenth of a line makes up a tenth
    assert found["rising"] == [True, False, False, False, True]
    assert found["idle"] == [False, False, True, False, False]
    assert found["started"] == [True] * 5
    assert found["scale"] == [False] * 5


def test_values_that_are_not_finite() -> None:
    found = summary([[-1.0, float("nan"), -1.0], [-0.5, -0.5, float("inf")]] * 5)
    assert found["scale"] == [False, True, True]


class LargestOnly(nn.Module):
    """k-winners-take-all: keeps a tenth of the activations, those that are largest.  (Xiao, Zhong, Zheng 2020)"""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        smallest = flat.topk(round(self.share * flat.shape[1]), dim=1).values[:, -1:]
        return (flat * (flat >= smallest)).view_as(x)


@pytest.fixture(scope="module")
def discontinuous(trained_once) -> nn.Module:
    """A network of digits with k-winners-take-all activations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(1, 32, 3, padding=1), LargestOnly(0.1), nn.Conv2d(32, 32, 3, padding=1)]
        linear = [nn.Flatten(), nn.Linear(2048, 64), LargestOnly(0.2), nn.Linear(64, 10)]
        model = nn.Sequential(*convolutions, LargestOnly(0.1), *linear)

    def train() -> None:
        fit(model, load_data("digits", split="train"), sgd_plan(6, 0.05, batch_size=64), device=torch.device("cpu"))

    trained_once("k-winners-take-all", model, train)
    return model


@pytest.mark.slow
def test_averaged_gradients_find_more_where_a_network_is_discontinuous(discontinuous, monkeypatch) -> None:
    monkeypatch.setattr(examine, "FULL_CHECKS", tuple(c for c in FULL_CHECKS if c.name == "averaged gradients"))
    found = diagnosed(discontinuous, load_data("digits", limit=200), "pgd:eps=0.1,steps=20")
    averaged = check(found, "averaged gradients")
    assert averaged.status == "failed"
    assert averaged.additional > 3
    assert found.verdict == "overestimated"
    assert ": averaged gradients misclassified" in found.sentence
