"""Examples of 8 bits: on the grid, within the budget, adversarial as PNG files; and how many of a cell's survive rounding."""

from __future__ import annotations

import io
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from freqrobust import Attack, InputDefense, evaluate
from freqrobust.numerics import noise
from freqrobust.numerics.eight_bit import nearest, nearest_within
from freqrobust.numerics.norms import norms, project
from freqrobust.numerics.threat import Threat, allowance
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks

NORMS = ["linf", "l2", "l1"]
EPS = {"linf": 3.4 / 255, "l2": 0.11, "l1": 0.9}


def images(n: int = 40, on_grid: bool = True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    if on_grid:
        return torch.randint(0, 256, (n, 3, 4, 4), generator=generator) / 255
    return torch.rand(n, 3, 4, 4, generator=generator)


def points(origin: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    noise = torch.randn(origin.shape, generator=torch.Generator().manual_seed(4))
    return project(origin + 2 * eps * noise / (1 if norm == "linf" else 4), origin, norm, eps)


def is_level(values: torch.Tensor) -> torch.Tensor:
    return (255 * values - (255 * values).round()).abs() < 1e-3


@pytest.mark.parametrize("on_grid", [True, False])
def test_linf_against_a_search_over_all_levels(on_grid) -> None:
    """Budgets below half a level leave some pixels off the grid without a level; these keep their value."""
    levels = np.arange(256) / 255
    for eps in (0.3 / 255, 1 / 255, 3.4 / 255, 0.2):
        origin = images(6, on_grid)
        x = points(origin, "linf", eps)
        found = nearest_within(x, origin, "linf", eps).double().numpy().ravel()
        for value, start, result in zip(
            x.double().numpy().ravel(), origin.double().numpy().ravel(), found, strict=True
        ):
            allowed = levels[np.abs(levels - start) <= eps + 1e-7]
            expected = allowed[np.abs(allowed - value).argmin()] if len(allowed) else start
            distance = abs(result - value)
            assert abs(distance - abs(expected - value)) < 1e-6
            assert abs(result - start) <= eps + 1e-6


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("on_grid", [True, False])
def test_rounding_keeps_the_budget_and_moves_no_more_pixels_than_needed(norm, on_grid) -> None:
    origin, eps = images(on_grid=on_grid), EPS[norm]
    x = points(origin, norm, eps)
    found, plain = nearest_within(x, origin, norm, eps), nearest(x)
    outside = norms(plain - origin, norm) > allowance(eps)
    assert outside.any()
    if on_grid:
        assert (~outside).any()
        assert bool(is_level(found).all())
    assert (norms(found - origin, norm) <= allowance(eps)).all()
    torch.testing.assert_close(found[~outside], plain[~outside], atol=1e-6, rtol=0)
    for i in outside.nonzero()[:, 0].tolist():
        changed = ((found[i] - plain[i]).abs() > 1e-4).flatten()
        assert changed.any()
        assert ((found[i] - origin[i]).abs() <= (plain[i] - origin[i]).abs() + 1e-6).all()
        # with the last one of them rounded to the nearest level again, the budget is exceeded
        moves = (plain[i] - x[i]).abs().flatten()
        last = torch.where(changed, moves, 2).argmin()
        back = found[i].flatten().clone()
        back[last] = plain[i].flatten()[last]
        assert norms((back - origin[i].flatten())[None], norm) > eps


def test_clean_images_of_8_bits_are_not_changed() -> None:
    raw = torch.arange(256).view(1, 1, 16, 16)
    for origin in (raw / 255, raw * (1 / 255), (raw.double() / 255).float()):
        for norm in NORMS:
            for eps in (0.0, 1e-3):
                assert torch.equal(nearest_within(origin, origin, norm, eps), origin)


def as_png(image: torch.Tensor) -> torch.Tensor:
    """Written to a PNG file and read again."""
    file = io.BytesIO()
    Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(file, "PNG")
    file.seek(0)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255


class Small(nn.Module):
    """A random network of two layers."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(48, 24, generator=generator))
        self.second = nn.Parameter(torch.randn(24, 5, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh((x.flatten(1) - 0.5) @ self.first) @ self.second


SPECS = ["fgsm:", "pgd:steps=8,", "apgd:steps=8,", "pgd:steps=4,restarts=3,", "lowfreq-pgd:radius=2,steps=8,"]


@pytest.mark.parametrize("goal", ["decide", "maximize"])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("norm", NORMS)
def test_examples_are_adversarial_as_png_files(spec, norm, goal) -> None:
    if norm == "l1" and spec.startswith("lowfreq"):
        pytest.skip("lowfreq-pgd has no L1 budget")
    model, origin = Small(), images()
    labels = model(origin).argmax(dim=1)
    plugin = attacks.parse(f"{spec}norm={norm},eps={EPS[norm]},eight_bit=true")[0].plugin
    found = plugin.perturb(model, origin, labels, AttackContext(torch.arange(len(origin)), 0, goal)).detach()
    assert bool(is_level(found).all())
    assert (norms(found - origin, norm) <= allowance(EPS[norm])).all()
    adversarial = model(found).argmax(dim=1) != labels
    assert adversarial.any()
    again = torch.stack([as_png(image) for image in found])
    torch.testing.assert_close(again, found, atol=1e-7, rtol=0)
    assert torch.equal(model(again).argmax(dim=1) != labels, adversarial)


def test_without_it_examples_are_not_on_the_grid() -> None:
    model, origin = Small(), images()
    plugin = attacks.parse("pgd:steps=8,eps=3.4/255")[0].plugin
    found = plugin.perturb(model, origin, model(origin).argmax(dim=1), AttackContext(torch.arange(len(origin)), 0))
    assert not bool(is_level(found).all())


class Linear(nn.Module):
    """Two classes; the difference of the logits is linear."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x.flatten(1) - 0.5) @ self.weight
        return torch.stack([-score, score], dim=1)


def linear(n: int = 80) -> tuple[Linear, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of 8 bits between 0.3 and 0.7, their labels, and how far each is from the boundary in the Linf norm."""
    model = Linear()
    origin = torch.randint(77, 178, (n, 3, 4, 4), generator=torch.Generator().manual_seed(1)) / 255
    score = ((origin.flatten(1) - 0.5) @ model.weight).detach()
    return model, origin, (score > 0).long(), score.abs() / model.weight.detach().abs().sum()


@pytest.mark.parametrize("eps", [0.9, 1.0, 4.0, 4.7])
@pytest.mark.parametrize("attack", ["fgsm", "pgd:steps=5"])
def test_a_linear_model_in_closed_form(eps, attack) -> None:
    """Within ``eps`` the perturbation of 8 bits that changes a linear function most has ``floor(eps)`` levels."""
    model, origin, labels, distance = linear()
    join = "," if ":" in attack else ":"
    spec = f"{attack}{join}eps={eps}/255,eight_bit=true"
    report = evaluate(model, (origin, labels), attacks=[spec], device="cpu", diagnose=None)
    assert report.cells[1].correct == int((distance > int(eps) / 255).sum())
    if report.cells[1].perturbation.successes:
        assert report.cells[1].perturbation.survive_rounding == report.cells[1].perturbation.successes
        clean_passes = 1 if attack == "fgsm" else 0
        assert report.cells[1].forwards <= (1 + clean_passes + 5) * len(labels)


@pytest.mark.parametrize("eps", [0.4, 1.6, 4.0, 4.2])
def test_how_many_survive_in_closed_form(eps) -> None:
    """FGSM moves every pixel by ``eps``: rounded to the nearest level, by less than ``eps`` or beyond the budget."""
    model, origin, labels, distance = linear()
    report = evaluate(model, (origin, labels), attacks=[f"fgsm:eps={eps}/255"], device="cpu", diagnose=None)
    found = report.cells[1]
    assert found.perturbation.successes == int((distance < eps / 255).sum()) > 0
    survive = 0 if round(eps) > eps else int((distance < round(eps) / 255).sum())
    assert found.perturbation.survive_rounding == survive
    # of the rounded example where it is within the budget and not the clean image, and otherwise, or if it is not
    # adversarial, of the example
    predictions = len(labels) if round(eps) > eps or round(eps) == 0 else 2 * len(labels) - survive
    assert found.forwards == len(labels) + (len(labels) if eps == 4.0 else predictions)
    largest = max(eps if survive < found.perturbation.successes else 0, round(eps) if survive else 0)
    assert found.perturbation.linf_max == pytest.approx(largest / 255, rel=1e-4)


class Rough(nn.Module):
    """One class more only for images of 8 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rough = (255 * x - (255 * x).round()).abs().flatten(1).amax(dim=1)
        return torch.stack([rough, torch.full_like(rough, 1e-3)], dim=1) + 0 * x.flatten(1)[:, :1]


class Nudge(Attack):
    """Moves all pixels by 0.3 levels."""

    needs_gradient: ClassVar[bool] = False

    def threat(self) -> Threat:
        return Threat("linf", 4 / 255)

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        return images + 0.3 / 255


def test_a_sample_whose_rounded_example_alone_is_adversarial_is_not_robust() -> None:
    """The image of 8 bits is within the budget: it is an example like any other."""
    origin = torch.full((6, 1, 2, 2), 0.45) + 0.4 / 255
    report = evaluate(
        Rough(), (origin, torch.zeros(6, dtype=torch.int64)), attacks=[Nudge()], device="cpu", diagnose=None
    )
    clean, cell = report.cells
    assert (clean.correct, cell.correct) == (6, 0)
    assert (cell.perturbation.successes, cell.perturbation.survive_rounding) == (6, 6)


def by_hand(model: nn.Module, spec: str, origin: torch.Tensor, labels: torch.Tensor) -> list[bool | None]:
    """Sample by sample: whether the example is adversarial in 8 bits; None without a successful example."""
    plugin = attacks.parse(spec)[0].plugin
    threat = plugin.threat()
    result: list[bool | None] = []
    for i in range(len(labels)):
        x, y = origin[i : i + 1], labels[i : i + 1]
        if int(model(x).argmax()) != int(y):
            result.append(None)
            continue
        found = plugin.perturb(model, x.clone(), y.clone(), AttackContext(torch.tensor([i]), 0)).detach()
        rounded = torch.from_numpy(np.rint(found.numpy() * 255) / 255).float()
        inside = float(norms(rounded - x, threat.norm)) <= allowance(threat.eps)
        survives = inside and int(model(rounded).argmax()) != int(y)
        result.append(survives if survives or int(model(found).argmax()) != int(y) else None)
    return result


@pytest.mark.parametrize("spec", ["pgd:steps=5,eps=6/255", "pgd:steps=5,norm=l2,eps=0.1", "fgsm:eps=6.3/255"])
def test_the_count_of_a_cell_against_a_loop_over_samples(spec, tmp_path) -> None:
    model, origin = Small(), images(60)
    labels = model(origin).argmax(dim=1)
    labels[:7] = (labels[:7] + 1) % 5  # misclassified without an attack
    expected = by_hand(model, spec, origin, labels)
    for _ in range(2):  # measured, then from the journal
        report = evaluate(model, (origin, labels), attacks=[spec], device="cpu", diagnose=None, run_dir=tmp_path)
        found = report.cells[1].perturbation
        assert found.successes == sum(value is not None for value in expected)
        assert found.survive_rounding == sum(value is True for value in expected)
        assert found.survive_rounding > 0
        if "l2" in spec:  # where the search stops right behind the boundary, rounding may undo it
            assert found.survive_rounding < found.successes


def test_a_sweep_keeps_what_was_found_for_inherited_samples() -> None:
    model, origin = Small(), images(60)
    labels = model(origin).argmax(dim=1)
    sweep = evaluate(model, (origin, labels), attacks=["pgd:steps=5,eps=[1/255,2/255]"], device="cpu", diagnose=None)
    small, large = sweep.cells[1:]
    assert large.inherited == small.perturbation.successes > 0
    new = large.perturbation.survive_rounding - small.perturbation.survive_rounding
    assert 0 <= new <= large.perturbation.successes - large.inherited
    # an oblivious cell of the same model without a sweep predicts the same way
    alone = evaluate(model, (origin, labels), attacks=["pgd:steps=5,eps=1/255"], device="cpu", diagnose=None)
    assert alone.cells[1].perturbation.survive_rounding == small.perturbation.survive_rounding


class Halved(InputDefense):
    """Half the contrast."""

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        return 0.5 * images + 0.25


class Jitter(InputDefense):
    """Adds noise."""

    stochastic: ClassVar[bool] = True

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        return images + 0.01 * noise.scoped_normal(images)


def test_oblivious_cells_count_as_well_and_stochastic_defenses_do_not() -> None:
    model, origin = Small(), images(20)
    labels = model(0.5 * origin + 0.25).argmax(dim=1)
    attack, defenses = "pgd:steps=3,eps=9/255", [Halved(), Jitter()]
    report = evaluate(
        model, (origin, labels), attacks=[attack], defenses=defenses, device="cpu", diagnose=None, undefended=True
    )
    found = {(c.defense, c.knowledge): c.perturbation for c in report.cells if c.attack == "pgd"}
    assert found["Halved", "oblivious"].survive_rounding == found["Halved", "oblivious"].successes > 0
    assert found["Jitter", "adaptive"].successes > 0
    assert found["Jitter", "adaptive"].survive_rounding is None
