"""The linear regions of a ReLU network that a straight line crosses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

#: Breakpoints that are closer than this, as shares of the segment, count once.
TOLERANCE = 1e-12
#: Points of a segment that are evaluated together.
CHUNK = 1024

_RELUS: tuple[Callable[..., Any], ...] = (
    F.relu,
    F.relu_,
    torch.relu,
    torch.relu_,
    torch.Tensor.relu,
    torch.Tensor.relu_,
)


class _ReluInputs(TorchFunctionMode):
    """Collects the inputs of all ReLUs, flattened to ``(N, D)``, in the order in which they are evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _RELUS:
            self.inputs.append(args[0].detach().flatten(1).clone())
        return func(*args, **(kwargs or {}))


def relu_inputs(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The inputs of all ReLUs for images ``(N, ...)``, ``(N, D)`` each, in the order in which they are evaluated."""
    mode = _ReluInputs()
    with torch.no_grad(), mode:
        network(images)
    return mode.inputs


def crossings(network: nn.Module, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Where the segment from ``start`` to ``end`` leaves a linear region, as sorted shares of its length, float64.

    Between two neighbouring breakpoints of the ReLUs evaluated so far, the input of the next ReLU is affine in the position
    on the segment, so that its zeros follow from its values at both breakpoints. The breakpoints of one ReLU after the
    other are therefore exact up to rounding. A region is a set of images with the same signs of all ReLU inputs; the
    segment crosses ``len(crossings) + 1`` of them.

    Args:
        network: a copy is made in float64. Piecewise linear: every nonlinearity is a ReLU, and batch norm is in eval mode.
        start: ``(C, H, W)`` or ``(D,)``.
        end: of the same shape.

    Raises:
        ValueError: the network has no ReLU.
    """
    return _crossings(_exact(network), start, end)


def regions_crossed(network: nn.Module, starts: torch.Tensor, ends: torch.Tensor) -> list[int]:
    """Number of linear regions on each segment from ``starts[i]`` to ``ends[i]``; see :func:`crossings`."""
    exact = _exact(network)
    return [len(_crossings(exact, start, end)) + 1 for start, end in zip(starts, ends, strict=True)]


def _exact(network: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(network).double().cpu().eval()


def _crossings(exact: nn.Module, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    start, end = start.detach().cpu().double(), end.detach().cpu().double()
    points = torch.tensor([0.0, 1.0], dtype=torch.float64)
    depth = number = 0
    while number == 0 or depth < number:
        values = []
        for chunk in points.split(CHUNK):
            shares = chunk.view(-1, *[1] * start.dim())
            inputs = relu_inputs(exact, (1 - shares) * start + shares * end)
            number = len(inputs)
            if number == 0:
                raise ValueError("the network has no ReLU")
            values.append(inputs[depth])
        found = _zeros(points, torch.cat(values))
        points = torch.cat([points, found]).sort().values
        keep = torch.ones(len(points), dtype=torch.bool)
        keep[1:] = points.diff() > TOLERANCE
        points = points[keep]
        depth += 1
    return points[(points > TOLERANCE) & (points < 1 - TOLERANCE)]


def _zeros(points: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Where functions that are affine between points ``(m,)`` change their sign; ``values (m, D)`` at the points."""
    before, after = values[:-1], values[1:]
    interval, unit = ((before > 0) != (after > 0)).nonzero(as_tuple=True)
    first, second = before[interval, unit], after[interval, unit]
    share = first / (first - second)
    return points[interval] + share * (points[interval + 1] - points[interval])
