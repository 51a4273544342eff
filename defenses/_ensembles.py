"""Models that predict from several changed copies of an image."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from freqrobust.core.errors import PluginError
from freqrobust.numerics.noise import scoped_normal
from freqrobust.numerics.norms import per_sample


class NoisyCopies(nn.Module):
    """Votes (or log mean softmax) of a model over copies of the image with Gaussian noise.

    Args:
        model: images to logits ``(N, K)``.
        sigma: standard deviation of the noise, in pixels.
        copies: number of copies.
        soft: log of the mean softmax instead of the number of votes; differentiable.
    """

    def __init__(self, model: nn.Module, sigma: float, copies: int, soft: bool) -> None:
        super().__init__()
        self.model = model
        self.sigma = sigma
        self.copies = copies
        self.soft = soft

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor | None = None
        for _ in range(self.copies):
            logits = self.model(x + self.sigma * scoped_normal(x))
            share = logits.softmax(dim=1) if self.soft else F.one_hot(logits.argmax(dim=1), logits.shape[1]).float()
            total = share if total is None else total + share
        assert total is not None
        return (total / self.copies).clamp_min(1e-12).log() if self.soft else total


class PostAverage(nn.Module):
    """Log of the mean softmax over the image and its neighbours along K unit directions.

    The neighbours lie at ``+-r/3``, ``+-2r/3`` and ``+-r`` along each direction (Lin et al. 2019).

    Args:
        model: images to logits ``(N, K)``.
        sampling: ``random`` directions, drawn anew at each prediction, or ``approx``: the input gradients of the
            units of the last linear layer that are closest to zero relative to their weights, which point to the
            nearest of those units' hyperplanes.
        directions: number of directions; with ``approx`` at most the number of units of the layer.
        radius: the L2 distance r.
    """

    def __init__(self, model: nn.Module, sampling: Literal["random", "approx"], directions: int, radius: float) -> None:
        super().__init__()
        self.model = model
        self.sampling = sampling
        self.directions = directions
        self.radius = radius

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        approx = self.sampling == "approx"
        directions = self._nearest(x) if approx else [scoped_normal(x) for _ in range(self.directions)]
        total = self.model(x).softmax(dim=1)
        for direction in directions:
            unit = direction / per_sample(direction.flatten(1).norm(dim=1).clamp_min(1e-12), direction)
            for share in (1 / 3, 2 / 3, 1.0):
                for sign in (1, -1):
                    total = total + self.model(x + sign * share * self.radius * unit).softmax(dim=1)
        mean: torch.Tensor = total / (1 + 6 * len(directions))
        return mean.clamp_min(1e-12).log()

    def _nearest(self, x: torch.Tensor) -> list[torch.Tensor]:
        linear = [m for m in self.model.modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise PluginError("post-averaging: sampling=approx needs a model with a linear layer; use sampling=random")
        layer, outputs = linear[-1], []
        handle = layer.register_forward_hook(lambda module, args, output: outputs.append(output))
        try:
            with torch.enable_grad():
                point = x.detach().requires_grad_(True)
                self.model(point)
                units = outputs[-1]
                if units.dim() != 2 or len(units) != len(x):
                    raise PluginError("post-averaging: sampling=approx needs a linear layer with one row per image")
                weights = layer.weight.detach().norm(dim=1).clamp_min(1e-12)
                k = min(self.directions, units.shape[1])
                order = (units.detach().abs() / weights).argsort(dim=1)[:, :k]
                picked = units.gather(1, order)
                return [
                    torch.autograd.grad(picked[:, i].sum(), point, retain_graph=i + 1 < k)[0].detach() for i in range(k)
                ]
        finally:
            handle.remove()
