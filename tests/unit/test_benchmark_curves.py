"""The benchmark of attacks: passes and successes by sample, and the area under a curve."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.models.classifier import frozen
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.selection import parse_attacks
from support.networks import tiny

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "curves.py"


@pytest.fixture(scope="module")
def curves() -> ModuleType:
    spec = importlib.util.spec_from_file_location("curves", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["curves"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["curves"]


class Threshold(nn.Module):
    """Class 1 where the mean of the pixels exceeds that of the sample, for images that are constant but for a mark."""

    def __init__(self, distance: float) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        brightness = x[:, :, 0, 0].mean(dim=1)  # a corner that is 0.5 in every image
        return torch.stack([torch.zeros_like(brightness), brightness - 0.5 - self.distance], dim=1)


@pytest.fixture
def images() -> torch.Tensor:
    """Five images far apart, with the same corner."""
    torch.manual_seed(0)
    images = torch.rand(5, 3, 6, 6)
    images[:, :, 0, 0] = 0.5
    return images


@pytest.fixture
def recorder(curves, images):
    return curves.Recorder(Threshold(0.035), images, torch.zeros(5, dtype=torch.long))


def brighter(images: torch.Tensor, by: float) -> torch.Tensor:
    changed = images.clone()
    changed[:, :, 0, 0] += by
    return changed


def test_success_is_counted_in_passes_of_the_sample(recorder, images) -> None:
    """Steps of 0.01, each a forward and a backward pass, exceed 0.035 at the fifth forward pass: the ninth pass."""
    for step in range(6):
        x = brighter(images[:3], 0.01 * step).requires_grad_(True)
        torch.autograd.grad(recorder(x).sum(), x)
    first = recorder.trace.first(0.045)
    assert first[:3].tolist() == [9, 9, 9]
    assert np.isinf(first[3:]).all()
    assert (recorder.trace.forwards, recorder.trace.backwards) == (18, 18)


def test_a_smaller_budget_needs_a_nearer_example(recorder, images) -> None:
    for by in (0.2, 0.1, 0.04):
        recorder(brighter(images, by))
    assert recorder.trace.first(0.5).tolist() == [1] * 5
    assert recorder.trace.first(0.1).tolist() == [2] * 5
    assert recorder.trace.first(0.05).tolist() == [3] * 5
    assert np.isinf(recorder.trace.first(0.039)).all()


def test_examples_outside_of_the_box_do_not_count(recorder, images) -> None:
    changed = brighter(images, 0.1)
    changed[2, 0, 3, 3] = 1.01
    recorder(changed)
    assert np.isinf(recorder.trace.first(1.0)).tolist() == [False, False, True, False, False]


def test_rows_belong_to_the_nearest_image(recorder, images) -> None:
    order = torch.tensor([3, 1, 1, 4])
    noisy = (images[order] + 0.02 * torch.rand_like(images[order])).clamp(0, 1)
    assert recorder.owners(noisy).tolist() == order.tolist()
    assert recorder.owners(noisy.flip(0)).tolist() == order.flip(0).tolist()
    assert recorder.owners(noisy[:2]).tolist() == [3, 1]


def test_one_far_row_of_a_complete_batch_stays_in_order(recorder, images) -> None:
    changed = images.clone()
    changed[0] = images[1] * 0.9 + images[0] * 0.1
    assert recorder.owners(changed).tolist() == [0, 1, 2, 3, 4]
    assert recorder.owners(changed[[0, 2]]).tolist() == [1, 2]


def test_several_backward_passes_of_one_forward_pass(recorder, images) -> None:
    x = images.clone().requires_grad_(True)
    logits = recorder(x)
    for column in range(2):
        torch.autograd.grad(logits[:, column].sum() + 0 * x.sum(), x, retain_graph=True)
    with torch.no_grad():
        recorder(x)
    assert (recorder.trace.forwards, recorder.trace.backwards) == (10, 10)


def test_passes_are_those_that_the_report_counts(curves) -> None:
    """PGD through the harness and with the recorder: the same images forward and backward, the prediction included."""
    model, data = tiny()
    cell = evaluate(model, data, attacks=["pgd:eps=4/255,steps=5"], device="cpu", diagnose=None).cells[1]
    images, labels, ids = data.batch(torch.arange(len(data)), torch.device("cpu"))
    recorder = curves.Recorder(model, images, labels).eval()
    with frozen(recorder):
        attack = parse_attacks(["pgd:eps=4/255,steps=5"])[0].plugin
        recorder(attack.perturb(recorder, images.clone(), labels, AttackContext(ids, seed=0)))
    assert (recorder.trace.forwards, recorder.trace.backwards) == (cell.forwards, cell.backwards)
    assert int(np.isinf(recorder.trace.first(4 / 255)).sum()) == cell.correct
    assert 0 < cell.correct < len(data)


def test_the_area_is_over_the_logarithm_of_the_passes(curves) -> None:
    first = np.array([1, 10, np.inf, 5000])
    assert curves.area(first, 1000) == pytest.approx(math.log(1000) + math.log(100))
    assert curves.robust_after(first, 10, 5) == pytest.approx(0.4)


def test_optimality_is_relative_to_the_best_on_every_sample(curves) -> None:
    ranked = curves.optimality({"a": np.array([10, 1000]), "b": np.array([np.inf, 100])}, 1000)
    assert ranked == {"a": pytest.approx(2 / 3), "b": pytest.approx(1 / 3)}
    assert curves.optimality({"a": np.array([np.inf])}) == {"a": 1.0}
