"""Counter-based noise against a re-implementation in plain Python integers, and against its distribution."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from freqrobust.core.errors import PluginError
from freqrobust.numerics import noise
from freqrobust.plugins.context import AttackContext

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    """The splitmix64 finaliser of Steele, Lea and Flood (2014)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def reference(sample: int, size: int, seed: int, stream: str) -> list[float]:
    number = int.from_bytes(hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest(), "little")
    key = mix((mix((sample + number) & MASK) + GOLDEN) & MASK)
    values = []
    for pair in range((size + 1) // 2):
        bits = mix((key + pair * GOLDEN) & MASK)
        values += [(bits >> 40) / 2**24, ((bits >> 8) & 0xFFFFFF) / 2**24]
    return values[:size]


def test_reference_is_splitmix64() -> None:
    """The generator's published outputs for the seed 1234567."""
    found = [mix((1234567 + (i + 1) * GOLDEN) & MASK) for i in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 1, 2**40, -3])
@pytest.mark.parametrize("stream", ["", "pgd start 0", "ümlaut"])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_uniform_is_exactly_the_reference(seed: int, stream: str, size: int) -> None:
    ids = torch.tensor([0, 1, 17, 10**9, 2**62, -1])
    found = noise.uniform(ids, (size,), seed=seed, stream=stream)
    assert found.dtype == torch.float32
    assert found.tolist() == [reference(i, size, seed, stream) for i in ids.tolist()]


def test_shape_is_filled_in_row_order() -> None:
    ids = torch.tensor([5, 3])
    flat = noise.uniform(ids, (30,), seed=0, stream="s")
    assert torch.equal(noise.uniform(ids, (2, 3, 5), seed=0, stream="s"), flat.view(2, 2, 3, 5))
    assert noise.uniform(ids[:0], (2, 3), seed=0, stream="s").shape == (0, 2, 3)
    assert noise.uniform(ids, (), seed=0, stream="s").shape == (2,)


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
@pytest.mark.parametrize("shape", [(3, 8, 8), (5,), (1, 7, 7)])
def test_any_split_and_order_gives_the_same_bits(draw, shape) -> None:
    ids = torch.randperm(97, generator=torch.Generator().manual_seed(0))
    whole = draw(ids, shape, seed=3, stream="s")
    for size in (1, 2, 13, 96):
        parts = torch.cat([draw(part, shape, seed=3, stream="s") for part in ids.split(size)])
        assert torch.equal(parts, whole)
    order = torch.argsort(ids)
    assert torch.equal(draw(ids[order], shape, seed=3, stream="s"), whole[order])


def test_seed_stream_and_id_all_matter() -> None:
    ids = torch.arange(4)
    draws = [
        noise.uniform(ids, (16,), seed=seed, stream=stream)
        for seed, stream in [(0, "a"), (1, "a"), (0, "b"), (0, "a/1"), (1, "")]
    ]
    rows = torch.cat(draws)
    assert len(torch.unique(rows, dim=0)) == len(rows)
    # seed and stream do not run into each other
    assert not torch.equal(
        noise.uniform(ids, (4,), seed=1, stream="1/a"), noise.uniform(ids, (4,), seed=11, stream="/a")
    )


@pytest.mark.parametrize("across", ["elements", "samples"])
def test_uniform_is_uniform(across: str) -> None:
    n, m = (20, 20_000) if across == "elements" else (20_000, 20)
    values = noise.uniform(torch.arange(n), (m,), seed=0, stream="s").numpy().astype(np.float64)
    assert values.min() >= 0
    assert values.max() < 1
    count = values.size
    assert abs(values.mean() - 0.5) < 4 * np.sqrt(1 / 12 / count)
    assert abs(values.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / count)
    bins = np.histogram(values, bins=256, range=(0, 1))[0]
    assert stats.chisquare(bins).pvalue > 1e-4
    assert stats.kstest(values.ravel(), "uniform").pvalue > 1e-4
    # neighbours along both axes are independent: a 16 x 16 table of pairs
    for first, second in [(values[:, :-1], values[:, 1:]), (values[:-1], values[1:])]:
        table = np.histogram2d(first.ravel(), second.ravel(), bins=16, range=[[0, 1], [0, 1]])[0]
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_normal_has_the_moments_of_a_normal() -> None:
    values = noise.normal(torch.arange(500), (401,), seed=0, stream="s").numpy().astype(np.float64)
    count = values.size
    assert np.isfinite(values).all()
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((values**power).mean() - moment) < 4 * np.sqrt(variance / count)
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-4
    half = values[:, :400].reshape(500, 2, 200)  # the two halves come from the same pairs
    assert abs(np.corrcoef(half[:, 0].ravel(), half[:, 1].ravel())[0, 1]) < 4 / np.sqrt(half.size / 2)


def test_permutation_is_one_and_is_keyed() -> None:
    found = noise.permutation(1000, seed=0, stream="s")
    assert torch.equal(found.sort().values, torch.arange(1000))
    assert torch.equal(found, noise.permutation(1000, seed=0, stream="s"))
    assert not torch.equal(found, noise.permutation(1000, seed=1, stream="s"))
    assert abs(stats.spearmanr(found.numpy(), np.arange(1000)).statistic) < 0.15


@pytest.mark.parametrize("scoped", [noise.scoped_uniform, noise.scoped_normal])
def test_scope_draws_afresh_each_call_and_the_same_each_time(scoped) -> None:
    ids = torch.tensor([4, 9, 2])
    images = torch.zeros(3, 1, 4, 4)

    def two(ids: torch.Tensor, stream: str = "m") -> tuple[torch.Tensor, torch.Tensor]:
        with noise.sample_scope(ids, seed=1, stream=stream):
            return scoped(images[: len(ids)]), scoped(images[: len(ids)])

    first, second = two(ids)
    assert not torch.equal(first, second)
    again = two(ids)
    assert torch.equal(again[0], first)
    assert torch.equal(again[1], second)
    assert torch.equal(two(ids[1:2])[1], second[1:2])
    assert not torch.equal(two(ids, "other")[0], first)


def test_scope_is_required_and_has_to_fit() -> None:
    with pytest.raises(PluginError, match="outside of freqrobust"):
        noise.scoped_normal(torch.zeros(2, 1))
    with noise.sample_scope(torch.arange(3)), pytest.raises(PluginError, match=r"2 images .* 3 sample ids"):
        noise.scoped_normal(torch.zeros(2, 1))
    with pytest.raises(PluginError):  # closed again
        noise.scoped_normal(torch.zeros(3, 1))


def test_attack_context_keeps_the_noise_of_a_subset() -> None:
    context = AttackContext(torch.tensor([7, 1, 5]), seed=2, goal="maximize")
    part = context.subset(torch.tensor([2, 0]))
    assert part.goal == "maximize"
    for draw in ("uniform", "normal"):
        whole = getattr(context, draw)((2, 3), "s")
        assert torch.equal(getattr(part, draw)((2, 3), "s"), whole[[2, 0]])
    assert torch.equal(context.uniform((4,), "s"), noise.uniform(context.ids, (4,), seed=2, stream="s"))
