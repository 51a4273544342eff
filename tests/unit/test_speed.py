"""Timed batches of a defended model, and what is concluded from them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust.core.config import DeviceOptions
from freqrobust.data.dataset import ImageData
from freqrobust.data.image_store import ImageFiles, ImageStore
from freqrobust.harness import speed as speed_module
from freqrobust.harness.opening import check_settings, open_run
from freqrobust.harness.run import DefenseRun
from freqrobust.harness.speed import Duration, Speed, measure_speed
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.specs import DefenseChain


def test_two_numbers_of_images_give_the_time_of_a_call() -> None:
    found = Duration.fitted(8, 0.5 + 8 * 0.01, 128, 0.5 + 128 * 0.01)
    assert found == pytest.approx((0.5, 0.01))
    assert found.mean(128) == pytest.approx(0.5 / 128 + 0.01)
    assert Duration.fitted(8, 2.0, 128, 1.0) == (0.0, 1 / 128)  # disturbed
    assert Duration.fitted(8, 0.1, 128, 16.0) == (0.0, 0.125)  # large batches are slower
    assert Duration.fitted(4, 1.0, 4, 1.0) == (0.0, 0.25)


def test_shares_between_measured_budgets_are_interpolated() -> None:
    nothing = Duration(0.0, 0.0)
    speed = Speed(nothing, nothing, 8, 3, 0.9, {Threat("linf", 0.1): 0.5, Threat("linf", 0.3): 0.1})
    shares = [speed.kept(Threat("linf", eps)) for eps in (0.0, 0.05, 0.1, 0.2, 0.3, 1.0)]
    assert shares == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1, 0.1])
    assert speed.kept(Threat("l2", 1.0)) == 0.45


def test_the_share_of_robust_samples_of_a_linear_model() -> None:
    """Of ``logits = (x, 1 - x)`` with one pixel the margin is known: a sample is robust if eps is less than x - 1/2."""
    linear = nn.Linear(1, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        linear.bias.copy_(torch.tensor([0.0, 1.0]))
    model = nn.Sequential(nn.Flatten(), linear)
    images = torch.linspace(0.505, 0.995, 50).view(50, 1, 1, 1)
    data = ImageData(images, torch.zeros(50, dtype=torch.int64), 2)
    settings = check_settings(DeviceOptions(device="cpu", batch_size=50))
    threats = [Threat("linf", eps) for eps in (0.1, 0.2, 0.4)] + [Threat("l2", 0.3), Threat("l1", 0.1)]
    with open_run(model, data, settings) as run:
        speed = measure_speed(DefenseRun(run, DefenseChain()), threats)
    assert (speed.clean, speed.images) == (1.0, 50)
    found = {threat: speed.robust[threat] for threat in threats[:4]}
    assert list(found.values()) == pytest.approx([0.8, 0.6, 0.2, 0.4])
    assert threats[4] not in speed.robust
    assert speed.step.mean(50) > 0


@pytest.mark.parametrize(
    ("steps", "unit", "ending", "expected"),
    [
        (True, 1, 800, 1000 + 500 + 400),
        (False, 1, 400, 1000 + 500),
        (True, 10**6, 0, 1000 + 500 * 10**6 + 256 * 2**20),
        (True, 1, 5000, 1000 + 5000),
    ],
    ids=["steps", "forward passes only", "large arrays", "small batches"],
)
def test_the_memory_of_a_run_follows_from_a_part_of_a_batch(
    monkeypatch: pytest.MonkeyPatch, steps: bool, unit: int, ending: int, expected: int
) -> None:
    """Before the batches 1,000 bytes and with 28 images 280 units more: 10 for an image; and what gaps in it take."""
    peaks = iter([1000, 1000 + 280 * unit])
    monkeypatch.setattr(speed_module, "taken", lambda device: next(peaks))
    monkeypatch.setattr(speed_module, "_timed", lambda *batch: (1.0, 1.0))
    monkeypatch.setattr(speed_module, "SECONDS", 7.0)
    monkeypatch.setattr(speed_module, "_ENDING", ending)
    data = ImageData(torch.rand(50, 1, 1, 1), torch.zeros(50, dtype=torch.int64), 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with open_run(model, data, check_settings(DeviceOptions(device="cpu", batch_size=50))) as run:
        found = measure_speed(DefenseRun(run, DefenseChain()), [], steps=steps)
    assert (found.images, found.peak) == (28, expected)


def test_decoding_is_hidden_where_the_passes_leave_something_that_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(file: object) -> np.ndarray:
        return np.zeros((1, 1, 1), dtype=np.uint8)

    images = ImageStore(ImageFiles([None] * 100, (1, 1, 1), decode), torch.arange(100), "none")  # type: ignore[list-item]
    monkeypatch.setattr("freqrobust.harness.speed.seconds_to_decode", lambda store: 0.5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for device, cores, left in ((cpu, 4, 100.0), (cpu, 8, 85.0), (cuda, 4, 70.0)):
        monkeypatch.setattr("freqrobust.harness.speed.cores", lambda count=cores: count)
        assert speed_module.decoding(images, 10, device, (200, 30)) == (0.5, [left])
    assert speed_module.decoding(images, 10, cuda, (200, 1000), (300, 100)) == (0.5, [0.0, 50.0])
    assert speed_module.decoding(images, 50, cuda, (200, 10)) == (0.5, [40.0])  # two batches stay decoded
    assert speed_module.decoding(torch.zeros(2, 1, 1, 1), 10, cpu, (200, 10)) == (0.0, [0.0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux has it")
def test_the_memory_of_the_process_that_started_this_one_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of a process that takes much memory has that much as its peak, as ``getrusage`` says."""
    import resource

    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=10**12))
    found = speed_module.taken(torch.device("cpu"))
    assert found is not None
    assert 0 < found < 2**40
