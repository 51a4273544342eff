"""One wave for all samples: found where it is known, judged on samples that it was not chosen on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.core.errors import PluginError, SpecError
from freqrobust.data.dataset import ImageData
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks

SIDE = 12


def wave(u: int, v: int, phase: float = 0.0, side: int = SIDE) -> np.ndarray:
    """``cos(2 pi (u y + v x) / side + phase)``, pixel by pixel."""
    return np.array([[np.cos(2 * np.pi * (u * y + v * x) / side + phase) for x in range(side)] for y in range(side)])


class Correlator(nn.Module):
    """Two classes: wrong as soon as the images correlate with one wave, of any phase, in a way of combining channels."""

    def __init__(self, u: int, v: int, mix: tuple[float, ...], threshold: float) -> None:
        super().__init__()
        parts = [np.multiply.outer(mix, wave(u, v, phase)) for phase in (0, np.pi / 2)]
        self.register_buffer("waves", torch.tensor(np.stack(parts), dtype=torch.float32).flatten(1))
        self.threshold = threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = (x.flatten(1) @ self.waves.T).square().sum(dim=1).sqrt()
        return torch.stack([torch.full_like(found, self.threshold), found], dim=1)


def smooth_images(n: int, channels: int = 3) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = 0.5 + 0.02 * torch.rand(n, channels, SIDE, SIDE, generator=generator)
    return ImageData(images, torch.zeros(n, dtype=torch.int64), 2, "smooth")


def cell(model: nn.Module, data: ImageData, spec: str, **more: object):
    found = evaluate(model, data, attacks=[spec], device="cpu", **more).cells[1]
    assert found.status == "ok", found.error
    return found


@pytest.mark.parametrize(("u", "v"), [(0, 3), (2, -1), (-6, -6), (5, 2), (-6, 0)])
def test_the_one_direction_that_matters_is_found(u, v) -> None:
    found = cell(Correlator(u, v, (1, 1, 1), 6.0), smooth_images(30), "fourier:eps=0.05,samples=8")
    assert found.correct == 0
    assert len(found.notes) == 2
    for note in found.notes:
        assert f": u={u}, v={v} " in note or f": u={-u}, v={-v} " in note
        assert "adversarial for 8 of the 8 samples it was chosen on, added to the 15 of half " in note


def test_the_signs_of_the_channels_are_found() -> None:
    """Red and blue against green: grey waves correlate a third as much, and do not do."""
    model = Correlator(2, 1, (1, -1, 1), 8.0)
    data = smooth_images(24)
    assert cell(model, data, "fourier:eps=0.05").correct == 0
    assert all("channels +-+" in note for note in cell(model, data, "fourier:eps=0.05").notes)
    with torch.no_grad():  # it was not the grey wave
        grey = data.images + 0.05 * torch.tensor(wave(2, 1), dtype=torch.float32)
        assert (model(grey).argmax(dim=1) == 0).all()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.8)])
def test_examples_are_image_plus_one_wave(norm, eps) -> None:
    """What the harness counts equals a NumPy loop over the images with the waves that the report names."""
    data, model = smooth_images(40), Correlator(2, -1, (1, 0.5, 1), 7.0)
    data = ImageData((data.images * 2.1 - 0.1).clamp(0, 1), data.labels, 2, "bright")  # the box binds
    attack = attacks.parse(f"fourier:norm={norm},eps={eps},samples=6")[0].plugin
    context = AttackContext(data.ids)
    samples = Whole(model, data)
    prepared = attack.prepare(samples, context)
    found = attack.perturb(model, data.images, data.labels, AttackContext(data.ids, prepared=prepared))
    for i, image in enumerate(data.images.numpy()):
        words = context.notes[1 - prepared.half[i]].partition(": ")[2].replace("=", " ").replace(",", " ").split()
        u, v = int(words[1]), int(words[3])
        phase = np.deg2rad(float(words[words.index("phase") + 1]))
        signs = [1 if sign == "+" else -1 for sign in words[words.index("channels") + 1].rstrip(";")]
        grey = wave(u, v, phase)
        size = np.abs(grey).max() if norm == "linf" else np.sqrt((grey**2).sum() * 3)
        expected = np.clip(image + np.multiply.outer(signs, eps * grey / size), 0, 1)
        np.testing.assert_allclose(found[i].numpy(), expected, atol=1e-6)
    assert found.max() == 1


class Whole:
    """All samples, for ``prepare``; keeps which it was shown."""

    def __init__(self, model: nn.Module, data: ImageData, order: torch.Tensor | None = None, size: int = 50) -> None:
        self.order = torch.arange(len(data)) if order is None else order
        self.ids, self.shape = data.ids[self.order], data.shape
        self.model, self.data, self.size = model, data, size
        self.calls: list[set[int]] = []

    def gather(self, rows, work):
        self.calls.append(set(self.ids[rows].tolist()))
        at = self.order[rows]
        parts = torch.arange(len(rows)).split(self.size)
        return torch.cat([work(self.model, self.data.images[at[w]], self.data.labels[at[w]], w) for w in parts])


def test_a_sample_has_no_part_in_choosing_its_own_wave() -> None:
    data, model = smooth_images(41), Correlator(1, 2, (1, 1, 1), 6.0)
    samples = Whole(model, data)
    attack = attacks.parse("fourier:samples=100")[0].plugin
    prepared = attack.prepare(samples, AttackContext(data.ids, 3))
    halves = [{i for i, h in prepared.half.items() if h == k} for k in (0, 1)]
    assert halves[0] | halves[1] == set(range(41))
    assert {len(half) for half in halves} == {20, 21}
    assert [halves[0], halves[0], halves[1], halves[1]] == samples.calls  # screening and final, half by half
    # spoil one half: a wave that is chosen on the other does not notice
    spoiled = data.images.clone()
    mine = sorted(halves[0])
    spoiled[mine] = torch.rand(len(mine), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    again = attack.prepare(Whole(model, ImageData(spoiled, data.labels, 2, "x")), AttackContext(data.ids, 3))
    assert torch.equal(again.patterns[1], prepared.patterns[1])  # chosen on the second half, shown to the first


@pytest.mark.slow
def test_nothing_depends_on_the_order_or_on_the_size_of_the_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 4)).eval()
    data = ImageData(torch.rand(60, 3, SIDE, SIDE), torch.arange(60) % 4, 4, "random")
    attack = attacks.parse("fourier:eps=0.1,samples=10")[0].plugin
    first = attack.prepare(Whole(model, data), AttackContext(data.ids))
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    for order, size in [(shuffled, 50), (None, 7), (shuffled, 1000)]:
        again = attack.prepare(Whole(model, data, order, size), AttackContext(data.ids))
        assert again.half == first.half
        assert torch.equal(again.patterns, first.patterns)
    assert attack.prepare(Whole(model, data), AttackContext(data.ids, 1)).half != first.half
    with torch.no_grad():
        data = ImageData(data.images, model(data.images).argmax(dim=1), 4, "right")
    cells = [cell(model, data, "fourier:eps=0.1,samples=10", batch_size=size) for size in (1, 7, 64)]
    assert cells[0].outcomes == cells[1].outcomes == cells[2].outcomes
    assert cells[0].notes == cells[1].notes == cells[2].notes
    assert cells[0].forwards == cells[2].forwards


def test_passes_are_counted_and_what_is_said_about_them_is_true() -> None:
    data, samples = smooth_images(200), 16
    found = cell(Correlator(1, 2, (1, 1, 1), 6.0), data, f"fourier:samples={samples}")
    directions = (SIDE * SIDE + 4) // 2
    assert found.forwards == 200 + directions * samples + 256 * samples
    assert found.backwards == 0
    fewer = cell(Correlator(1, 2, (1, 1, 1), 6.0), data, f"fourier:samples={samples},directions=10")
    assert fewer.forwards == 200 + 10 * samples + 256 * samples


def test_radius_limits_the_frequencies() -> None:
    model, data = Correlator(5, 2, (1, 1, 1), 6.0), smooth_images(20)
    assert cell(model, data, "fourier:eps=0.05").correct == 0
    assert cell(model, data, "fourier:eps=0.05,radius=5").correct == 20


def test_budgets_are_not_handed_over_and_runs_resume(tmp_path) -> None:
    model, data = Correlator(2, -1, (1, 1, 1), 6.0), smooth_images(30)
    sweep = ["fourier:eps=[0.01,0.05,0.1]"]
    first = evaluate(model, data, attacks=sweep, device="cpu", run_dir=tmp_path / "run")
    assert [c.inherited for c in first.cells[1:]] == [0, 0, 0]
    assert [c.correct for c in first.cells[1:]] == [30, 0, 0]
    again = evaluate(model, data, attacks=sweep, device="cpu", run_dir=tmp_path / "run")
    assert [c.notes for c in again.cells] == [c.notes for c in first.cells]
    assert again.cells[2].seconds == first.cells[2].seconds  # from the journal


def test_transferred_waves_are_those_of_the_undefended_model() -> None:
    model, data = Correlator(2, -1, (1, 1, 1), 6.0), smooth_images(30)
    report = evaluate(
        model, data, attacks=["fourier:eps=0.05"], defenses=["lowpass:radius=1"], oblivious=True, device="cpu"
    )
    shown = {c.knowledge: c for c in report.cells if c.attack == "fourier" and c.defense == "lowpass"}
    assert all("u=2, v=-1" in note or "u=-2, v=1" in note for note in shown["oblivious"].notes)
    assert shown["oblivious"].correct == 30


def test_what_cannot_work_is_said_in_one_line() -> None:
    attack = attacks.parse("fourier")[0].plugin
    one = smooth_images(1)
    context = AttackContext(one.ids)
    alone = replace(context, prepared=attack.prepare(Whole(nn.Identity(), one), context))
    assert torch.equal(attack.perturb(nn.Identity(), one.images, one.labels, alone), one.images)
    assert context.notes == ["a single sample is not changed: there is no other half to choose its wave on"]
    with pytest.raises(PluginError, match=r"prepare\(\) has to see the samples"):
        attack.perturb(nn.Identity(), one.images, one.labels, AttackContext(one.ids))
    with pytest.raises(SpecError, match="'norm' should be 'linf' or 'l2'"):
        attacks.parse("fourier:norm=l1")
