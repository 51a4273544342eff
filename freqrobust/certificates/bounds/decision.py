"""Which samples of a batch are certified by bounds of their margins."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from freqrobust.certificates.bounds.lowering import network
from freqrobust.certificates.bounds.network import Network
from freqrobust.certificates.bounds.operations import Interval
from freqrobust.certificates.bounds.propagation import Method, layer_bounds, margins
from freqrobust.certificates.bounds.region import BoundNorm, Region
from freqrobust.core.errors import SpecError
from freqrobust.numerics.threat import allowance

#: A margin has to exceed this share of one plus the largest absolute logit. The float32 logits of CIFAR-10 ResNets with 20
#: and 32 layers, and of a small network, were measured to differ from those in float64 by at most a share of 9e-7.
MARGIN = 1e-5
#: How often the difference of the logits of a sample in the model's precision and in float64 a margin has to exceed.
DIFFERENCES = 10
#: Logits that differ by a larger share than this are not those of the same function.
DISAGREEMENT = 1e-3
#: Values of all layers of a batch together, at most, where more than one sample is possible.
MOST_VALUES = 2**23


def certify(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, norm: BoundNorm, eps: float, methods: Sequence[Method]
) -> torch.Tensor:
    """Whether every image of the eps-ball within [0, 1] is proved to have the label as its largest logit; bool ``(N,)``.

    Args:
        model: in eval mode, images ``(N, C, H, W)`` to logits ``(N, K)``.
        images: in [0, 1].
        labels: int64 ``(N,)``.
        norm: of the ball.
        eps: its radius, to which the rounding that examples are allowed is added (:func:`allowance`).
        methods: cheap ones first; each is used for the samples that those before it did not certify.

    Raises:
        SpecError: the model has an operation without bounds, or the traced network has other logits than the model.
    """
    if len(images) == 0:
        return torch.zeros(0, dtype=torch.bool, device=images.device)
    device = torch.device("cpu") if images.device.type == "mps" else images.device  # which has no float64
    with torch.inference_mode(False), torch.no_grad():
        certified = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        given = model(images.clone()).to(device).double()
        exact, where = images.to(device).double(), labels.to(device)
        layers = network(copy.deepcopy(model).to(device).double(), exact[[0, -1]])
        size = max(1, MOST_VALUES // layers.total)
        for part in torch.arange(len(exact), device=device).split(size):
            least = _least_margins(layers, exact[part], where[part], given[part], model)
            left = part[least < _clean_margins(given[part], where[part])]
            for method in methods:
                if len(left):
                    region = Region(exact[left], allowance(eps), norm)
                    bounds = margins(layer_bounds(layers, region, method), where[left]).amin(dim=1)
                    proved = bounds > least[torch.isin(part, left)]
                    certified[left[proved].to(certified.device)] = True
                    left = left[~proved]
    return certified


def _clean_margins(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    own = logits.gather(1, labels[:, None])
    return (own - logits.scatter(1, labels[:, None], -torch.inf)).amin(dim=1)


def _least_margins(
    layers: Network, images: torch.Tensor, labels: torch.Tensor, given: torch.Tensor, model: nn.Module
) -> torch.Tensor:
    """The margin ``(N,)`` that covers the rounding of the model's own logits ``given``.

    Raises:
        SpecError: the logits differ by more than rounding.
    """
    logits = _logits(layers, images)
    scale = 1 + logits.abs().amax(dim=1)
    difference = (logits - given).abs().amax(dim=1)
    if not bool((difference <= DISAGREEMENT * scale).all()):
        worst = float((difference / scale).nan_to_num(torch.inf).max())
        raise SpecError(
            f"no bounds for the model ({type(model).__name__}): the operations that torch.fx recorded have other logits than "
            f"the model (relative difference {worst:.1e}, expected at most {DISAGREEMENT:.0e}); a forward pass that draws "
            "random numbers or changes tensors in place can be the reason"
        )
    return torch.maximum(MARGIN * scale, DIFFERENCES * difference)


def _logits(layers: Network, images: torch.Tensor) -> torch.Tensor:
    """The logits of the recorded operations."""
    values: list[Interval] = []
    for layer in layers.layers:
        inputs = [values[i] for i in layer.inputs]
        values.append(layer.operation.interval(inputs) if layer.operation else Interval(images, images))
    return values[-1].lower
