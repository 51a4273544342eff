"""A data source and a model source."""

from __future__ import annotations

import torch
from torch import nn

from freqrobust.data.source_table import DataRequest, DataSource
from freqrobust.models.source_table import LoadedModel, ModelRequest, ModelSource


def _stripes(request: DataRequest) -> tuple[torch.Tensor, torch.Tensor]:
    """Images 1 x 8 x 8 with horizontal (class 0) or vertical (class 1) stripes."""
    n = int(request.argument)
    horizontal = (torch.arange(8) % 2).float()[:, None].expand(8, 8)
    labels = torch.arange(n) % 2
    images = torch.stack([horizontal.T if label else horizontal for label in labels.tolist()])
    return images[:, None], labels


def _linear(request: ModelRequest) -> LoadedModel:
    torch.manual_seed(0)
    return LoadedModel(nn.Sequential(nn.Flatten(), nn.Linear(64, int(request.argument))), "linear")


STRIPES = DataSource("example_stripes:N", "N images of stripes, 2 classes", _stripes)
LINEAR = ModelSource("example_linear:CLASSES", "an untrained linear classifier of 8 x 8 images", _linear)
