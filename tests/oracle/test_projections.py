"""Projections, norms and random starts: inside the ball, inside the box, and as uniform as they claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from freqrobust.attacks.gradient.regions import random_start
from freqrobust.numerics import noise
from freqrobust.numerics.norms import norms, project, steepest
from freqrobust.numerics.threat import TOLERANCE

NORMS = ["linf", "l2"]


def length(delta: torch.Tensor, norm: str) -> np.ndarray:
    flat = delta.flatten(1).double().numpy()
    return np.abs(flat).max(axis=1) if norm == "linf" else np.sqrt((flat**2).sum(axis=1))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    eps=st.one_of(st.just(0.0), st.floats(1e-4, 8)),
    size=st.sampled_from([(1, 1, 1), (1, 8, 8), (3, 32, 32)]),
    spread=st.floats(0, 50),
    norm=st.sampled_from(NORMS),
)
def test_projection_stays_in_ball_and_box_and_repeats(seed, eps, size, spread, norm) -> None:
    generator = torch.Generator().manual_seed(seed)
    origin = torch.rand(4, *size, generator=generator)
    images = origin + spread * torch.randn(4, *size, generator=generator)
    found = project(images, origin, norm, eps)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (length(found - origin, norm) <= eps + max(TOLERANCE, 1e-6 * eps)).all()
    torch.testing.assert_close(project(found, origin, norm, eps), found, atol=2e-7, rtol=0)
    if eps == 0:
        assert torch.equal(found, origin)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_inside_already_stays(norm) -> None:
    origin = torch.full((5, 3, 4, 4), 0.5)
    inside = origin + 0.01 * torch.rand(origin.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(project(inside, origin, norm, 0.5), inside, atol=1e-7, rtol=0)


def test_linf_projection_is_the_nearest_point() -> None:
    """Per pixel, against a loop over a fine grid of the allowed interval."""
    rng = np.random.default_rng(0)
    origin, images, eps = rng.random(30), rng.normal(0.5, 1, 30), 0.1
    found = project(torch.from_numpy(images).view(1, 1, 5, 6), torch.from_numpy(origin).view(1, 1, 5, 6), "linf", eps)
    for value, x, o in zip(found.flatten().tolist(), images, origin, strict=True):
        grid = np.linspace(max(0, o - eps), min(1, o + eps), 20_001)
        assert abs(value - grid[np.abs(grid - x).argmin()]) < 2e-5


def test_l2_projection_scales_to_the_sphere_where_the_box_is_far() -> None:
    origin = torch.full((6, 3, 8, 8), 0.5)
    images = origin + torch.randn(origin.shape, generator=torch.Generator().manual_seed(0))
    found = project(images, origin, "l2", 0.3) - origin
    np.testing.assert_allclose(length(found, "l2"), 0.3, rtol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), (images - origin).flatten(1))
    np.testing.assert_allclose(cosine, 1, atol=1e-5)


@pytest.mark.parametrize("eps", [1e-4, 0.5, 3.0, 20.0])
def test_l2_budget_holds_on_large_images(eps) -> None:
    """150,528 pixels a sample: the rounding of a float32 norm may not break the budget."""
    generator = torch.Generator().manual_seed(1)
    origin = 0.2 + 0.6 * torch.rand(2, 3, 224, 224, generator=generator)
    found = project(origin + torch.randn(origin.shape, generator=generator), origin, "l2", eps)
    assert (length(found - origin, "l2") <= eps + max(TOLERANCE, 1e-6 * eps)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_norms_equal_numpy(norm) -> None:
    delta = torch.randn(7, 3, 9, 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(norms(delta, norm), length(delta, norm), rtol=1e-6)
    assert norms(delta[:0], norm).shape == (0,)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-25])
def test_steepest_maximises_the_linear_function(norm, scale) -> None:
    """Of all directions of length 1 none gains more; tiny gradients must not underflow."""
    generator = torch.Generator().manual_seed(0)
    gradient = scale * torch.randn(3, 2, 4, 4, generator=generator)
    direction = steepest(gradient, norm)
    np.testing.assert_allclose(length(direction, norm), 1, rtol=1e-5)
    gain = (gradient.double() * direction.double()).flatten(1).sum(dim=1)
    others = torch.randn(200, 3, 2, 4, 4, generator=generator)
    for other in others:
        other = other.sign() if norm == "linf" else other / torch.from_numpy(length(other, norm)).view(-1, 1, 1, 1)
        assert ((gradient.double() * other).flatten(1).sum(dim=1) <= gain + 1e-6 * scale).all()


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_of_no_gradient_is_no_direction(norm) -> None:
    zero = torch.zeros(2, 1, 3, 3)
    assert torch.equal(steepest(zero, norm), zero)


def starts(norm: str, eps: float, n: int, shape: tuple[int, ...], level: float) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(n)
    origin = torch.full((n, *shape), level)
    if norm == "linf":
        return origin, random_start(origin, "linf", eps, noise.uniform(ids, shape, seed=0, stream="s"), None)
    unit = noise.uniform(ids, (1,), seed=0, stream="r")[:, 0]
    return origin, random_start(origin, "l2", eps, unit, noise.normal(ids, shape, seed=0, stream="s"))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("level", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
def test_random_start_is_within_budget_and_box(norm, level, eps) -> None:
    origin, found = starts(norm, eps, 200, (3, 8, 8), level)
    assert (length(found - origin, norm) <= eps + TOLERANCE).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_linf_start_is_uniform_in_the_ball() -> None:
    origin, found = starts("linf", 0.1, 500, (3, 8, 8), 0.5)
    position = ((found - origin).numpy().ravel() / 0.1 + 1) / 2
    assert stats.kstest(position, "uniform").pvalue > 1e-4


def test_l2_start_is_uniform_in_the_ball() -> None:
    """In ``d`` dimensions ``(radius / eps) ** d`` is uniform, and the directions have no preference."""
    shape, eps = (1, 2, 3), 0.4
    origin, found = starts("l2", eps, 20_000, shape, 0.5)
    delta = found - origin
    radius = length(delta, "l2") / eps
    assert stats.kstest(radius**6, "uniform").pvalue > 1e-4
    unit = delta.flatten(1).double().numpy() / (eps * radius[:, None])
    assert (np.abs(unit.mean(axis=0)) < 4 * np.sqrt(1 / 6 / len(unit))).all()
    second = unit.T @ unit / len(unit)
    np.testing.assert_allclose(second, np.eye(6) / 6, atol=0.006)
    # a coordinate u of a uniform direction in 6 dimensions: (u + 1) / 2 is Beta(5/2, 5/2)
    assert stats.kstest((unit[:, 0] + 1) / 2, stats.beta(2.5, 2.5).cdf).pvalue > 1e-4
