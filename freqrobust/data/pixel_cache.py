"""Where decoded images are kept: in memory, in a file, or nowhere."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import struct
import weakref
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from freqrobust.core.config_file import DATA_CACHE_WORDS
from freqrobust.core.errors import DataError, FreqRobustError, SpecError
from freqrobust.core.files import in_use, keeps, reason, user_path, write_atomically
from freqrobust.core.text import near_miss
from freqrobust.data.arrays import check_memory, free_memory, in_bytes
from freqrobust.data.decoders import processes

#: What the option takes beside a directory.
WORDS = AUTO, MEMORY, OFF = DATA_CACHE_WORDS
#: Largest share of the free memory for a cache that was not asked for, of all processes of the run together.
_SHARE = 0.25
#: Of each image: whether it is there, and the checksum of its pixels.
_ENTRY = struct.Struct("<II")
_THERE = 0x70697865
_ADVICE = "give another --data-cache: a directory, memory or off"


def cache_option(given: str | os.PathLike[str]) -> str:
    """The option ``--data-cache``: a word, or the path of a directory.

    Raises:
        SpecError: it is a file, or its own directory does not exist.
    """
    if given in WORDS:
        return str(given)
    path = user_path(given, "--data-cache")
    expected = f"expected {', '.join(WORDS)} or a directory"
    if path.exists() and not path.is_dir():
        raise SpecError(f"--data-cache: {path} is a file; {expected}")
    hint = near_miss(str(given), WORDS)
    if not path.exists() and (hint or not path.resolve().parent.is_dir()):
        raise SpecError(f"--data-cache: there is no directory {path}{hint}; {expected}")
    return str(path)


class PixelCache(Protocol):
    """Decoded images by their row; all methods may be called by several threads."""

    def read(self, row: int) -> np.ndarray | None:
        """The pixels uint8 ``(C, H, W)``, or None where they are not kept."""

    def write(self, row: int, pixels: np.ndarray) -> None:
        """Keep the pixels."""

    def to_decode(self, rows: np.ndarray) -> int | None:
        """How many of these images another run has to decode once; None where it decodes them whenever they are used."""


class NoCache:
    """Every image is decoded whenever it is used."""

    def read(self, row: int) -> np.ndarray | None:
        return None

    def write(self, row: int, pixels: np.ndarray) -> None:
        pass

    def to_decode(self, rows: np.ndarray) -> int | None:
        return None

    def __str__(self) -> str:
        return "decoded when they are used"


class MemoryCache:
    """Images are decoded when they are used first, and stay in memory."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype | type[np.uint8] = np.uint8) -> None:
        self.pixels = np.empty(shape, dtype=dtype)  # takes memory once it is written
        self.there = np.zeros(shape[0], dtype=bool)

    def read(self, row: int) -> np.ndarray | None:
        found: np.ndarray | None = self.pixels[row] if self.there[row] else None
        return found

    def write(self, row: int, pixels: np.ndarray) -> None:
        self.pixels[row] = pixels
        self.there[row] = True

    def to_decode(self, rows: np.ndarray) -> int | None:
        return len(rows)

    @property
    def missing(self) -> int:
        """Bytes that the images take which are not there yet."""
        return int((~self.there).sum()) * math.prod(self.pixels.shape[1:]) * self.pixels.itemsize

    def __str__(self) -> str:
        return f"decoded once and kept in memory ({in_bytes(self.pixels.nbytes)})"


class FileCache:
    """Images are decoded once, by whichever process needs them first, and stay in a file.

    The file has a place for each image. An image counts as there only with the checksum of its pixels, which is written
    after them and compared when they are read: a process that was killed, or another one that writes the same pixels at
    the same time, does no harm. Pixels are read, and not mapped into memory, so that they do not add up in the memory of
    the process.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int], about: dict[str, object]) -> None:
        """Open the cache, or make an empty one.

        Args:
            folder: of this set of images alone.
            shape: of all images.
            about: what the images are, for those who look into the folder.

        Raises:
            DataError: it cannot be written, or the images do not fit on the disk.
        """
        self.folder, self.shape = folder, shape
        self.size = int(np.prod(shape[1:]))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as held:
                held.enter_context(in_use(folder))
                _check_space(folder, shape)
                write_atomically(folder / "about.json", json.dumps(about, indent=1) + "\n")
                self._pixels = self._open("pixels.bin", shape[0] * self.size, held)
                self._entries = self._open("entries.bin", shape[0] * _ENTRY.size, held)
                weakref.finalize(self, held.pop_all().close)
        except OSError as error:
            raise DataError(f"--data-cache {folder.parent}: {reason(error)}; {_ADVICE}") from error
        except FreqRobustError as error:
            raise DataError(f"--data-cache {folder.parent}: {error}; {_ADVICE}") from error

    def _open(self, name: str, size: int, held: ExitStack) -> int:
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        held.callback(os.close, handle)
        if os.fstat(handle).st_size != size:
            os.ftruncate(handle, size)
        return handle

    def read(self, row: int) -> np.ndarray | None:
        there, checksum = _ENTRY.unpack(os.pread(self._entries, _ENTRY.size, row * _ENTRY.size))
        if there != _THERE:
            return None
        content = os.pread(self._pixels, self.size, row * self.size)
        if len(content) != self.size or zlib.crc32(content) != checksum:
            return None
        return np.frombuffer(content, dtype=np.uint8).reshape(self.shape[1:])

    def write(self, row: int, pixels: np.ndarray) -> None:
        content = pixels.tobytes()
        try:
            for handle, data in ((self._pixels, content), (self._entries, _ENTRY.pack(_THERE, zlib.crc32(content)))):
                if os.pwrite(handle, data, row * len(data)) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise DataError(f"--data-cache {self.folder.parent}: {reason(error)}; {_ADVICE}") from error

    def to_decode(self, rows: np.ndarray) -> int | None:
        return int((~_there(self.folder, self.shape[0])[rows]).sum())

    def __str__(self) -> str:
        return _kept_in(self.folder, self.shape)


class UnopenedFileCache(NoCache):
    """Stands for a :class:`FileCache` where nothing is to be kept: every image is decoded, as without a cache."""

    def __init__(self, folder: Path, shape: tuple[int, int, int, int]) -> None:
        """Look whether there is room.

        Raises:
            DataError: the images do not fit on the disk.
        """
        self.folder, self.shape = folder, shape
        try:
            _check_space(folder, shape)
        except OSError as error:
            raise DataError(f"--data-cache {folder.parent}: {reason(error)}; {_ADVICE}") from error
        except FreqRobustError as error:
            raise DataError(f"--data-cache {folder.parent}: {error}; {_ADVICE}") from error

    def to_decode(self, rows: np.ndarray) -> int | None:
        return int((~_there(self.folder, self.shape[0])[rows]).sum())

    def __str__(self) -> str:
        return _kept_in(self.folder, self.shape)


def _check_space(folder: Path, shape: tuple[int, ...]) -> None:
    """Refuse images that do not fit on the disk beside what is in the folder, which need not exist.

    Raises:
        DataError: they do not.
    """
    size = math.prod(shape)
    written = 0
    for entry in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # a temporary one of a process at work
            written += entry.stat().st_blocks * 512
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    if size - written > free:
        raise DataError(f"the decoded images take {in_bytes(size)}, but {in_bytes(free)} are free")


def _there(folder: Path, count: int) -> np.ndarray:
    """Which images the files in a folder contain, by their entries alone; none where there are no files."""
    there = np.zeros(count, dtype=bool)
    with suppress(OSError):
        content = (folder / "entries.bin").read_bytes()
        marks = np.frombuffer(content[: len(content) // _ENTRY.size * _ENTRY.size], dtype="<u4")[::2][:count]
        there[: len(marks)] = marks == _THERE
    return there


def _kept_in(folder: Path, shape: tuple[int, int, int, int]) -> str:
    return f"decoded once and kept in {folder} ({in_bytes(math.prod(shape))})"


def open_cache(given: str, shape: tuple[int, int, int, int], key: str, about: dict[str, object]) -> PixelCache:
    """The cache that an option names.

    Args:
        given: ``auto``, ``memory``, ``off`` or a directory.
        shape: of all images, ``(N, C, H, W)``.
        key: equal for equal pixels.
        about: what the images are.

    Raises:
        DataError: the images do not fit.
    """
    size = int(np.prod(shape))
    if given == MEMORY:
        check_memory(size, "--data-cache memory: the decoded images")
        return MemoryCache(shape)
    if given == AUTO:
        free = free_memory()
        return MemoryCache(shape) if free is not None and size * processes() <= _SHARE * free else NoCache()
    if given == OFF:
        return NoCache()
    folder = Path(given) / key
    return FileCache(folder, shape, about) if keeps() else UnopenedFileCache(folder, shape)


def further_memory(shape: tuple[int, ...], dtype: np.dtype, growth: int) -> MemoryCache | None:
    """A cache beside another one in memory that still grows by so many bytes; None where there is no room for both."""
    size, free = math.prod(shape) * dtype.itemsize, free_memory()
    return MemoryCache(shape, dtype) if free is not None and (size + growth) * processes() <= _SHARE * free else None
