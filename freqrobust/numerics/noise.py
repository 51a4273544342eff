"""Counter-based noise seeded by (seed, sample id, stream).

A sample meets the same noise whatever the batch size, the order or the number of processes: there is no
generator state. The key of a sample is two rounds of the splitmix64 finaliser over seed, stream and id;
element ``c`` is ``splitmix64(key + c * golden ratio)``, and its two halves give two values of 24 bits
(Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from freqrobust.core.errors import PluginError

_GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift of int64: the arithmetic one, with the copied sign bits masked away."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _splitmix(x: torch.Tensor) -> torch.Tensor:
    """The splitmix64 finaliser on int64 tensors (wrapping multiplication); works on its argument in place."""
    x ^= _shift_right(x, 30)
    x *= _signed(_MIX1)
    x ^= _shift_right(x, 27)
    x *= _signed(_MIX2)
    x ^= _shift_right(x, 31)
    return x


def _stream_number(seed: int, stream: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return _signed(int.from_bytes(digest, "little"))


def uniform(ids: torch.Tensor, shape: Sequence[int], *, seed: int, stream: str) -> torch.Tensor:
    """Uniform float32 noise in [0, 1), shape ``(len(ids), *shape)``, on the device of ``ids``.

    Args:
        ids: int64 ``(N,)``, the dataset indices of the samples.
        shape: shape of one sample.
        seed: the seed of the run.
        stream: names the use, so that two uses do not share noise.
    """
    size = math.prod(shape)
    pairs = (size + 1) // 2
    key = _splitmix(_splitmix(ids.to(torch.int64) + _stream_number(seed, stream)) + _signed(_GOLDEN))
    counter = torch.arange(pairs, device=ids.device, dtype=torch.int64) * _signed(_GOLDEN)
    bits = _splitmix(key[:, None] + counter)
    noise = torch.empty(len(ids), pairs, 2, device=ids.device)
    noise[..., 0] = _shift_right(bits, 40)
    noise[..., 1] = (bits >> 8).bitwise_and_(0xFFFFFF)
    noise *= 2.0**-24
    return noise.view(len(ids), 2 * pairs)[:, :size].reshape(len(ids), *shape)


def normal(ids: torch.Tensor, shape: Sequence[int], *, seed: int, stream: str) -> torch.Tensor:
    """Standard normal float32 noise ``(len(ids), *shape)``, by Box-Muller on :func:`uniform`.

    Independent of how samples are split into batches on one device; last bits may differ across devices.
    """
    size = math.prod(shape)
    half = (size + 1) // 2
    base = uniform(ids, (2, half), seed=seed, stream=stream)
    radius = torch.sqrt(-2 * torch.log1p(-base[:, 0]))
    angle = (2 * math.pi) * base[:, 1]
    both = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return both[:, :size].reshape(len(ids), *shape)


def permutation(n: int, *, seed: int, stream: str) -> torch.Tensor:
    """A seeded permutation of ``range(n)``, int64 ``(n,)``."""
    return torch.argsort(uniform(torch.arange(n), (1,), seed=seed, stream=stream)[:, 0], stable=True)


@dataclass
class _Scope:
    ids: torch.Tensor
    seed: int
    stream: str
    calls: int = 0


_SCOPE: ContextVar[_Scope | None] = ContextVar("freqrobust_sample_scope", default=None)


@contextmanager
def sample_scope(ids: torch.Tensor, *, seed: int = 0, stream: str = "model") -> Iterator[None]:
    """Declare the samples of the batches inside, so that stochastic modules draw noise that is seeded by sample.

    Inside, every call of :func:`scoped_uniform` or :func:`scoped_normal` draws new noise; the same sequence
    of calls draws the same noise again. The harness opens this scope around every use of a model.
    """
    token = _SCOPE.set(_Scope(ids, seed, stream))
    try:
        yield
    finally:
        _SCOPE.reset(token)


def scoped_uniform(images: torch.Tensor) -> torch.Tensor:
    """Uniform noise in [0, 1) shaped like ``images (N, ...)``, for modules that are random by design.

    Raises:
        PluginError: outside of a :func:`sample_scope`, or with another number of images than it has ids.
    """
    return _scoped(images, uniform)


def scoped_normal(images: torch.Tensor) -> torch.Tensor:
    """Standard normal noise shaped like ``images (N, ...)``; see :func:`scoped_uniform`."""
    return _scoped(images, normal)


def _scoped(images: torch.Tensor, draw: Callable[..., torch.Tensor]) -> torch.Tensor:
    scope = _SCOPE.get()
    if scope is None:
        raise PluginError("noise seeded by sample was requested outside of freqrobust.noise.sample_scope(ids)")
    if len(images) != len(scope.ids):
        raise PluginError(f"noise was requested for {len(images)} images in a scope of {len(scope.ids)} sample ids")
    scope.calls += 1
    ids = scope.ids.to(images.device)
    return draw(ids, images.shape[1:], seed=scope.seed, stream=f"{scope.stream}/{scope.calls}")
