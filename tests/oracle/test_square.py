"""The Square Attack against its formulas, a linear model, and the library of its authors."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import evaluate, load_data, load_model
from freqrobust.attacks._squares import candidates, share, two_peaks
from freqrobust.numerics.norms import norms
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks
from support.networks import tiny

BUDGETS = [("linf", 0.03), ("l2", 0.5), ("l1", 3.0)]


def square(**params):
    return attacks.get("square").build("square", params)


class Counted(nn.Module):
    """Keeps the number of images of every forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.sizes = model, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return self.model(x)


def linear(pixels: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2)).eval().requires_grad_(False)


@pytest.mark.parametrize(("norm", "eps", "reached"), [("linf", 0.03, 0.97), ("l2", 0.3, 0.4), ("l1", 1.0, 0.3)])
def test_a_linear_model(norm, eps, reached) -> None:
    """The margin grows by at most ``eps * ||w||_dual``; squares of one pixel come close to it for Linf."""
    model, images = linear(3 * 25), 0.3 + 0.4 * torch.rand(4, 3, 5, 5)
    direction = (model[1].weight[1] - model[1].weight[0]).abs()
    best = eps * {"linf": direction.sum(), "l2": direction.norm(), "l1": direction.max()}[norm]
    labels = torch.arange(4) % 2

    def margin(x):
        logits = model(x)
        return logits.gather(1, 1 - labels[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]

    found = square(norm=norm, eps=eps, queries=1200 if norm == "linf" else 400).perturb(
        model, images, labels, AttackContext(torch.arange(4), goal="maximize")
    )
    gain = (margin(found) - margin(images)) / best
    assert (gain <= 1 + 1e-4).all()
    assert (gain >= reached).all()


@pytest.mark.parametrize(("norm", "eps"), BUDGETS)
@pytest.mark.parametrize("goal", ["decide", "maximize"])
def test_a_sample_alone_is_as_in_a_batch(norm, eps, goal) -> None:
    model, data = tiny(n=14)
    model = model.double().eval()  # rounding does not decide which candidate is kept
    images, labels, ids = data.batch(torch.arange(14), torch.device("cpu"))
    attack = square(norm=norm, eps=eps, queries=40)

    class Double(nn.Module):
        def forward(self, x):
            return model(x.double())

    def run(order, size):
        found = torch.empty_like(images)
        for part in order.split(size):
            context = AttackContext(ids[part], 3, goal)
            found[part] = attack.perturb(Double(), images[part], labels[part], context)
        return found

    together = run(torch.arange(14), 7)
    assert torch.equal(run(torch.arange(14).flip(0), 1), together)
    assert torch.equal(run(torch.arange(14).roll(3), 14), together)


@pytest.mark.parametrize(("norm", "eps"), BUDGETS)
def test_adversarial_samples_leave_and_the_others_use_all_queries(norm, eps) -> None:
    model, data = tiny(n=14)
    images, labels, ids = data.batch(torch.arange(14), torch.device("cpu"))
    model.requires_grad_(False)
    counted = Counted(model)
    found = square(norm=norm, eps=eps / 4, queries=40).perturb(counted, images, labels, AttackContext(ids))
    robust = int((model(found).argmax(dim=1) == labels).sum())
    assert 0 < robust < 14
    assert len(counted.sizes) == 40
    assert counted.sizes == sorted(counted.sizes, reverse=True)
    assert counted.sizes[0] == 14
    assert counted.sizes[-1] >= robust
    shorter = square(norm=norm, eps=eps / 4, queries=20).perturb(model, images, labels, AttackContext(ids))
    assert int((model(shorter).argmax(dim=1) == labels).sum()) >= robust
    report = evaluate(model, data, attacks=[f"square:norm={norm},eps={eps / 4},queries=40"], device="cpu")
    assert report.cells[1].correct == robust
    assert report.cells[1].backwards == 0
    assert not [w for w in report.warnings if w.code == "no-gradients"]


def test_every_place_of_a_square_is_equally_likely() -> None:
    """Corners are uniform in ``{0, ..., w - h}``, the last one included, and each colour has its own sign."""
    n, side = 3600, 4
    images = torch.full((n, 2, 6, 6), 0.5)
    space = candidates(images, "linf", 0.1)
    numbers = AttackContext(torch.arange(n)).uniform((space.numbers,), "test")
    changed = space.propose(images, numbers, (side / 6) ** 2) - images
    places = torch.zeros(3, 3, 2, 2)
    for row in changed[changed.abs().flatten(1).sum(dim=1) > 0].cpu():
        rows, columns = (row[0].abs() > 0).nonzero().T
        assert len(rows) == side**2
        top, left = int(rows.min()), int(columns.min())
        assert (int(rows.max()), int(columns.max())) == (top + side - 1, left + side - 1)
        signs = row[:, rows, columns].sign()
        assert (signs == signs[:, :1]).all()
        places[top, left, int(signs[0, 0] > 0), int(signs[1, 0] > 0)] += 1
    assert places.sum() == n
    expected = n / places.numel()
    chi_square = float(((places - expected) ** 2 / expected).sum())
    assert chi_square < 35 + 6 * math.sqrt(2 * 35)


def test_candidates_of_linf_are_projected_steps_of_twice_eps() -> None:
    """``project(best + delta)`` with ``delta`` in ``{-2 eps, 2 eps}``, also where pixels are near 0 and 1."""
    images, eps = torch.rand(40, 3, 7, 7), 0.2
    space = candidates(images, "linf", eps)
    best = images + eps * (2 * torch.rand(images.shape) - 1)
    best = best.clamp(0, 1)
    numbers = torch.rand(40, space.numbers)
    found = space.propose(best, numbers, 9 / 49)
    for i in range(40):
        top, left = (int(numbers[i, k] * 5) for k in (0, 1))
        delta = torch.zeros(3, 7, 7)
        for c in range(3):
            delta[c, top : top + 3, left : left + 3] = 2 * eps if numbers[i, 2 + c] >= 0.5 else -2 * eps
        expected = torch.minimum(torch.maximum(best[i] + delta, images[i] - eps), images[i] + eps).clamp(0, 1)
        assert torch.allclose(found[i], expected, atol=1e-7)
    start = space.start(AttackContext(torch.arange(40)))
    stripes = torch.where(start > images, 1, -1)
    assert ((stripes == stripes[:, :, :1]) | (images == start)).all()
    assert {-1, 1} == set(stripes.flatten().tolist())


def peak(height: int, width: int, exponent: int) -> np.ndarray:
    """Eq. 2 of the paper, pixel by pixel, with its indices from 1."""
    longer, found = max(height, width), np.zeros((height, width))
    n = longer // 2
    for r in range(1, height + 1):
        for s in range(1, width + 1):
            most = n - max(abs(r - height // 2 - 1), abs(s - width // 2 - 1))
            found[r - 1, s - 1] = sum(1 / (n + 1 - k) ** exponent for k in range(most + 1))
    return found


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 11])
@pytest.mark.parametrize(("order", "exponent"), [(2, 2), (1, 4)])
def test_the_pattern_is_that_of_the_paper(side, order, exponent) -> None:
    half = side // 2
    expected = np.concatenate([-peak(half, side, exponent), peak(side - half, side, exponent)])
    expected /= np.linalg.norm(expected.ravel(), ord=order)
    np.testing.assert_allclose(two_peaks(side, order, "cpu").numpy(), expected, atol=1e-6)


def test_candidates_of_l2_follow_algorithm_3() -> None:
    """Line by line for every sample; pixels are far from 0 and 1, so that nothing is clipped."""
    torch.manual_seed(1)
    n, side, eps = 30, 3, 0.3
    images = 0.4 + 0.2 * torch.rand(n, 3, 8, 9)
    space = candidates(images, "l2", eps)
    delta = torch.randn(images.shape)
    delta *= (eps * torch.rand(n) / norms(delta, "l2"))[:, None, None, None]
    delta[0] = 0
    delta = (images + delta) - images  # rounded as a search has it
    numbers = torch.rand(n, space.numbers)
    found = space.propose(images + delta, numbers, 9 / 72)
    eta = two_peaks(side, 2, "cpu").double().numpy()
    for i in range(n):
        nu = delta[i].double().numpy().copy()
        r1, s1, r2, s2 = (int(numbers[i, k] * (length - side + 1)) for k, length in enumerate((8, 9, 8, 9)))
        unused = eps**2 - (nu**2).sum()
        first, second = np.zeros((8, 9), bool), np.zeros((8, 9), bool)
        first[r1 : r1 + side, s1 : s1 + side] = True
        second[r2 : r2 + side, s2 : s2 + side] = True
        for c in range(3):
            rho = 1 if numbers[i, 5 + c] >= 0.5 else -1
            old = nu[c][first].reshape(side, side)
            moved = rho * (eta if numbers[i, 4] >= 0.5 else eta.T) + old / max(np.linalg.norm(old), 1e-12)
            available = np.sqrt((nu[c][first | second] ** 2).sum() + unused / 3)
            nu[c][second] = 0
            nu[c][first] = (moved / np.linalg.norm(moved) * available).ravel()
        np.testing.assert_allclose((found[i] - images[i]).numpy(), nu, atol=1e-5)
        assert np.linalg.norm(nu) == pytest.approx(eps, rel=1e-5)


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.4), ("l1", 0.6)])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 11), (2, 1, 9), (3, 4, 4)])
def test_candidates_use_the_whole_budget(norm, eps, shape) -> None:
    images = 0.45 + 0.1 * torch.rand(6, *shape)
    space, context = candidates(images, norm, eps), AttackContext(torch.arange(6))
    best = space.start(context)
    assert norms(best - images, norm).numpy() == pytest.approx(np.full(6, eps), rel=1e-4)
    for query in range(30):
        best = space.propose(best, context.uniform((space.numbers,), f"test {query}"), share(query, 0.8))
    assert (norms(best - images, norm) <= eps * (1 + 1e-6)).all()
    # where a whole image is one square that is its own second one, opposite signs may cancel
    assert (norms(best - images, norm) >= 0.9 * eps).float().mean() >= 0.5


def test_the_squares_shrink() -> None:
    """Halved at queries 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 (section 5.1)."""
    shares = [share(query, 0.8) for query in range(1, 10_001)]
    changes = [query for query, (a, b) in enumerate(itertools.pairwise(shares), 1) if a != b]
    assert changes == [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    assert (shares[0], shares[-1]) == (0.8, 0.8 / 512)


def test_with_a_target() -> None:
    model, data = tiny(n=14)
    report = evaluate(
        model, data, attacks=["square:eps=0.2,queries=150"], criterion="targeted:next", device="cpu", batch_size=5
    )
    assert report.cells[1].status == "ok", report.cells[1].error
    assert report.cells[1].correct < 14


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 1.0), ("l1", 16.0)])
def test_the_library_finds_as_many(shared, norm, eps) -> None:
    """Both are random: robust counts of about 30 images may differ by chance, but not by much, and neither may passes."""
    pyautoattack = pytest.importorskip("pyautoattack", reason="the extra 'zoo' is not installed")
    architecture = Path(__file__).parents[2] / "benchmarks" / "cifar_small.py"
    checkpoint = shared / "checkpoints" / "cifar_small_36px.pth"
    preset = "0.485,0.456,0.406/0.225,0.225,0.225"
    model = load_model(checkpoint, arch=f"{architecture}:build", normalize=preset).eval().requires_grad_(False)
    data = load_data(str(shared / "data" / "cifar10" / "test_500.npz")).first(50)
    images, labels, ids = data.batch(torch.arange(50), torch.device("cpu"))
    with torch.no_grad():
        right = model(images).argmax(dim=1) == labels
    images, labels, ids = images[right], labels[right], ids[right]
    ours, theirs = Counted(model), Counted(model)
    found = square(norm=norm, eps=eps, queries=150).perturb(ours, images, labels, AttackContext(ids))
    library = pyautoattack.square.SquareAttack(
        theirs, norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[norm], n_queries=149, eps=eps, resc_schedule=False
    )
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        expected = library.perturb(images, labels)
    with torch.no_grad():
        robust = [int((model(x).argmax(dim=1) == labels).sum()) for x in (found, expected)]
    assert abs(robust[0] - robust[1]) <= 5
    assert 0.75 <= sum(ours.sizes) / sum(theirs.sizes) <= 1.33
