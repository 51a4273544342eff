"""Optimizers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from freqrobust.plugins.training import Optimizer

if TYPE_CHECKING:
    import torch
    from torch import nn


def groups(parameters: Iterable[nn.Parameter], weight_decay: float, all_parameters: bool) -> list[dict[str, Any]]:
    """Parameter groups with the weight decay, and without it for biases and normalisation layers unless it is for all.

    Those are the parameters with at most one dimension.
    """
    parameters = list(parameters)
    if all_parameters or weight_decay == 0:
        return [{"params": parameters, "weight_decay": weight_decay}]
    split = [[p for p in parameters if (p.ndim > 1) == decays] for decays in (True, False)]
    return [
        {"params": part, "weight_decay": decay} for part, decay in zip(split, (weight_decay, 0.0), strict=True) if part
    ]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.  (Sutskever et al. 2013)"""

    lr: float = Field(0.1, gt=0, description="highest learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum")
    nesterov: bool = Field(False, description="Nesterov momentum")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on the weights")
    decay_all: bool = Field(True, description="the weight decay is also for biases and normalisation layers")

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(
            groups(parameters, self.weight_decay, self.decay_all),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=nesterov,
        )


class Adam(Optimizer):
    """Adam.  (Kingma and Ba 2015)"""

    lr: float = Field(0.001, gt=0, description="highest learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of the gradients")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean of their squares")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on the weights")
    decay_all: bool = Field(True, description="the weight decay is also for biases and normalisation layers")

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.Adam(
            groups(parameters, self.weight_decay, self.decay_all), lr=self.lr, betas=(self.beta1, self.beta2)
        )


class AdamW(Optimizer):
    """Adam with decoupled weight decay.  (Loshchilov and Hutter 2019, algorithm 2)"""

    lr: float = Field(0.001, gt=0, description="highest learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of the gradients")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean of their squares")
    weight_decay: float = Field(
        0.01, ge=0, description="share of the weights that is subtracted, times the learning rate"
    )
    decay_all: bool = Field(True, description="the weight decay is also for biases and normalisation layers")

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(
            groups(parameters, self.weight_decay, self.decay_all), lr=self.lr, betas=(self.beta1, self.beta2)
        )
