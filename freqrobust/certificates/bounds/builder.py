"""Operations with bounds for functions of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from freqrobust.certificates.bounds.coefficients import Shape
from freqrobust.certificates.bounds.network import Layer
from freqrobust.certificates.bounds.operations import (
    Concatenation,
    Convolution,
    Dense,
    MaxPool,
    Monotone,
    Operation,
    Pad,
    Pair,
    ReLU,
    Reshape,
    Scale,
    Sum,
)


@dataclass(frozen=True)
class Ref:
    """A layer, by its index."""

    index: int


class NoBoundsError(Exception):
    """An operation has no bounds with these arguments; the message is the reason."""


def _pair(value: Any) -> Pair:
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])


def _dims(dim: Any, rank: int) -> list[int]:
    """The dimensions of a reduction, which may not be that of the batch."""
    if dim is None:
        raise NoBoundsError("it reduces the batch dimension")
    dims = [d % rank for d in ([dim] if isinstance(dim, int) else dim)]
    if 0 in dims or not dims:
        raise NoBoundsError("it reduces the batch dimension")
    return dims


class Builder:
    """Builds the layers of a network.

    Its methods take the arguments of the function of torch of the same purpose, with layers in place of tensors, after the
    shape of the result without the batch dimension.
    """

    def __init__(self, probe: torch.Tensor) -> None:
        self.like = probe
        self.layers: list[Layer] = [Layer(None, (), tuple(probe.shape[1:]))]

    def shape(self, x: Ref) -> Shape:
        return self.layers[x.index].shape

    def layer(self, operation: Operation, inputs: Sequence[Ref], shape: Shape) -> Ref:
        self.layers.append(Layer(operation, tuple(x.index for x in inputs), shape))
        return Ref(len(self.layers) - 1)

    def linear(self, out: Shape, input: Ref, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Ref:
        return self.layer(Dense(weight.to(self.like), None if bias is None else bias.to(self.like), out), [input], out)

    def conv2d(
        self,
        out: Shape,
        input: Ref,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Ref:
        if isinstance(padding, str):
            spans = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
            if padding == "same" and any(span % 2 for span in spans):
                raise NoBoundsError("its padding differs between two opposite sides")
            padding = [span // 2 for span in spans] if padding == "same" else 0
        geometry = (_pair(stride), _pair(padding), _pair(dilation), groups)
        offset = None if bias is None else bias.to(self.like)
        return self.layer(Convolution(weight.to(self.like), offset, geometry, self.shape(input), out), [input], out)

    def batch_norm(
        self,
        out: Shape,
        input: Ref,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Ref:
        if training or running_mean is None or running_var is None:
            raise NoBoundsError("it normalises with the statistics of the batch")
        factor = (1 if weight is None else weight.to(self.like)) / (running_var.to(self.like) + eps).sqrt()
        shift = (0 if bias is None else bias.to(self.like)) - running_mean.to(self.like) * factor
        each = (-1, *[1] * (len(out) - 1))
        return self.scaled(input, factor.view(each), shift.view(each))

    def relu(self, out: Shape, input: Ref, inplace: bool = False) -> Ref:
        return self.layer(ReLU(), [input], out)

    def clamp(self, out: Shape, input: Ref, min: Any = None, max: Any = None) -> Ref:
        if min != 0 or max is not None:
            raise NoBoundsError("of clamp only min=0 has bounds")
        return self.relu(out, input)

    def max_pool2d(
        self,
        out: Shape,
        input: Ref,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Ref:
        kernel = _pair(kernel_size)
        step = _pair(stride) if stride else kernel
        return self.layer(MaxPool(kernel, step, _pair(padding), _pair(dilation), ceil_mode, out), [input], out)

    def avg_pool2d(
        self,
        out: Shape,
        input: Ref,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Ref:
        kernel, padded = _pair(kernel_size), _pair(padding) != (0, 0)
        step = _pair(stride) if stride else kernel
        if ceil_mode or divisor_override or (padded and not count_include_pad):
            arguments = (kernel, step, padding, ceil_mode, count_include_pad, divisor_override)
            return self.monotone(out, input, lambda y: F.avg_pool2d(y, *arguments))
        weight = self.like.new_full((out[0], 1, *kernel), 1 / (kernel[0] * kernel[1]))
        return self.conv2d(out, input, weight, None, step, padding, 1, out[0])

    def adaptive_avg_pool2d(self, out: Shape, input: Ref, output_size: Any) -> Ref:
        return self.monotone(out, input, lambda y: F.adaptive_avg_pool2d(y, output_size))

    def mean(self, out: Shape, input: Ref, dim: Any = None, keepdim: bool = False) -> Ref:
        dims = _dims(dim, len(self.shape(input)) + 1)
        return self.monotone(out, input, lambda y: y.mean(dims, keepdim=keepdim))

    def sum(self, out: Shape, input: Ref, dim: Any = None, keepdim: bool = False) -> Ref:
        dims = _dims(dim, len(self.shape(input)) + 1)
        return self.monotone(out, input, lambda y: y.sum(dims, keepdim=keepdim))

    def monotone(
        self, out: Shape, input: Ref, function: Callable[[torch.Tensor], torch.Tensor], mixes: bool = True
    ) -> Ref:
        return self.layer(Monotone(function, self.shape(input), out, self.like, mixes), [input], out)

    def reshape(self, out: Shape, input: Ref, *arguments: Any, **named: Any) -> Ref:
        return self.layer(Reshape(self.shape(input), out), [input], out)

    def same(self, out: Shape, input: Ref, *arguments: Any, **named: Any) -> Ref:
        return input

    def clone(self, out: Shape, input: Ref, *arguments: Any, **named: Any) -> Ref:
        """A layer of its own, so that changes of the one in place are none of the other."""
        return self.layer(Reshape(out, out), [input], out)

    def dropout(self, out: Shape, input: Ref, p: float = 0.5, training: bool = True, inplace: bool = False) -> Ref:
        if training and p > 0:
            raise NoBoundsError("it is in train mode, so that its outputs are random")
        return input

    def pad(
        self, out: Shape, input: Ref, pad: Sequence[int], mode: str = "constant", value: float | None = None
    ) -> Ref:
        shape, widths = self.shape(input), tuple(pad)
        if len(widths) > 2 * len(shape):
            raise NoBoundsError("it pads the batch dimension")
        if mode == "constant" and not value and len(shape) == 3 and min((0, *widths[4:])) == 0:
            return self.layer(Pad(widths, shape), [input], out)
        return self.monotone(out, input, lambda y: F.pad(y, widths, mode, value), mixes=False)

    def getitem(self, out: Shape, input: Ref, index: Any) -> Ref:
        index = index if isinstance(index, tuple) else (index,)
        if not all(isinstance(part, slice | int | type(None) | type(...)) for part in index) or index[0] != slice(None):
            raise NoBoundsError("of indexing only slices that keep all samples, x[:, ...], have bounds")
        steps = [part.step or 1 for part in index[2:] if isinstance(part, slice)]
        whole = all(isinstance(part, slice) and part.start is part.stop is None for part in index)
        if (
            whole and len(index) == 4 and index[1] == slice(None)
        ):  # a convolution keeps the windows of coefficients small
            return self.conv2d(out, input, self.like.new_ones(out[0], 1, 1, 1), None, steps, 0, 1, out[0])
        return self.monotone(out, input, lambda y: y[index], mixes=False)

    def cat(self, out: Shape, tensors: Any, dim: int = 0) -> Ref:
        if not all(isinstance(x, Ref) for x in tensors):
            raise NoBoundsError("of concatenation only layers have bounds, but not constants")
        dim %= len(out) + 1
        if dim == 0:
            raise NoBoundsError("it concatenates samples")
        return self.layer(Concatenation(dim, [self.shape(x) for x in tensors], out), tensors, out)

    def add(self, out: Shape, input: Any, other: Any, alpha: float = 1) -> Ref:
        if alpha != 1:
            other = self.scaled(other, alpha, 0) if isinstance(other, Ref) else other * alpha
        return self._combined(input, other, False)

    def subtract(self, out: Shape, input: Any, other: Any, alpha: float = 1) -> Ref:
        if alpha != 1:
            other = self.scaled(other, alpha, 0) if isinstance(other, Ref) else other * alpha
        return self._combined(input, other, True)

    def multiply(self, out: Shape, input: Any, other: Any) -> Ref:
        layer, constant = (input, other) if isinstance(input, Ref) else (other, input)
        if isinstance(constant, Ref):
            raise NoBoundsError("it is a product of two layers")
        return self.scaled(layer, constant, 0)

    def divide(self, out: Shape, input: Any, other: Any) -> Ref:
        if isinstance(other, Ref):
            raise NoBoundsError("it divides by a layer")
        return self.scaled(input, 1 / self._exact(other), 0)

    def negative(self, out: Shape, input: Ref) -> Ref:
        return self.scaled(input, -1, 0)

    def _combined(self, a: Any, b: Any, subtract: bool) -> Ref:
        sign = -1 if subtract else 1
        if not isinstance(b, Ref):
            return self.scaled(a, 1, sign * b)
        if not isinstance(a, Ref):
            return self.scaled(b, sign, a)
        if self.shape(a) != self.shape(b):
            raise NoBoundsError("its two layers have different shapes")
        return self.layer(Sum(subtract), [a, b], self.shape(a))

    def scaled(self, x: Ref, factor: Any, shift: Any) -> Ref:
        """``factor * x + shift``: numbers, or tensors that broadcast to ``(1, *shape)``."""
        none = isinstance(shift, int | float) and shift == 0
        operation = Scale(self._full(factor, x), None if none else self._full(shift, x))
        return self.layer(operation, [x], self.shape(x))

    def _exact(self, value: Any) -> torch.Tensor:
        """A constant in float64; a number is not rounded to float32 first."""
        return value.to(self.like) if isinstance(value, torch.Tensor) else self.like.new_tensor(value)

    def _full(self, value: Any, x: Ref) -> torch.Tensor:
        tensor = self._exact(value)
        try:
            return tensor.expand(1, *self.shape(x))
        except RuntimeError:
            raise NoBoundsError("a constant has a batch dimension, or more dimensions than the layer") from None
