"""The operations of a network: how each maps intervals, and the transposes of the affine ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from freqrobust.certificates.bounds.coefficients import Coefficients, Shape, inside

Pair = tuple[int, int]


class Interval(NamedTuple):
    """Lower and upper bounds of every value of a layer, each ``(N, *shape)``."""

    lower: torch.Tensor
    upper: torch.Tensor

    def __and__(self, other: Interval) -> Interval:
        """The intersection; bounds that cross by rounding are exchanged."""
        lower, upper = torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper)
        return Interval(torch.minimum(lower, upper), torch.maximum(lower, upper))


class Affine(ABC):
    """``y = L x + offset``, for one or more inputs.

    Attributes:
        offset: ``(1, *shape of the output)``, or None for zero.
        mixes: an output may depend on several inputs, so that intervals of a composition are not exact.
    """

    offset: torch.Tensor | None = None
    mixes = True

    @abstractmethod
    def interval(self, inputs: Sequence[Interval]) -> Interval:
        """The smallest intervals of the outputs for independent inputs."""

    @abstractmethod
    def transpose(self, rows: Coefficients) -> list[Coefficients]:
        """For rows ``a``, the coefficients of ``a . L x``, for every input."""


def _centred(
    interval: Interval, signed: Callable[..., torch.Tensor], absolute: Callable[..., torch.Tensor]
) -> Interval:
    centre, radius = (interval.upper + interval.lower) / 2, (interval.upper - interval.lower) / 2
    middle, spread = signed(centre), absolute(radius)
    return Interval(middle - spread, middle + spread)


class Dense(Affine):
    """``y = W x + b`` on the last dimension."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, out_shape: Shape) -> None:
        self.weight, self.out_shape = weight, out_shape
        self.offset = None if bias is None else bias.expand(1, *out_shape)

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        return _centred(
            inputs[0],
            lambda x: F.linear(x, self.weight) + (0 if self.offset is None else self.offset),
            lambda x: F.linear(x, self.weight.abs()),
        )

    def transpose(self, rows: Coefficients) -> list[Coefficients]:
        return [Coefficients(rows.dense(self.out_shape) @ self.weight)]


class Convolution(Affine):
    """A convolution in two dimensions, padded with zeros."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        geometry: tuple[Pair, Pair, Pair, int],
        in_shape: Shape,
        out_shape: Shape,
    ) -> None:
        self.weight, self.in_shape = weight, in_shape
        self.stride, self.padding, self.dilation, self.groups = geometry
        self.offset = None if bias is None else bias.view(1, -1, 1, 1).expand(1, *out_shape)

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return _centred(
            inputs[0],
            lambda x: F.conv2d(x, self.weight, None, *geometry) + (0 if self.offset is None else self.offset),
            lambda x: F.conv2d(x, self.weight.abs(), None, *geometry),
        )

    def transpose(self, rows: Coefficients) -> list[Coefficients]:
        values = F.conv_transpose2d(
            rows.values, self.weight, stride=self.stride, groups=self.groups, dilation=self.dilation
        )
        top, left = (o * s - p for o, s, p in zip(rows.origin, self.stride, self.padding, strict=True))
        return [inside(values, top, left, self.in_shape)]


class Scale(Affine):
    """``y = scale * x + offset``, element by element; ``scale (1, *shape)``."""

    mixes = False

    def __init__(self, scale: torch.Tensor, offset: torch.Tensor | None) -> None:
        self.scale, self.offset = scale, offset

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        a, b = inputs[0].lower * self.scale, inputs[0].upper * self.scale
        shift = 0 if self.offset is None else self.offset
        return Interval(torch.minimum(a, b) + shift, torch.maximum(a, b) + shift)

    def transpose(self, rows: Coefficients) -> list[Coefficients]:
        return [rows.times(rows.window(self.scale))]


class Pad(Affine):
    """Zeros around a layer ``(C, H, W)``, or before and after its channels; ``F.pad``'s order of the widths."""

    mixes = False

    def __init__(self, widths: tuple[int, ...], in_shape: Shape) -> None:
        self.widths, self.in_shape = widths, in_shape

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        return Interval(F.pad(inputs[0].lower, self.widths), F.pad(inputs[0].upper, self.widths))

    def transpose(self, rows: Coefficients) -> list[Coefficients]:
        left, _, top, _, before, _ = (*self.widths, *[0] * (6 - len(self.widths)))
        values = rows.values[:, before : before + self.in_shape[0]]
        return [inside(values, rows.origin[0] - top, rows.origin[1] - left, self.in_shape)]


class Monotone(Affine):
    """An affine function with coefficients that are not negative, such as means, slices and reshapes.

    Args:
        function: it, for ``(N, *in_shape)``; samples are independent.
        mixes: see :class:`Affine`.
    """

    def __init__(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        in_shape: Shape,
        out_shape: Shape,
        like: torch.Tensor,
        mixes: bool,
    ) -> None:
        self.function, self.in_shape, self.out_shape, self.mixes = function, in_shape, out_shape, mixes
        offset = function(like.new_zeros(1, *in_shape))
        self.offset = offset if bool(offset.any()) else None

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        return Interval(self.function(inputs[0].lower), self.function(inputs[0].upper))

    def transpose(self, rows: Coefficients) -> list[Coefficients]:
        values = rows.dense(self.out_shape)
        with torch.enable_grad():
            at = values.new_zeros(len(values), *self.in_shape, requires_grad=True)
            (pulled,) = torch.autograd.grad(self.function(at), at, values)
        return [Coefficients(pulled)]


class Reshape(Affine):
    """The same values in another shape."""

    mixes = False

    def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
        self.in_shape, self.out_shape = in_shape, out_shape

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        return Interval(*(bound.reshape(-1, *self.out_shape) for bound in inputs[0]))

    def transpose(self, rows: Coefficients) -> list[Coefficients]:
        return [Coefficients(rows.dense(self.out_shape).reshape(-1, *self.in_shape))]


class Sum(Affine):
    """``x1 + x2``, or ``x1 - x2``."""

    def __init__(self, subtract: bool = False) -> None:
        self.subtract = subtract

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        a, b = inputs
        if self.subtract:
            return Interval(a.lower - b.upper, a.upper - b.lower)
        return Interval(a.lower + b.lower, a.upper + b.upper)

    def transpose(self, rows: Coefficients) -> list[Coefficients]:
        return [rows, Coefficients(-rows.values, rows.origin) if self.subtract else rows]


class Concatenation(Affine):
    """Layers next to each other along the dimension ``dim``, which counts from the batch dimension 0."""

    mixes = False

    def __init__(self, dim: int, shapes: Sequence[Shape], out_shape: Shape) -> None:
        self.dim, self.out_shape = dim, out_shape
        self.sizes = [shape[dim - 1] for shape in shapes]

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        return Interval(torch.cat([i.lower for i in inputs], self.dim), torch.cat([i.upper for i in inputs], self.dim))

    def transpose(self, rows: Coefficients) -> list[Coefficients]:
        return [Coefficients(part) for part in rows.dense(self.out_shape).split(self.sizes, self.dim)]


class ReLU:
    """``y = max(x, 0)``."""

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        return Interval(inputs[0].lower.clamp(min=0), inputs[0].upper.clamp(min=0))


class MaxPool:
    """The maximum of every window of a layer ``(C, H, W)``.

    Args:
        arguments: those of :func:`torch.nn.functional.max_pool2d`.
    """

    def __init__(
        self, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool, out_shape: Shape
    ) -> None:
        self.arguments = (kernel, stride, padding, dilation, ceil_mode)
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        self.out_shape = out_shape

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        return Interval(*(F.max_pool2d(bound, *self.arguments) for bound in inputs[0]))

    def two_largest(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Index in the plane of the largest value of every window, this value, and the second largest value.

        The second largest value of a window with one pixel is minus infinity.
        """
        largest, index = F.max_pool2d(values, *self.arguments, return_indices=True)
        pads = []
        for size, out, k, s, p, d in zip(
            values.shape[2:], self.out_shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            pads.append((p, max(0, (out - 1) * s + d * (k - 1) + 1 - size - p)))
        padded = F.pad(values, (*pads[1], *pads[0]), value=float("-inf"))
        patches = F.unfold(padded, self.kernel, self.dilation, 0, self.stride)
        patches = patches.view(len(values), values.shape[1], -1, patches.shape[-1])
        columns = (padded.shape[3] - self.dilation[1] * (self.kernel[1] - 1) - 1) // self.stride[1] + 1
        patches = patches.unflatten(-1, (-1, columns))[..., : self.out_shape[1], : self.out_shape[2]]
        if patches.shape[2] == 1:
            return index, largest, torch.full_like(largest, float("-inf"))
        return index, largest, patches.topk(2, dim=2).values[:, :, 1]


Operation = Affine | ReLU | MaxPool
