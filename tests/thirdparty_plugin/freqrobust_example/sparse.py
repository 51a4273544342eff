"""A regularizer: weights that are zero."""

import torch
from pydantic import Field
from torch import nn

from freqrobust import Regularizer


class Sparse(Regularizer):
    """The sum of the absolute values of all parameters (lasso).  (Tibshirani 1996)"""

    weight: float = Field(0.0001, ge=0, description="weight of the penalty")

    def penalty(self, model: nn.Module) -> torch.Tensor:
        return self.weight * torch.stack([parameter.abs().sum() for parameter in model.parameters()]).sum()
