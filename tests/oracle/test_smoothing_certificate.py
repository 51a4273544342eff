"""Randomized smoothing on a half-space, whose smoothed probabilities and radii are known in closed form."""

from __future__ import annotations

import math
from statistics import NormalDist
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from freqrobust.certificates.smoothing import Smoothing
from freqrobust.core.errors import SpecError
from freqrobust.defenses.gaussian_noise import GaussianNoise
from freqrobust.defenses.randomized_smoothing import RandomizedSmoothing
from freqrobust.numerics.statistics import clopper_pearson_lower
from freqrobust.plugins.certificate import CertificateContext, Certified
from freqrobust.plugins.context import DefenseContext

SIGMA = 0.5
PHI = NormalDist()


class HalfSpace(nn.Module):
    """Class 0 where the first pixel is above 1/2: an image at ``1/2 + d`` is at the L2 distance ``d`` of the other class."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        margin = x[:, 0, 0, 0] - 0.5
        return torch.stack([margin, -margin, torch.full_like(margin, -9.0)], dim=1)


def images_at(distances: torch.Tensor) -> torch.Tensor:
    images = torch.full((len(distances), 1, 2, 2), 0.5)
    images[:, 0, 0, 0] += distances
    return images


def certified(
    distances: torch.Tensor, ids: torch.Tensor | None = None, seed: int = 0, **params: object
) -> tuple[Certified, HalfSpace]:
    """The certificate on images of class 0 at these distances from the other class."""
    base, defense = HalfSpace(), RandomizedSmoothing(sigma=SIGMA)
    smoothing = Smoothing(**{"eps": 0.1, **params})
    ids = torch.arange(len(distances)) if ids is None else ids
    labels = torch.zeros(len(distances), dtype=torch.int64)
    context = CertificateContext(ids, seed, (defense,))
    return smoothing.certify(defense.apply(base, DefenseContext()), images_at(distances), labels, context), base


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (10, 10), (99, 100), (650, 1000), (100_000, 100_000), (3, 7)])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
def test_the_bound_is_that_of_scipy(k: int, n: int, alpha: float) -> None:
    peer = binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
    assert clopper_pearson_lower(k, n, alpha) == pytest.approx(peer, rel=1e-9, abs=1e-12)


def test_the_bound_covers() -> None:
    """``P(bound > p)`` is at most alpha, exactly, from the binomial probabilities; and not far below for large n."""
    n, p, alpha = 200, 0.9, 0.05
    chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    above = sum(chance for k, chance in enumerate(chances) if clopper_pearson_lower(k, n, alpha) > p)
    assert alpha / 2 < above <= alpha


@pytest.mark.parametrize(("k", "n", "alpha"), [(-1, 5, 0.1), (6, 5, 0.1), (0, 0, 0.1), (1, 5, 0.0), (1, 5, 1.0)])
def test_the_bound_refuses_what_has_no_meaning(k: int, n: int, alpha: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        clopper_pearson_lower(k, n, alpha)


def test_radii_approach_the_distance_from_below() -> None:
    """``p = Phi(d / sigma)`` makes the radius ``sigma Phi^-1(p) = d``; the bound of 4000 draws is a little less."""
    distances = torch.linspace(0.1, 1.0, 40)
    (result, base) = certified(distances, n=4000, alpha=0.001)
    radius = result.radius
    assert radius is not None
    assert bool((radius < distances).all())
    # three standard errors below p on the scale of the radius, and as many for the draws themselves
    p = torch.tensor([PHI.cdf(float(d) / SIGMA) for d in distances])
    density = torch.tensor([PHI.pdf(float(d) / SIGMA) for d in distances])
    slack = 6.5 * SIGMA * torch.sqrt(p * (1 - p) / 4000) / density
    assert bool((radius > distances - slack).all())
    assert torch.equal(result.certified, radius >= 0.1)
    assert base.images == result.forwards == 40 * 4100


def test_the_radius_is_the_formula_of_the_votes() -> None:
    """All draws of a sample far inside its class agree, so that ``k = n``: ``sigma Phi^-1(alpha^(1/n))``."""
    result, _ = certified(torch.tensor([50.0]), n=300, n0=10, alpha=0.01)
    assert result.radius is not None
    largest = SIGMA * PHI.inv_cdf(0.01 ** (1 / 300))
    assert float(result.radius[0]) == pytest.approx(largest, rel=1e-6)
    assert Smoothing(eps=0.1, n=300, n0=10, alpha=0.01).largest_radius(SIGMA) == pytest.approx(largest, rel=1e-12)


def test_close_to_the_boundary_it_abstains() -> None:
    """At distance 0 each vote is a fair coin: the bound is above 1/2 with probability alpha only."""
    result, _ = certified(torch.full((40,), 1e-4), n=100, n0=10, alpha=0.001)
    assert result.abstained is not None
    assert result.radius is not None
    assert not result.certified.any()
    assert bool((result.radius == 0).all())
    assert 5 < int(result.abstained.sum()) < 35  # where the selection was the label; the others are another class


def test_samples_of_another_class_cost_the_selection_only() -> None:
    result, base = certified(torch.tensor([-3.0, -3.0, 3.0]), n=200, n0=20, alpha=0.01)
    assert result.certified.tolist() == [False, False, True]
    assert result.abstained is not None
    assert result.abstained.tolist() == [False, False, False]
    assert base.images == result.forwards == 3 * 20 + 200


def test_a_sample_has_the_same_radius_in_every_batch_and_order() -> None:
    distances = torch.linspace(0.05, 0.6, 7)
    whole, _ = certified(distances, n=150, n0=30)
    assert whole.radius is not None
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    shuffled, _ = certified(distances[order], order, n=150, n0=30)
    assert shuffled.radius is not None
    assert torch.equal(shuffled.radius, whole.radius[order])
    for i in range(7):
        alone, _ = certified(distances[i : i + 1], torch.tensor([i]), n=150, n0=30)
        assert alone.radius is not None
        assert torch.equal(alone.radius, whole.radius[i : i + 1])
    other, _ = certified(distances, seed=1, n=150, n0=30)
    assert not torch.equal(other.radius, whole.radius)


def test_selection_and_estimation_use_other_noise() -> None:
    """The bound is valid only where the votes of the estimate are independent of the choice of the class."""
    seen: list[torch.Tensor] = []

    class Spy(HalfSpace):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return super().forward(x)

    defense = RandomizedSmoothing(sigma=SIGMA)
    context = CertificateContext(torch.tensor([0]), 0, (defense,))
    images, labels = images_at(torch.tensor([2.0])), torch.tensor([0])
    Smoothing(eps=0.1, n=40, n0=20, alpha=0.01).certify(defense.apply(Spy(), DefenseContext()), images, labels, context)
    draws = torch.cat(seen).flatten(1)
    assert draws.shape == (60, 4)
    assert len(torch.unique(draws, dim=0)) == 60
    noise = (draws - images.flatten(1)) / SIGMA
    assert abs(float(noise.mean())) < 0.2
    assert float(noise.std()) == pytest.approx(1, abs=0.15)


def test_nan_is_no_vote() -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)
            logits[x[:, 0, 0, 0] > 0.5] = float("nan")
            return logits

    context = CertificateContext(torch.tensor([0]), 0, (RandomizedSmoothing(sigma=SIGMA),))
    smoothing = Smoothing(eps=0.1, n=200)
    result = smoothing.certify(
        SimpleNamespace(model=Half()), images_at(torch.tensor([0.0])), torch.tensor([0]), context
    )
    assert not result.certified.any()
    assert result.abstained is not None
    assert result.abstained.all()


def test_any_defense_with_gaussian_noise_can_be_certified() -> None:
    Smoothing(eps=0.1).check_defenses([GaussianNoise(sigma=0.25)])
    with pytest.raises(SpecError, match="Gaussian noise in the outermost defense"):
        Smoothing(eps=0.1).check_defenses([GaussianNoise(sigma=0)])
    with pytest.raises(SpecError, match="deterministic model behind the noise, but GaussianNoise is not"):
        Smoothing(eps=0.1).check_defenses([GaussianNoise(sigma=0.1), RandomizedSmoothing(sigma=0.25)])
    with pytest.raises(SpecError, match=r"at most the radius 0\.1232 for sigma=0\.05, but eps is 0\.25"):
        Smoothing(eps=0.25).check_defenses([RandomizedSmoothing(sigma=0.05)])


def test_the_statement_names_a_probability_of_error_above_0() -> None:
    assert "wrong with probability at most 1e-09 for each sample" in Smoothing(eps=0.1, alpha=1e-9).statement()
