"""The blocks of samples in which a cell is measured: each is journalled, and may be measured by another process."""

from __future__ import annotations

from dataclasses import dataclass

from freqrobust.plugins.base import Attack

#: Samples in a block, by the kind of device; other devices take as many as CUDA.
SAMPLES = {"cpu": 256}
_ACCELERATOR = 2048
#: A larger dataset has larger blocks instead of more than so many.
MOST = 64


@dataclass(frozen=True)
class Block:
    """Consecutive samples of a dataset.

    Attributes:
        start: the first position.
        stop: the position behind the last one.
    """

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"samples {self.start} to {self.stop - 1}"


def block_size(n: int, device_type: str) -> int:
    """Samples in a block: it depends on the data and the kind of device, not on memory or the number of processes."""
    size = SAMPLES.get(device_type, _ACCELERATOR)
    return size * max(1, -(-n // (size * MOST)))


def blocks(n: int, device_type: str, attack: object = None, batch_size: int = 1) -> list[Block]:
    """The blocks in which a plugin is measured.

    Args:
        n: the number of samples.
        device_type: such as ``cpu``.
        attack: the plugin. One that prepares itself on all samples has one block, and the blocks of one whose results
            depend on the batch are whole batches.
        batch_size: images per batch.
    """
    size = block_size(n, device_type)
    if isinstance(attack, Attack):
        if type(attack).prepare is not Attack.prepare:
            size = max(n, 1)
        elif not attack.batch_invariant:
            size = -(-size // batch_size) * batch_size
    return [Block(start, min(start + size, n)) for start in range(0, n, size)]
