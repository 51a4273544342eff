"""Optimizers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.plugins.training import Optimizer

if TYPE_CHECKING:
    import torch
    from torch import nn


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    lr: float = Field(0.1, gt=0, description="highest learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum")
    nesterov: bool = Field(False, description="Nesterov momentum")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on the weights")

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, nesterov=nesterov, weight_decay=self.weight_decay
        )


class Adam(Optimizer):
    """Adam.  (Kingma and Ba 2015)"""

    lr: float = Field(0.001, gt=0, description="highest learning rate")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on the weights")

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)
