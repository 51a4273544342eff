"""Threads of the processor for small networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

#: Images of fewer pixels than this on a side, and networks of fewer parameters, are too small for several threads.
SIDE, PARAMETERS = 24, 1_000_000


@contextmanager
def suitable_threads(model: nn.Module, shape: Sequence[int], device: torch.device) -> Iterator[None]:
    """One thread of the processor inside, where the layers are so small that several are slower; as before afterwards.

    On a processor that other programs use as well, several threads can take ten times as long, as each layer waits for the
    slowest of them.

    Args:
        model: the network that is trained or evaluated.
        shape: of the images, ``(C, H, W)``.
        device: where the network runs; nothing changes on others than the CPU.
    """
    small = min(shape[-2:]) < SIDE and sum(parameter.numel() for parameter in model.parameters()) < PARAMETERS
    if not small or device.type != "cpu":
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
