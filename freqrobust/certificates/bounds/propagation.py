"""Bounds of all layers of a network, and of the margins of its logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from freqrobust.certificates.bounds.coefficients import Coefficients, Shape, mirrored
from freqrobust.certificates.bounds.network import Network
from freqrobust.certificates.bounds.operations import Affine, Interval, MaxPool
from freqrobust.certificates.bounds.region import Region
from freqrobust.certificates.bounds.relaxation import MaxPoolLines, Owner, ReLULines, lines, of_owner

#: interval bound propagation; linear bounds only behind interval bounds of the layers (CROWN-IBP); linear bounds of all
Method = Literal["ibp", "crown-ibp", "crown"]
#: Coefficients that are computed together, at most, where more than one row is possible.
MOST_VALUES = 2**22
#: Rows that are computed together, at least, on average.
FEW_ROWS = 32


@dataclass
class Bounds:
    """What is known about a network on the regions of a batch.

    Attributes:
        intervals: of the layers, as far as they were computed.
        relaxations: linear bounds of nonlinear layers; where there is none, the interval of the layer is used.
    """

    network: Network
    region: Region
    intervals: list[Interval] = field(default_factory=list)
    relaxations: dict[int, ReLULines | MaxPoolLines] = field(default_factory=dict)


def lower_bounds(
    bounds: Bounds,
    start: int,
    rows: Coefficients,
    owner: Owner | None,
    both: bool = False,
    relaxations: Mapping[int, ReLULines | MaxPoolLines] | None = None,
) -> torch.Tensor:
    """Lower bounds of ``rows . z`` for the values ``z`` of the layer ``start``, by backward substitution.

    Args:
        bounds: of the layers before.
        start: index of the layer.
        rows: ``(P, ...)``.
        owner: the sample of every row; None where no layer before is nonlinear, for every row and every sample.
        both: of the negative rows as well, which follow.
        relaxations: in place of those of ``bounds``.

    Returns:
        ``(P,)``, or ``(2 P,)`` with ``both``; ``(P, N)`` or ``(2 P, N)`` without an owner.
    """
    used = bounds.relaxations if relaxations is None else relaxations
    live = {start: rows}
    constant = rows.values.new_zeros(len(rows.values))
    for index in range(start, -1, -1):
        if index not in live:
            continue
        operation, inputs = bounds.network.layers[index].operation, bounds.network.layers[index].inputs
        if both and not isinstance(operation, Affine):  # up to here lower and upper bounds have the same coefficients
            both = False
            live = {i: mirrored(c) for i, c in live.items()}
            constant = torch.cat([constant, -constant])
            owner = torch.cat([owner, owner]) if isinstance(owner, torch.Tensor) else owner
        here = live.pop(index)
        if operation is None:
            if owner is None:
                return constant[:, None] + bounds.region.minimum_for_all(here)
            return constant + bounds.region.minimum(here, owner)
        if isinstance(operation, Affine):
            if operation.offset is not None:
                constant = constant + here.dot(operation.offset)
            for source, part in zip(inputs, operation.transpose(here), strict=True):
                live[source] = live[source] + part if source in live else part
            continue
        assert owner is not None
        if index in used:
            part, shift = used[index].lower_bound(here, owner)
            live[inputs[0]] = live[inputs[0]] + part if inputs[0] in live else part
        else:
            low, up = (of_owner(here.window(bound), owner) for bound in bounds.intervals[index])
            shift = (here.values.clamp(min=0) * low + here.values.clamp(max=0) * up).flatten(1).sum(1)
        constant = constant + shift
    return constant


def _unit_rows(index: torch.Tensor, shape: Shape, like: torch.Tensor, tile: int) -> Coefficients:
    """Rows that each select one value; ``index (P, dims)``, inside one tile of a layer ``(C, H, W)``."""
    each = torch.arange(len(index), device=index.device)
    if len(shape) != 3:
        values = like.new_zeros(len(index), *shape)
        values[(each, *index.T)] = 1
        return Coefficients(values)
    top, left = (int(index[0, i]) // tile * tile for i in (1, 2))
    height, width = min(tile, shape[1] - top), min(tile, shape[2] - left)
    values = like.new_zeros(len(index), shape[0], height, width)
    values[each, index[:, 0], index[:, 1] - top, index[:, 2] - left] = 1
    return Coefficients(values, (top, left))


def _selections(mask: torch.Tensor, most: int) -> Iterator[tuple[torch.Tensor, Coefficients]]:
    """Where a mask ``(N, *shape)`` is set: indices ``(P, 1 + dims)``, and the rows that select these values, in parts.

    In layers ``(C, H, W)`` a part is in one tile, whose values depend on a small window of the layers before it.
    """
    shape = tuple(mask.shape[1:])
    index = mask.nonzero()
    tile, like = 1, torch.empty(0, dtype=torch.float64, device=mask.device)
    parts = [index]
    if len(shape) == 3 and len(index):
        while tile < max(shape[1:]) and len(index) * tile**2 < FEW_ROWS * shape[1] * shape[2]:
            tile *= 2
        number = index[:, 2] // tile * shape[2] + index[:, 3] // tile
        order = number.argsort(stable=True)
        sizes = number[order].unique_consecutive(return_counts=True)[1]
        parts = list(index[order].split(sizes.tolist()))
    for part in parts:
        for piece in part.split(most):
            if len(piece):
                yield piece, _unit_rows(piece[:, 1:], shape, like, tile)


def _tightened(bounds: Bounds, index: int, interval: Interval, mask: torch.Tensor) -> Interval:
    """The intersection of ``interval`` with linear bounds of the values where ``mask`` is set."""
    lower, upper = interval.lower.clone(), interval.upper.clone()
    most = max(1, MOST_VALUES // bounds.network.largest)
    if bounds.network.mixing[index] < float("inf"):  # the same rows for all samples
        for where, rows in _selections(mask.any(dim=0, keepdim=True), most):
            low, up = lower_bounds(bounds, index, rows, None, both=True).chunk(2)
            at = tuple(where.T[1:])
            lower[(slice(None), *at)], upper[(slice(None), *at)] = low.T, -up.T
    else:
        for where, rows in _selections(mask, most):
            owner: Owner = where[:, 0] if len(mask) > 1 else 0
            low, up = lower_bounds(bounds, index, rows, owner, both=True).chunk(2)
            at = tuple(where.T)
            lower[at], upper[at] = low, -up
    return interval & Interval(lower, upper)


def _wanted(bounds: Bounds, index: int, interval: Interval) -> torch.Tensor:
    """The values of a layer whose tighter bounds would improve the relaxation of the nonlinear layers behind it."""
    layers = bounds.network.layers
    users = [i for i, layer in enumerate(layers) if index in layer.inputs]
    if any(isinstance(layers[i].operation, MaxPool) for i in users):
        return interval.lower < interval.upper
    pooled = any(isinstance(layer.operation, MaxPool) and set(users) & set(layer.inputs) for layer in layers)
    unstable = (interval.lower < 0) & (interval.upper > 0)
    return interval.upper > 0 if pooled else unstable


def layer_bounds(network: Network, region: Region, method: Method) -> Bounds:
    """Intervals of all layers, and the linear bounds of the nonlinear ones.

    Interval bound propagation maps intervals through one layer after the other (Gowal et al. 2018, sec. 3). It is exact
    for at most one layer that mixes values; behind several, and for L2, the minimum of the linear function is computed
    instead. With ``crown`` the inputs of nonlinear layers have linear bounds as well (Zhang et al. 2018), intersected
    with the intervals, so that no interval is larger than without.
    """
    bounds = Bounds(network, region)
    for index, layer in enumerate(network.layers):
        if layer.operation is None:
            bounds.intervals.append(region.box)
            continue
        interval = layer.operation.interval([bounds.intervals[i] for i in layer.inputs])
        if index in network.bounded and isinstance(layer.operation, Affine):
            mixing = network.mixing[index]
            linear = mixing < float("inf")
            if (linear and mixing > (region.norm == "linf")) or (not linear and method == "crown"):
                interval = _tightened(bounds, index, interval, _wanted(bounds, index, interval))
        bounds.intervals.append(interval)
        if method != "ibp" and not isinstance(layer.operation, Affine):
            bounds.relaxations[index] = lines(layer.operation, bounds.intervals[layer.inputs[0]])
    return bounds


def margins(bounds: Bounds, labels: torch.Tensor) -> torch.Tensor:
    """Lower bounds of ``z_y - z_j`` for the labels ``y`` and all other classes ``j``, ``(N, K - 1)``.

    The affine layers at the end are merged with the differences. Linear bounds are never below those by intervals.
    """
    last = len(bounds.network.layers) - 1
    (classes,) = bounds.network.layers[last].shape
    like = bounds.region.images
    eye = torch.eye(classes, dtype=like.dtype, device=like.device)
    others = (torch.arange(classes, device=labels.device) != labels[:, None]).nonzero()
    owner = others[:, 0]
    rows = Coefficients(eye[labels[owner]] - eye[others[:, 1]])
    found = []
    for part in torch.arange(len(owner), device=labels.device).split(max(1, MOST_VALUES // bounds.network.largest)):
        own = Coefficients(rows.values[part])
        value = lower_bounds(bounds, last, own, owner[part], relaxations={})
        if bounds.relaxations:
            value = torch.maximum(value, lower_bounds(bounds, last, own, owner[part]))
        found.append(value)
    return torch.cat(found).view(len(labels), classes - 1) if found else like.new_zeros(len(labels), classes - 1)
