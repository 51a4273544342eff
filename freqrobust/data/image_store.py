"""Images in files, decoded when they are used."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import cast

import numpy as np
import torch

from freqrobust.core.errors import ImageFileError
from freqrobust.data.arrays import check_memory
from freqrobust.data.decoders import decoders
from freqrobust.data.lazy_images import LazyImages
from freqrobust.data.manifest import ImageFile
from freqrobust.data.pixel_cache import MemoryCache, NoCache, PixelCache

#: Images that are decoded together where all of them are wanted.
_CHUNK = 256


class ImageFiles:
    """Files, how they become pixels, and those that are being decoded.

    Attributes:
        files: of every row.
        shape: of each image, ``(C, H, W)``.
        cache: where pixels are kept.
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        shape: tuple[int, int, int],
        pixels: Callable[[ImageFile], np.ndarray],
        cache: PixelCache | None = None,
    ) -> None:
        self.files = files
        self.shape = shape
        self.cache: PixelCache = cache if cache is not None else NoCache()
        self._pixels = pixels
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[np.ndarray]] = {}
        self._ahead: frozenset[int] = frozenset()  # rows that were prefetched last
        self._used: frozenset[int] = frozenset()  # rows that were read last

    def prefetch(self, rows: Sequence[int]) -> None:
        """Begin to decode these rows; those that were prefetched before and not read are given up."""
        if self._in_memory(rows):
            return
        with self._lock:
            self._ahead = frozenset(rows)
            for row in rows:
                self._begin(row)
            self._forget()

    def read(self, rows: Sequence[int]) -> np.ndarray:
        """The pixels of these rows, uint8 ``(len(rows), C, H, W)``.

        Raises:
            ImageFileError: a file cannot be decoded, or has changed.
        """
        if self._in_memory(rows):
            return cast("MemoryCache", self.cache).pixels[rows]
        with self._lock:
            self._used = frozenset(rows)
            waiting = {row: self._begin(row) for row in self._used}
            self._forget()
        found = np.empty((len(rows), *self.shape), dtype=np.uint8)
        for position, row in enumerate(rows):
            found[position] = self._result(row, waiting[row])
        return found

    def load(self, row: int) -> np.ndarray:
        """The pixels of one row, from the cache where they are there."""
        pixels = self.cache.read(row)
        if pixels is None:
            pixels = self.decode(row)
            self.cache.write(row, pixels)
        return pixels

    def decode(self, row: int) -> np.ndarray:
        """The pixels of one row, from the file.

        Raises:
            ImageFileError: the file cannot be decoded, has changed, or gives another shape.
        """
        pixels = self._pixels(self.files[row])
        if pixels.shape != self.shape or pixels.dtype != np.uint8:
            raise ImageFileError(
                f"{self.files[row].path}: the preprocessing gives {pixels.dtype} {pixels.shape}, but uint8 {self.shape} "
                f"for other images"
            )
        return pixels

    def _in_memory(self, rows: Sequence[int]) -> bool:
        return isinstance(self.cache, MemoryCache) and bool(self.cache.there[rows].all())

    def _begin(self, row: int) -> Future[np.ndarray]:
        if row not in self._waiting:
            self._waiting[row] = decoders().submit(self.load, row)
        return self._waiting[row]

    def _result(self, row: int, begun: Future[np.ndarray]) -> np.ndarray:
        try:
            return begun.result()
        except CancelledError:  # another thread reads the same data, and gave up what it does not want itself
            return self.load(row)

    def _forget(self) -> None:
        wanted = self._ahead | self._used
        for row in [row for row in self._waiting if row not in wanted]:
            self._waiting.pop(row).cancel()


class ImageStore(LazyImages):
    """Rows of :class:`ImageFiles`: images uint8 ``(N, C, H, W)`` that are decoded when they are indexed.

    Attributes:
        shape: ``(N, C, H, W)``.
        dtype: uint8.
        preprocessing: names how files become pixels, for the identity.
    """

    dtype = torch.uint8

    def __init__(self, images: ImageFiles, rows: torch.Tensor, preprocessing: str) -> None:
        super().__init__(rows, images.shape)
        self._images = images
        self.preprocessing = preprocessing

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._images.read(rows.tolist()))

    def _prefetch(self, rows: torch.Tensor) -> None:
        self._images.prefetch(rows.tolist())

    @property
    def stays(self) -> bool:
        return isinstance(self._images.cache, MemoryCache)

    @property
    def growth(self) -> int:
        cache = self._images.cache
        return cache.missing if isinstance(cache, MemoryCache) else 0

    @property
    def to_decode(self) -> int | None:
        return self._images.cache.to_decode(self._rows.numpy())

    def decode(self, positions: torch.Tensor) -> None:
        for _ in decoders().map(self._images.decode, self._rows[positions].tolist()):
            pass

    def all(self) -> torch.Tensor:
        size = int(np.prod(self.shape))
        check_memory(size, "all images")
        pixels = np.empty(self.shape, dtype=np.uint8)
        images, rows = self._images, self._rows.tolist()
        load = images.load if not isinstance(images.cache, MemoryCache) else _reading(images)
        for start in range(0, len(rows), _CHUNK):
            for position, found in enumerate(decoders().map(load, rows[start : start + _CHUNK]), start):
                pixels[position] = found
        return torch.from_numpy(pixels)

    @property
    def identity(self) -> str:
        """Hash of the names and the content of the files, of their order, and of the preprocessing."""
        digest = hashlib.sha256(f"files 1 {tuple(self.shape)} {self.preprocessing}\n".encode())
        for row in self._rows.tolist():
            file = self._images.files[row]
            digest.update(f"{file.sha256} {file.name}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def __str__(self) -> str:
        return str(self._images.cache)


def _reading(images: ImageFiles) -> Callable[[int], np.ndarray]:
    """Reads a row from the cache or its file without writing it to the cache."""

    def load(row: int) -> np.ndarray:
        pixels = images.cache.read(row)
        return images.decode(row) if pixels is None else pixels

    return load
