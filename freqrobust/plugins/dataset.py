"""What plugins may ask of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class ImageDataset(Protocol):
    """Images and labels; :class:`freqrobust.ImageData` is one.

    Attributes:
        labels: int64 ``(N,)``.
        ids: dataset indices of the samples, int64 ``(N,)``.
        classes: number of classes.
        spec: where it came from.
        shape: ``(C, H, W)``.
        sha256: hash of images, labels and ids; of images in files, of the files and the preprocessing.
    """

    @property
    def labels(self) -> torch.Tensor: ...

    @property
    def ids(self) -> torch.Tensor: ...

    @property
    def classes(self) -> int: ...

    @property
    def spec(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def sha256(self) -> str: ...

    def __len__(self) -> int: ...

    def batch(self, index: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (float32 in [0, 1]), labels and ids of the samples at these positions."""

    def image_batches(self, size: int, device: torch.device) -> Iterator[torch.Tensor]:
        """All images, in batches of at most ``size``."""

    def prefetch(self, index: torch.Tensor) -> None:
        """Say which samples are used next: images in files are decoded meanwhile."""
