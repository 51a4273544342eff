"""Exact fp32 arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch

#: Operations whose rounding PyTorch lets programs choose one by one, since version 2.9; names in ``torch.backends``.
_CHOSEN = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


@contextmanager
def full_precision() -> Iterator[None]:
    """Exact fp32 arithmetic inside, and gradients even where the caller's mode has none.

    GPUs would round to TF32, and processors to bf16 where the caller allows it. PyTorch has two interfaces for that, and
    raises where one reads what was set with the other: inside, both say the same.
    """
    matmul, convolutions = _read(torch.get_float32_matmul_precision), _read(lambda: torch.backends.cudnn.allow_tf32)
    choices = [(choice, choice.fp32_precision) for choice in _choices()]
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        for choice, _ in choices:
            if choice.fp32_precision not in ("ieee", "none"):
                choice.fp32_precision = "ieee"
        with torch.inference_mode(False):
            yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        for choice, before in choices:
            choice.fp32_precision = "none"  # inherited, as it was unless that is something else
            if choice.fp32_precision != before:
                choice.fp32_precision = before


def _choices() -> list[Any]:
    if not hasattr(torch.backends, "fp32_precision"):
        return []
    return [attrgetter(name)(torch.backends) for name in _CHOSEN]


def _read(setting: Callable[[], Any]) -> Any:
    """A setting of the older interface; None where the other one was used."""
    try:
        return setting()
    except RuntimeError:
        return None
