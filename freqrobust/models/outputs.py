"""The logits in what a model returns: a tensor, a tuple, a dictionary, or an output of Hugging Face or torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from freqrobust.core.errors import ModelError

if TYPE_CHECKING:
    from typing import TypeGuard

_EXPECTED = (
    "expected a tensor of logits (N, K), an output with logits, a dictionary with 'logits' or with one tensor (N, K), "
    "or a tuple that begins with the logits"
)


def logits_of(output: Any) -> torch.Tensor:
    """The logits in an output of a model, with their gradients; a tensor is returned as it is.

    =========================================== ======================================================================
    output                                      logits
    =========================================== ======================================================================
    attribute ``logits``                        that tensor (Hugging Face, torchvision's GoogLeNet and Inception)
    dictionary                                  its entry ``logits``, or its only tensor, if that is ``(N, K)``
    tuple or list                               its first entry, if that is ``(N, K)``; all others of two dimensions
                                                have to have as many classes, as auxiliary logits have
    =========================================== ======================================================================

    Raises:
        ModelError: the output is something else, or which of its tensors are the logits is not clear.
    """
    if _is_tensor(output):
        return output
    if isinstance(output, Mapping):
        return _in_mapping(output)
    named = getattr(output, "logits", None)
    if _is_tensor(named):
        return named
    if isinstance(output, tuple | list):
        return _in_sequence(output)
    raise ModelError(f"the model returned a {type(output).__name__}; {_EXPECTED}")


def _in_mapping(output: Mapping[Any, Any]) -> torch.Tensor:
    tensors = {str(key): value for key, value in output.items() if _is_tensor(value)}
    if "logits" in tensors:
        return tensors["logits"]
    if len(tensors) == 1 and all(value.dim() == 2 for value in tensors.values()):
        return next(iter(tensors.values()))
    entries = ", ".join(f"{key!r} {_shown(value)}" for key, value in output.items()) or "nothing"
    raise ModelError(f"the model returned a {type(output).__name__} with {entries}; {_EXPECTED}")


def _in_sequence(output: tuple[Any, ...] | list[Any]) -> torch.Tensor:
    first = output[0] if output else None
    others = [value for value in output[1:] if _is_tensor(value) and value.dim() == 2]
    if _is_tensor(first) and first.dim() == 2 and all(other.shape[1] == first.shape[1] for other in others):
        return first
    entries = ", ".join(map(_shown, output)) or "nothing"
    raise ModelError(f"the model returned a {type(output).__name__} of {entries}; {_EXPECTED}")


def _is_tensor(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether it is a tensor, or stands for one while torch.fx records a model."""
    return isinstance(value, torch.Tensor | fx.Proxy)


def _shown(value: Any) -> str:
    return f"{tuple(value.shape)}" if _is_tensor(value) else type(value).__name__


class LogitsOnly(nn.Module):
    """A network that returns something else than a tensor, reduced to its logits.

    Args:
        network: images to an output that :func:`logits_of` understands.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return logits_of(self.network(images))


def returning_logits(network: nn.Module, output: Any) -> nn.Module:
    """The network itself where its output is a tensor, and otherwise the network reduced to its logits."""
    return network if isinstance(output, torch.Tensor) else LogitsOnly(network)
