"""A network as a list of operations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from freqrobust.certificates.bounds.coefficients import Shape
from freqrobust.certificates.bounds.operations import Affine, Operation


@dataclass(frozen=True)
class Layer:
    """One operation.

    Attributes:
        operation: None for the input of the network, which is the first layer.
        inputs: indices of the layers that it is computed from, all smaller than its own.
        shape: of its output, without the batch dimension.
    """

    operation: Operation | None
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True)
class Network:
    """Layers in the order in which they are computed; the last one has the logits."""

    layers: tuple[Layer, ...]

    @cached_property
    def largest(self) -> int:
        """The number of values of the largest layer."""
        return max(prod(layer.shape) for layer in self.layers)

    @cached_property
    def total(self) -> int:
        """The number of values of all layers."""
        return sum(prod(layer.shape) for layer in self.layers)

    @cached_property
    def mixing(self) -> tuple[float, ...]:
        """For every layer the number of operations in sequence that mix values, infinite behind a nonlinear one.

        Intervals are exact for layers with at most one of them on a box.
        """
        counts: list[float] = []
        for layer in self.layers:
            before = [counts[i] for i in layer.inputs]
            if layer.operation is None:
                counts.append(0)
            elif isinstance(layer.operation, Affine):
                counts.append(max(before) + layer.operation.mixes)
            else:
                counts.append(float("inf"))
        return tuple(counts)

    @cached_property
    def bounded(self) -> tuple[int, ...]:
        """The layers whose bounds matter: the inputs of nonlinear operations."""
        nonlinear = [x for x in self.layers if x.operation is not None and not isinstance(x.operation, Affine)]
        return tuple(sorted({x.inputs[0] for x in nonlinear}))
