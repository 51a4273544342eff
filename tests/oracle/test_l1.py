"""L1: the projection onto ball and box against slower ways to it, and attacks on models whose optimum is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from torch import nn

from freqrobust.attacks.gradient.ascent import loss_and_gradient
from freqrobust.attacks.gradient.regions import Ball, laplace, random_start
from freqrobust.core.errors import SpecError
from freqrobust.numerics import noise
from freqrobust.numerics.losses import cross_entropy
from freqrobust.numerics.norms import farthest_l1, move, norms, project
from freqrobust.numerics.threat import TOLERANCE
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks


def images(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).reshape(1, 1, 1, -1)


def by_bisection(point: np.ndarray, origin: np.ndarray, eps: float) -> np.ndarray:
    """Shrink ``point - origin`` by a common amount, pixel by pixel, until the clipped change fits the budget."""
    delta = point.astype(np.float64) - origin

    def shrunk(amount: float) -> np.ndarray:
        return np.array(
            [min(max(np.sign(d) * max(abs(d) - amount, 0), -o), 1 - o) for d, o in zip(delta, origin, strict=True)]
        )

    if np.abs(shrunk(0)).sum() <= eps:
        return origin + shrunk(0)
    low, high = 0.0, float(np.abs(delta).max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.abs(shrunk(middle)).sum() > eps else (low, middle)
    return origin + shrunk(high)


#: Pixels as they are found in images: also at the walls, and equal ones.
PIXEL = st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1, width=32))
MOVE = st.one_of(st.sampled_from([0.0, 0.25, -0.25, 1.0, -1.0]), st.floats(-3, 3, width=32))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=400)
@given(
    pixels=st.lists(st.tuples(PIXEL, MOVE), min_size=1, max_size=12),
    eps=st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(1e-3, 6)),
)
def test_projection_equals_bisection(pixels, eps) -> None:
    origin = np.array([p for p, _ in pixels], dtype=np.float32)
    point = origin + np.array([m for _, m in pixels], dtype=np.float32)
    found = project(images(point), images(origin), "l1", eps).numpy().ravel()
    np.testing.assert_allclose(found, by_bisection(point, origin, eps), atol=2e-6)
    assert np.abs(found.astype(np.float64) - origin).sum() <= eps + 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_projection_is_the_nearest_point(seed) -> None:
    """A quadratic programme in ``delta = up - down``, by a general solver."""
    rng = np.random.default_rng(seed)
    d, eps = 7, [0.2, 0.6, 1.5, 0.6, 0.05, 3.0][seed]
    origin = rng.choice([0, 0.02, 0.5, 0.97, 1.0], d) if seed % 2 else rng.random(d)
    point = origin + rng.normal(0, 0.7, d)
    wanted = point - origin
    solved = optimize.minimize(
        lambda x: ((x[:d] - x[d:] - wanted) ** 2).sum(),
        np.zeros(2 * d),
        jac=lambda x: np.concatenate([2 * (x[:d] - x[d:] - wanted), -2 * (x[:d] - x[d:] - wanted)]),
        bounds=[*((0, 1 - o) for o in origin), *((0, o) for o in origin)],
        constraints={"type": "ineq", "fun": lambda x: eps - x.sum(), "jac": lambda x: -np.ones(2 * d)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solved.success
    found = project(images(point), images(origin), "l1", eps).numpy().ravel().astype(np.float64)
    np.testing.assert_allclose(found - origin, solved.x[:d] - solved.x[d:], atol=2e-4)
    assert ((found - point) ** 2).sum() <= solved.fun + 1e-6


@pytest.mark.parametrize("eps", [1e-3, 0.7, 12.0, 300.0])
def test_budget_holds_on_large_images(eps) -> None:
    generator = torch.Generator().manual_seed(1)
    origin = torch.rand(2, 3, 224, 224, generator=generator)
    point = origin + 0.1 * torch.randn(origin.shape, generator=generator)
    found = project(point, origin, "l1", eps)
    assert (found - origin).flatten(1).double().abs().sum(dim=1).max() <= eps * (1 + 1e-7)
    assert norms(found - origin, "l1").max() <= eps + TOLERANCE * max(1, eps)
    assert norms(found - origin, "l1").min() >= 0.99 * eps


def test_moving_never_goes_farther_than_told() -> None:
    generator = torch.Generator().manual_seed(0)
    origin = torch.rand(1, 1, 100, 100, generator=generator)
    delta = (torch.rand(origin.shape, generator=generator, dtype=torch.float64) - 0.5) * 1e-3
    moved = move(origin, delta)
    way = moved.double() - origin.double()
    assert (way.abs() <= delta.abs()).all()
    inside = (moved > 0) & (moved < 1)
    assert ((way - delta).abs()[inside] < 1.2e-7).all()


@pytest.mark.parametrize(("sparsity", "moved"), [(0.0, 1), (0.05, 5), (0.3, 30), (1.0, 100)])
def test_a_sparse_step_moves_the_largest_gradients_alike(sparsity, moved) -> None:
    gradient = torch.randn(4, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    origin = torch.full_like(gradient, 0.5)
    step = (Ball("l1", 1.0, 0.2, sparsity).region(origin).step(origin, gradient) - origin).flatten(1).numpy()
    for row, slope in zip(step, gradient.flatten(1).numpy(), strict=True):
        expected = np.zeros(100)
        for i in sorted(range(100), key=lambda i: -abs(slope[i]))[:moved]:
            expected[i] = 0.2 * np.sign(slope[i]) / moved
        np.testing.assert_allclose(row, expected, atol=1e-7)


def test_what_a_pixel_near_its_wall_cannot_take_goes_to_the_next() -> None:
    origin = images(np.array([1.0, 0.05, 0.5, 0.5]))
    region = Ball("l1", 1.0, 0.2).region(origin)
    found = region.step(origin, images(np.array([5.0, -4.0, 3.0, 1.0])))
    np.testing.assert_allclose(found.numpy().ravel(), [1.0, 0.0, 0.65, 0.5], atol=1e-6)


def test_start_is_uniform_in_the_ball() -> None:
    """In ``d`` dimensions ``(radius / eps) ** d`` is uniform; ``|u_1|`` of a uniform point of the sphere is Beta(1, d - 1)."""
    n, shape, eps = 20_000, (1, 2, 3), 0.4
    ids, origin = torch.arange(n), torch.full((n, *shape), 0.5)
    unit = noise.uniform(ids, (1,), seed=0, stream="r")[:, 0]
    found = random_start(origin, "l1", eps, unit, laplace(noise.uniform(ids, shape, seed=0, stream="s")))
    delta = (found - origin).flatten(1).double().numpy()
    radius = np.abs(delta).sum(axis=1) / eps
    assert stats.kstest(radius**6, "uniform").pvalue > 1e-4
    unit_sphere = delta / (eps * radius[:, None])
    assert stats.kstest(np.abs(unit_sphere[:, 0]), stats.beta(1, 5).cdf).pvalue > 1e-4
    assert abs((delta > 0).mean() - 0.5) < 0.01


def test_laplace_noise_is_laplace_and_finite() -> None:
    drawn = laplace(noise.uniform(torch.arange(50), (1000,), seed=0, stream="l"))
    assert stats.kstest(drawn.numpy().ravel(), stats.laplace.cdf).pvalue > 1e-4
    assert torch.isfinite(laplace(torch.tensor([0.0, 0.5, 1 - 2.0**-24]))).all()


def linear(seed: int, d: int) -> tuple[np.ndarray, nn.Module]:
    """Two classes; the margin against class 0 grows along the vector returned."""
    rng = np.random.default_rng(seed)
    slope = rng.standard_normal(d) * rng.choice([0.1, 1, 3], d)
    layer = nn.Linear(d, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.stack([np.zeros(d), slope]).astype(np.float32)))
    return slope, nn.Sequential(nn.Flatten(), layer).eval()


def greedy_gain(slope: np.ndarray, origin: np.ndarray, eps: float) -> float:
    """The most that ``slope . x`` can grow: pixel by pixel to the wall, the largest slopes first."""
    left, gain = eps, 0.0
    for i in sorted(range(len(slope)), key=lambda i: -abs(slope[i])):
        room = 1 - origin[i] if slope[i] > 0 else origin[i]
        gain += abs(slope[i]) * min(room, left)
        left -= min(room, left)
    return gain


@pytest.mark.parametrize("eps", [0.05, 0.8, 4.0, 1000.0])
def test_farthest_point_is_that_of_linear_programming(eps) -> None:
    rng = np.random.default_rng(3)
    d = 30
    slope, _ = linear(1, d)
    slope[4] = 0
    origin = rng.choice([0, 1, 0.3, 0.8], d)
    solved = optimize.linprog(
        np.concatenate([-slope, slope]),
        A_ub=np.ones((1, 2 * d)),
        b_ub=[eps],
        bounds=[*((0, 1 - o) for o in origin), *((0, o) for o in origin)],
    )
    found = farthest_l1(images(slope), images(origin), eps).numpy().ravel()
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[4] == np.float32(origin[4])
    assert np.abs(found - origin.astype(np.float32)).sum() <= eps + 1e-6
    assert slope @ (found - origin) == pytest.approx(-solved.fun, abs=1e-4)
    assert -solved.fun == pytest.approx(greedy_gain(slope, origin, eps), abs=1e-9)


@pytest.mark.parametrize("eps", [0.3, 2.0, 6.0])
@pytest.mark.parametrize("seed", range(3))
def test_attacks_reach_the_optimum_of_a_linear_model_in_the_box(eps, seed) -> None:
    """FGSM exactly; PGD but for the length of its last step; neither more than what is possible."""
    d, n = 75, 8
    slope, model = linear(seed, d)
    rng = np.random.default_rng(seed)
    origin = rng.choice([0, 1, 0.05, 0.5, 0.9], (n, d)).astype(np.float32)
    labels = torch.zeros(n, dtype=torch.int64)
    best = np.array([greedy_gain(slope, row, eps) for row in origin.astype(np.float64)])
    for spec, share in [
        (f"fgsm:norm=l1,eps={eps}", 0.99999),
        (f"pgd:norm=l1,eps={eps},steps=300,step_size={eps / 50},sparsity=0.01", 0.985),
        (f"pgd:norm=l1,eps={eps},steps=300,step_size={eps / 50},sparsity=0.01,random_start=false", 0.985),
        (f"pgd:norm=l1,eps={eps},sparsity=0.01", 0.75),
    ]:
        attack = attacks.parse(spec)[0].plugin
        given = torch.from_numpy(origin).view(n, 3, 5, 5)
        found = attack.perturb(model, given, labels, AttackContext(torch.arange(n), 0, "maximize"))
        gain = (found - given).flatten(1).double().numpy() @ slope
        assert (gain <= best + 1e-4).all(), spec
        assert (gain >= share * best).all(), (spec, gain / best)


def test_fgsm_follows_the_gradient_of_each_sample() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.Tanh(), nn.Linear(20, 5)).eval()
    given, labels = torch.rand(6, 3, 4, 4), torch.arange(6) % 5
    _, _, gradient = loss_and_gradient(model, given, labels, None, cross_entropy)
    attack = attacks.parse("fgsm:norm=l1,eps=1.5")[0].plugin
    found = attack.perturb(model, given, labels, AttackContext(torch.arange(6)))
    for slope, row, changed in zip(gradient, given, found, strict=True):
        gain = float((slope.double() * (changed - row).double()).sum())
        assert gain == pytest.approx(greedy_gain(slope.flatten().numpy(), row.flatten().numpy(), 1.5), rel=1e-4)


def test_sparsity_is_refused_where_it_has_no_meaning() -> None:
    with pytest.raises(SpecError, match="'sparsity' is for norm=l1, but norm is l2"):
        attacks.parse("pgd:norm=l2,sparsity=0.1")
