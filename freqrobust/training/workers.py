"""The processes that train one network together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


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
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def share(self, positions: torch.Tensor) -> torch.Tensor:
        """The part of a batch that belongs to this process; together the processes have every sample once."""
        return positions.tensor_split(self.size)[self.rank]

    def average_buffers(self, model: nn.Module) -> None:
        """The mean over the processes of the buffers, such as the running statistics of batch norm."""
        if self.size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.size

    def total(self, sums: torch.Tensor, count: int) -> tuple[float, ...]:
        """The sums and the count over all processes."""
        values = torch.cat([sums.double(), sums.new_tensor([count], dtype=torch.float64)])
        if self.size > 1:
            dist.all_reduce(values)
        return tuple(values.tolist())
