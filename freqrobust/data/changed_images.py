"""Images that a function changes: at once where they are in memory, and otherwise whenever they are used."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

import torch

from freqrobust.data.arrays import check_memory, in_bytes
from freqrobust.data.dataset import ImageData, portion
from freqrobust.data.lazy_images import LazyImages
from freqrobust.data.pixel_cache import further_memory

#: From a dataset and positions to images ``(N, C, H, W)``. An image must not depend on which others are asked for with it.
Change = Callable[[ImageData, torch.Tensor], torch.Tensor]
#: Images that are changed together where all of them are wanted.
BATCH = 500


def changed(data: ImageData, change: Change, name: str, about: str = "", dtype: torch.dtype | None = None) -> ImageData:
    """The data with changed images of the same shape.

    Images in memory are changed now. Others are changed whenever they are used, and kept where the decoded ones stay in
    memory and there is room for both.

    Args:
        data: the data.
        change: makes the images.
        name: is added to the spec of the data.
        about: with the name, equal for equal changes; for the hash of images that are not in memory.
        dtype: of the changed images; by default that of the images.
    """
    dtype = data.images.dtype if dtype is None else dtype
    if isinstance(data.images, LazyImages):
        images: torch.Tensor | LazyImages = ChangedImages(data, change, f"{name} {about}", dtype)
    else:
        parts = [change(data, chunk) for chunk in torch.arange(len(data)).split(portion(data.shape, BATCH))]
        images = torch.cat(parts).contiguous()
    return replace(data, images=images, spec=f"{data.spec}+{name}")


class ChangedImages(LazyImages):
    """Images of a dataset that are changed when they are indexed."""

    def __init__(self, data: ImageData, change: Change, about: str, dtype: torch.dtype) -> None:
        super().__init__(torch.arange(len(data)), data.shape)
        self.dtype = dtype
        self._data, self._change, self._about = data, change, about
        source = data.images
        assert isinstance(source, LazyImages)
        self._source = source
        width = torch.empty(0, dtype=dtype).numpy().dtype
        self._cache = further_memory(tuple(self.shape), width, source.growth) if source.stays else None

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        if self._cache is None:
            return self._change(self._data, rows)
        missing = self._missing(rows)
        if len(missing):
            places = missing.numpy()
            self._cache.pixels[places] = self._change(self._data, missing).numpy()
            self._cache.there[places] = True
        images: torch.Tensor = torch.from_numpy(self._cache.pixels[rows.numpy()])
        return images

    def _missing(self, rows: torch.Tensor) -> torch.Tensor:
        if self._cache is None:
            return rows
        return rows[~torch.from_numpy(self._cache.there[rows.numpy()])]

    def _prefetch(self, rows: torch.Tensor) -> None:
        self._data.prefetch(self._missing(rows))

    def all(self) -> torch.Tensor:
        pixels = torch.empty(self.shape, dtype=self.dtype)
        check_memory(pixels.nbytes, "all images")
        size = portion(self._data.shape, BATCH)
        chunks = self._rows.split(size)
        for number, chunk in enumerate(chunks):
            self._data.prefetch(torch.cat(chunks[number : number + 2]))
            pixels[number * size : number * size + len(chunk)] = self._change(self._data, chunk)
        return pixels

    @property
    def identity(self) -> str:
        """Hash of the images and of what changes them."""
        text = f"changed 1 {self._about} {self._data.take(self._rows).sha256}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def stays(self) -> bool:
        return self._cache is not None

    @property
    def growth(self) -> int:
        return self._source.growth + (self._cache.missing if self._cache is not None else 0)

    @property
    def to_decode(self) -> int | None:
        found = self._source.take(self._rows).to_decode
        return len(self) if found is None and self._cache is not None else found

    def decode(self, positions: torch.Tensor) -> None:
        self._source.decode(self._rows[positions])

    def __str__(self) -> str:
        if self._cache is None:
            return "changed when they are used"
        return f"changed once and kept in memory ({in_bytes(math.prod(self.shape) * self.dtype.itemsize)})"
