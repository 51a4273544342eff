"""Coefficients of linear functions of a layer, stored only where they can differ from zero.

A row is one linear function of the values of a layer. A neuron of a convolutional layer depends on a small window of the
layers before it, and all neurons at one position depend on the same window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

Shape = tuple[int, ...]


class Coefficients(NamedTuple):
    """Rows of coefficients.

    Attributes:
        values: ``(P, C, h, w)`` for layers of shape ``(C, H, W)``, the coefficients of a window; ``(P, *shape)`` for all
            other layers.
        origin: row and column of the upper left pixel of the window; ``(0, 0)`` for layers of another shape.
    """

    values: torch.Tensor
    origin: tuple[int, int] = (0, 0)

    def window(self, layer: torch.Tensor) -> torch.Tensor:
        """The part of ``(N, *shape)`` that the coefficients belong to."""
        if layer.dim() != 4:
            return layer
        (top, left), (height, width) = self.origin, self.values.shape[2:]
        return layer[:, :, top : top + height, left : left + width]

    def dot(self, layer: torch.Tensor) -> torch.Tensor:
        """The sum of coefficients times one value ``(1, *shape)``; ``(P,)``."""
        return self.values.flatten(1) @ self.window(layer).reshape(-1)

    def times(self, factor: torch.Tensor) -> Coefficients:
        """Products with factors ``(1 or P, *window)``."""
        return Coefficients(self.values * factor, self.origin)

    def dense(self, shape: Shape) -> torch.Tensor:
        """The coefficients of the whole layer, ``(P, *shape)``."""
        if len(shape) != 3:
            return self.values
        return self._widen(0, 0, shape[1], shape[2])

    def _widen(self, top: int, left: int, bottom: int, right: int) -> torch.Tensor:
        height, width = self.values.shape[2:]
        pad = (
            self.origin[1] - left,
            right - self.origin[1] - width,
            self.origin[0] - top,
            bottom - self.origin[0] - height,
        )
        return F.pad(self.values, pad) if any(pad) else self.values

    def __add__(self, other: object) -> Coefficients:
        if not isinstance(other, Coefficients):
            return NotImplemented
        if self.values.dim() != 4 or (self.origin == other.origin and self.values.shape == other.values.shape):
            return Coefficients(self.values + other.values, self.origin)
        both = (self, other)
        top, left = (min(c.origin[i] for c in both) for i in (0, 1))
        bottom, right = (max(c.origin[i] + c.values.shape[2 + i] for c in both) for i in (0, 1))
        wide = [c._widen(top, left, bottom, right) for c in both]
        return Coefficients(wide[0] + wide[1], (top, left))


def inside(values: torch.Tensor, top: int, left: int, shape: Shape) -> Coefficients:
    """A window of a layer ``(C, H, W)`` without the rows and columns beyond its edges, which are padding."""
    height, width = values.shape[2:]
    first, last = max(0, -top), min(height, shape[1] - top)
    start, stop = max(0, -left), min(width, shape[2] - left)
    if last <= first or stop <= start:  # the window is in the padding
        return Coefficients(values.new_zeros(len(values), values.shape[1], 1, 1))
    return Coefficients(values[:, :, first:last, start:stop], (top + first, left + start))


def mirrored(coefficients: Coefficients) -> Coefficients:
    """The rows, then the rows with opposite signs."""
    return Coefficients(torch.cat([coefficients.values, -coefficients.values]), coefficients.origin)
