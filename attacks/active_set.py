"""The samples of a batch that an attack still works on, and when it looks which of them leave."""

from __future__ import annotations

import torch

from freqrobust.numerics.norms import per_sample

#: Steps from one look to the next on an accelerator. Fewer stall it more often, more carry samples that are done for longer:
#: with 3, PGD, APGD and FMN make 1 to 5 % more passes than with 1 (docs/benchmarks.md), with 10 up to 40 %.
EVERY = 3


def steps_between(device: torch.device) -> int:
    """After how many steps an attack looks which samples are done: every one on the CPU, where looking is free."""
    return 1 if device.type == "cpu" else EVERY


class ActiveSet:
    """The samples that are still there, of a batch of ``count``.

    To look which samples are done the host has to wait for the device, so it does that in some steps only
    (:func:`steps_between`). Samples that are done in between are carried along; what was recorded of them stays, so that
    results do not depend on when they leave.

    Args:
        count: samples of the batch.
        device: where they are.
        every: steps from one look to the next, if not as many as the device suggests.

    Attributes:
        rows: the positions in the batch of those that are still there, int64 ``(n,)``.
    """

    def __init__(self, count: int, device: torch.device, every: int | None = None) -> None:
        self.rows = torch.arange(count, device=device)
        self._every, self._steps = every or steps_between(device), 0
        # where every step looks, nobody that is done is still there
        self._done = torch.zeros(count, dtype=torch.bool, device=device) if self._every > 1 else None

    def running(self, which: torch.Tensor) -> torch.Tensor:
        """Those of ``which (n,)`` that were not done before this step, ``(n,)``."""
        return which if self._done is None else which & ~self._done

    def record(self, result: torch.Tensor, which: torch.Tensor, x: torch.Tensor) -> None:
        """Write the images ``x (n, ...)`` of those of ``which (n,)`` that were not done before to ``result (count, ...)``."""
        if self._done is None:
            chosen = which.nonzero()[:, 0]
            if len(chosen):
                result[self.rows[chosen]] = x[chosen]
        else:
            result[self.rows] = torch.where(per_sample(self.running(which), x), x, result[self.rows])

    def leave(self, done: torch.Tensor) -> torch.Tensor | None:
        """Take note of the samples that are done after this step, ``(n,)``; to be called once a step.

        Returns:
            The positions, among those that were there, of the samples that stay, if some leave now; None if none does.
        """
        if self._done is not None:
            self._done = done = done | self._done
        self._steps += 1
        if self._steps % self._every:
            return None
        keep = (~done).nonzero()[:, 0]
        if len(keep) == len(self.rows):
            return None
        self.rows = self.rows[keep]
        if self._done is not None:
            self._done = self._done[keep]
        return keep

    def finish(self, result: torch.Tensor, x: torch.Tensor) -> None:
        """Write the images ``x (n, ...)`` of the samples that are not done to ``result (count, ...)``."""
        if self._done is None:
            result[self.rows] = x
        else:
            self.record(result, torch.ones_like(self._done), x)
