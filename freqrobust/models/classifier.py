"""A network with its normalisation as the first layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from freqrobust.data.input_config import InputConfig
from freqrobust.models.normalization import NormalizationChoice
from freqrobust.models.outputs import logits_of
from freqrobust.results.records import PublishedRecord


class Classifier(nn.Module):
    """A network with its normalisation as the first layer, and how both were determined."""

    def __init__(
        self, network: nn.Module, normalization: NormalizationChoice, spec: str, arch: str, sha256: str | None
    ) -> None:
        super().__init__()
        self.normalize = normalization.layer()
        self.network = network
        self.normalization = normalization
        self.spec = spec
        self.arch = arch
        self.sha256 = sha256
        self.note: str | None = None
        self.published: PublishedRecord | None = None
        self.input: InputConfig | None = None
        self.labels: tuple[str, ...] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return logits_of(self.network(self.normalize(x)))


@contextmanager
def frozen(model: nn.Module) -> Iterator[list[str]]:
    """Eval mode and frozen parameters inside, both as before afterwards.

    Yields:
        Names of layers that stay in train mode all the same.
    """
    modes = [(module, module.training) for module in model.modules()]
    grads = [(p, p.requires_grad) for p in model.parameters()]
    try:
        set_eval(model)
        for parameter, _ in grads:
            parameter.requires_grad_(False)
        yield [
            name or type(module).__name__
            for name, module in model.named_modules()
            if module.training and _mode_matters(module)
        ]
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, needed in grads:
            parameter.requires_grad_(needed)


def set_eval(model: nn.Module) -> None:
    """Eval mode, where the model has modes: torch.export programs do not."""
    try:
        model.eval()
    except NotImplementedError:
        for module in model.modules():
            module.training = False


def _mode_matters(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd) or not list(
        module.children()
    )
