"""Norms and projections of image perturbations ``(N, C, H, W)``."""

from __future__ import annotations

import torch

from freqrobust.plugin import Norm, StepNorm

#: How far a returned example may lie outside of its declared budget, relative to budgets above 1.
TOLERANCE = 1e-6


def allowance(eps: float) -> float:
    """The largest measured norm that still counts as inside of the budget ``eps``."""
    return eps + TOLERANCE * max(1.0, eps)


def per_sample(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``(N,)`` values shaped to broadcast over ``like (N, ...)``."""
    return values.view(-1, *([1] * (like.dim() - 1)))


def norms(delta: torch.Tensor, norm: Norm) -> torch.Tensor:
    """The norm of every sample's perturbation, ``(N,)``; L2 is summed in float64."""
    flat = delta.flatten(1)
    if flat.shape[0] == 0:
        return delta.new_zeros(0)
    if norm == "l1":
        return flat.abs().sum(dim=1, dtype=_precise(flat)).float()
    return flat.abs().amax(dim=1) if norm == "linf" else length(flat).float()


def _precise(values: torch.Tensor) -> torch.dtype:
    """float64 where the device has it: sums of many small numbers would lose digits in float32."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def length(delta: torch.Tensor) -> torch.Tensor:
    """Euclidean length of every sample, ``(N,)``, in float64 where the device has it."""
    found: torch.Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=_precise(delta))
    return found


def steepest(gradient: torch.Tensor, norm: StepNorm) -> torch.Tensor:
    """The direction of length 1 (in ``norm``) along which a linear function of this gradient grows most."""
    if norm == "linf":
        return gradient.sign()
    # scaled first: squares of small gradients would underflow
    scaled = gradient / per_sample(gradient.flatten(1).abs().amax(dim=1).clamp_min(1e-38), gradient)
    return scaled / per_sample(scaled.flatten(1).norm(dim=1).clamp_min(1e-12), scaled)


def project(images: torch.Tensor, origin: torch.Tensor, norm: StepNorm, eps: float) -> torch.Tensor:
    """The image in [0, 1] and in the eps-ball around ``origin`` that a step lands on.

    For Linf this is the exact projection. For L2 the perturbation is scaled into the ball and then clipped
    to [0, 1]; clipping only shortens it, as the origin lies in [0, 1].
    """
    if norm == "linf":
        return torch.minimum(torch.maximum(images, origin - eps), origin + eps).clamp_(0, 1)
    delta = images - origin
    scale = (eps / length(delta).clamp_min(1e-12)).clamp_max(1.0)
    delta = delta * per_sample(scale.to(delta.dtype), delta)
    return (origin + delta).clamp_(0, 1)
