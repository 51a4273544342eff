"""The processes that train one network together, started by ``torchrun``."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from freqrobust.core.errors import PeerError
from freqrobust.core.launch import launch

#: How long a process waits for the others. Probes are measured by one process while the others wait, so it is long;
#: a process that ends is noticed by torchrun at once.
PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Workers:
    """This process among those that train together.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process is the one that measures probes, writes files and prints."""
        return self.rank == 0

    def share(self, positions: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """The part of a batch that belongs to this process, and whether it counts.

        Together the processes have every sample once. Where there are fewer samples than processes, those without one
        get the first sample, so that all make the same steps, and it does not count.
        """
        part = positions.tensor_split(self.size)[self.rank]
        return (part, True) if len(part) else (positions[:1], False)

    def average_buffers(self, model: nn.Module) -> None:
        """The mean over the processes of the buffers, such as the running statistics of batch norm."""
        if self.size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.size

    def total(self, sums: torch.Tensor, count: int) -> tuple[float, ...]:
        """The sums and the count over all processes."""
        if self.size == 1:  # without float64, which not every device has
            return (*sums.tolist(), float(count))
        values = torch.cat([sums.double(), sums.new_tensor([count], dtype=torch.float64)])
        dist.all_reduce(values)
        return tuple(values.tolist())

    def finite(self, value: torch.Tensor) -> bool:
        """Whether a scalar is finite in all processes, so that all of them stop at the same step if it is not."""
        value = value.detach()
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return bool(torch.isfinite(value))

    def wait(self) -> None:
        """Wait until all processes are here.

        Raises:
            PeerError: one of them has ended.
        """
        if self.size > 1:
            try:
                dist.barrier()
            except RuntimeError as error:
                raise PeerError("another process of this training has ended") from error

    def alone(self, action: Callable[[], object]) -> None:
        """Call ``action`` in the process that writes, while the others wait.

        Raises:
            PeerError: it failed in the process that writes, where what it raised passes unchanged.
        """
        failed = [False]
        try:
            if self.writes:
                action()
        except BaseException:
            failed = [True]
            raise
        finally:
            if self.size > 1:
                dist.broadcast_object_list(failed)
        if failed[0]:
            raise PeerError("the process that writes the files has ended")


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Workers, torch.device]]:
    """The processes that ``torchrun`` started, and the device of this one; one process where it did not start several.

    Args:
        device: the device that was asked for; of several CUDA devices, each process on a machine takes its own.
    """
    together = launch()
    if together is None:
        yield Workers(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", together.local_rank)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        with warnings.catch_warnings():
            # kernels of images with one channel have gradients in another, equivalent layout
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield Workers(dist.get_rank(), dist.get_world_size()), device
    finally:
        gc.collect()  # networks that use the group, so that its threads end here and not while the interpreter does
        dist.destroy_process_group()
