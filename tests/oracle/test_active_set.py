"""What an attack finds for a sample does not depend on how often it looks which samples are done."""

from __future__ import annotations

import pytest
import torch

from freqrobust import ImageData, attack
from freqrobust.attacks import active_set
from freqrobust.attacks.active_set import ActiveSet, steps_between
from freqrobust.plugins.selection import parse_attacks
from support.networks import untrained

SPECS = [
    "pgd:eps=0.05,steps=9",
    "pgd:eps=0.5,norm=l2,steps=7,restarts=2",
    "apgd:eps=0.05,steps=12,targets=1",
    "square:eps=0.1,queries=25",
    "noise:eps=0.3,draws=9",
    "fmn:steps=20",
    "ddn:steps=12",
]


@pytest.fixture(scope="module")
def data() -> ImageData:
    model = untrained(0).eval()
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(12, 1, 8, 8, generator=generator)
    with torch.no_grad():
        return ImageData(images, model(images).argmax(dim=1), classes=4)


@pytest.mark.parametrize("every", [3, 100])
@pytest.mark.parametrize("spec", SPECS)
def test_results_do_not_depend_on_when_samples_leave(monkeypatch, data, spec, every) -> None:
    given = (untrained(0).eval(), data.images, data.labels, parse_attacks([spec])[0])
    expected = attack(*given, goal="decide", device="cpu")
    monkeypatch.setattr(active_set, "steps_between", lambda device: every)
    found = attack(*given, goal="decide", device="cpu")
    assert int(expected.is_adversarial.sum()) > 0
    assert torch.equal(found.is_adversarial, expected.is_adversarial)
    # a network of another batch size may round differently
    assert torch.allclose(found.images, expected.images, atol=1e-6)
    assert found.passes.forwards >= expected.passes.forwards


def test_samples_leave_after_every_kth_step_only(monkeypatch) -> None:
    monkeypatch.setattr(active_set, "steps_between", lambda device: 3)
    active, result = ActiveSet(4, torch.device("cpu")), torch.zeros(4, 1)
    first = torch.tensor([False, True, False, False])
    active.record(result, first, torch.full((4, 1), 1.0))
    assert active.leave(first) is None
    again = torch.tensor([False, True, False, True])
    assert active.running(again).tolist() == [False, False, False, True]
    active.record(result, again, torch.full((4, 1), 2.0))  # the first example of a sample is kept
    assert active.leave(again) is None
    assert active.rows.tolist() == [0, 1, 2, 3]
    keep = active.leave(torch.zeros(4, dtype=torch.bool))
    assert keep is not None
    assert keep.tolist() == active.rows.tolist() == [0, 2]
    active.finish(result, torch.full((2, 1), 9.0))
    assert result[:, 0].tolist() == [9, 1, 9, 2]


def test_every_step_looks_on_the_cpu_only() -> None:
    assert steps_between(torch.device("cpu")) == 1
    assert steps_between(torch.device("cuda")) == steps_between(torch.device("mps")) == active_set.EVERY > 1
