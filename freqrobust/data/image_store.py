"""Images in files, decoded when they are used."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, NoReturn, cast

import numpy as np
import torch

from freqrobust.core.errors import ImageFileError
from freqrobust.data.arrays import check_memory
from freqrobust.data.decoders import decoders
from freqrobust.data.manifest import ImageFile
from freqrobust.data.pixel_cache import MemoryCache, NoCache, PixelCache

#: Images that are decoded together where all of them are wanted.
_CHUNK = 256
_ADVICE = "the images are decoded when they are used: take data.batch(index, device), or data.in_memory().images"


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


class ImageStore:
    """Rows of :class:`ImageFiles`: images uint8 ``(N, C, H, W)`` that are decoded when they are indexed.

    Attributes:
        shape: ``(N, C, H, W)``.
        dtype: uint8.
        preprocessing: names how files become pixels, for the identity.
    """

    dtype = torch.uint8

    def __init__(
        self, images: ImageFiles, rows: torch.Tensor, preprocessing: str, behind: torch.Tensor | None = None
    ) -> None:
        self._images = images
        self._rows = rows
        self._behind = (
            rows if behind is None else behind
        )  # what is used after these rows: by default they are used again
        self.preprocessing = preprocessing
        self.shape = torch.Size((len(rows), *images.shape))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The pixels at these positions: an integer, a slice, or a tensor of int64 or bool.

        Raises:
            ImageFileError: a file cannot be decoded, or has changed.
        """
        if isinstance(index, tuple):
            raise TypeError(f"only the first axis can be indexed; {_ADVICE}")
        rows = self._rows[index]
        pixels = torch.from_numpy(self._images.read(rows.reshape(-1).tolist()))
        return pixels if rows.dim() else pixels[0]

    def take(self, index: torch.Tensor | slice) -> ImageStore:
        """The store of the images at these positions; nothing is decoded."""
        return ImageStore(self._images, self._rows[index], self.preprocessing)

    def part(self, start: int, stop: int) -> ImageStore:
        """The store of the images at consecutive positions, which knows those behind them."""
        behind = self._rows[stop:] if stop < len(self) else self._rows
        return ImageStore(self._images, self._rows[start:stop], self.preprocessing, behind)

    def prefetch(self, index: torch.Tensor, count: int = 0) -> None:
        """Begin to decode the images at these positions; those of the last call that were not read are given up.

        Where they are fewer than ``count``, the first ones that are used afterwards are added.
        """
        rows = self._rows[index].tolist()
        self._images.prefetch(rows + self._behind[: max(0, count - len(rows))].tolist())

    @property
    def growth(self) -> int:
        """Bytes by which the memory grows until every image of the files was used."""
        cache = self._images.cache
        return cache.missing if isinstance(cache, MemoryCache) else 0

    def all(self) -> torch.Tensor:
        """All pixels as a tensor, which a cache in memory does not keep a second time.

        Raises:
            DataError: they do not fit into memory, or a file cannot be decoded.
        """
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
            digest.update(f"{file.sha256} {file.name}\n".encode())
        return digest.hexdigest()

    def __str__(self) -> str:
        return str(self._images.cache)

    def __deepcopy__(self, memo: object) -> ImageStore:
        return self  # nothing changes it, and its threads cannot be copied

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"there is no {name!r}; {_ADVICE}")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(_ADVICE)

    @classmethod
    def __torch_function__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(_ADVICE)


def _reading(images: ImageFiles) -> Callable[[int], np.ndarray]:
    """Reads a row from the cache or its file without writing it to the cache."""

    def load(row: int) -> np.ndarray:
        pixels = images.cache.read(row)
        return images.decode(row) if pixels is None else pixels

    return load
