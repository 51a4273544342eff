"""Reading ``.npy`` and ``.npz`` files that are not trusted: the header of an array is checked before its data is read."""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freqrobust.core.errors import DataError, FreqRobustError
from freqrobust.core.files import reason, regular_file
from freqrobust.core.text import excerpt

#: Largest header of an array in bytes; NumPy writes about a hundred.
_HEADER_BYTES = 1 << 16
#: Largest ratio of the unpacked to the packed size of an archive, where it is larger than so many bytes.
_GROWTH, _LARGE = 200, 1 << 30
#: Largest share of the free memory for arrays; images are copied once when they are checked.
_SHARE = 0.5


def read_npz(path: Path, names: Sequence[str], missing: str) -> dict[str, np.ndarray]:
    """Arrays of an archive, read after their sizes were checked against the file and the free memory.

    Args:
        path: a regular file.
        names: the arrays to read.
        missing: the message where one is missing; ``{path}``, ``{found}`` and ``{missing}`` are filled in.

    Raises:
        DataError: the file is damaged, is not an archive of arrays, or is too large.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(6)
            if magic == b"\x93NUMPY":
                raise DataError(f"{path} contains a single array; expected an .npz with the arrays {_listed(names)}")
            with warnings.catch_warnings(), zipfile.ZipFile(file) as archive:
                warnings.simplefilter("ignore")
                present = [name.removesuffix(".npy") for name in archive.namelist()]
                absent = [name for name in names if name not in present]
                if absent:
                    listed = ", ".join(present) or "nothing"
                    raise DataError(missing.format(path=path, found=listed, missing=", ".join(absent)))
                members = {name: archive.getinfo(_member(archive, name)) for name in names}
                check_growth(list(members.values()), path)
                sizes = [_checked_size(archive, info, path) for info in members.values()]
                check_memory(sum(sizes), f"{path}: the arrays")
                return {name: _read(archive, info) for name, info in members.items()}
    except DataError:
        raise
    except Exception as error:  # a damaged file can raise any exception in zipfile and NumPy
        text = excerpt(reason(error), 200) or type(error).__name__
        raise DataError(f"{path} cannot be read as .npz: {text}") from error


def map_array(path: Path, dims: int) -> np.ndarray:
    """An ``.npy`` file of images (4 dimensions, uint8) or labels (1 dimension), mapped into memory.

    Raises:
        DataError: the file is missing or damaged, or the array has another shape or type.
    """
    if path.exists():
        regular_file(path, str(path), DataError)
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header can raise any exception
        raise DataError(f"{path} cannot be read: {reason(error)}") from error
    if array.ndim != dims or (dims == 4 and array.dtype != np.uint8):
        raise DataError(f"{path}: expected {dims} dimensions, images as uint8, but got {array.dtype} {array.shape}")
    return array


def check_growth(
    members: Sequence[zipfile.ZipInfo], path: Path, error_class: type[FreqRobustError] = DataError
) -> None:
    """Refuse an archive whose unpacked size is far beyond its size on disk.

    Raises:
        FreqRobustError: it is.
    """
    unpacked = sum(info.file_size for info in members)
    packed = path.stat().st_size
    if unpacked > _LARGE and unpacked > _GROWTH * packed:
        raise error_class(
            f"{path} would grow from {in_bytes(packed)} to {in_bytes(unpacked)} when it is unpacked; "
            f"expected less than {_GROWTH} times its size"
        )


def check_memory(size: int, what: str) -> None:
    """Refuse data that does not fit into memory.

    Raises:
        DataError: it takes more than half of what is free.
    """
    free = free_memory()
    if free is not None and size > _SHARE * free:
        raise DataError(
            f"{what} take {in_bytes(size)}; expected at most {in_bytes(_SHARE * free)}, half of the free memory"
        )


def in_bytes(size: float) -> str:
    """``8.6 GB``."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" or size >= 100 else f"{size:.1f} {units[0]}"


def free_memory() -> int | None:
    """Bytes that this process can use without swapping; None where the system does not report them."""
    found = [size for size in (_free_of_machine(), _free_of_group()) if size is not None]
    return min(found, default=None)


def _free_of_group() -> int | None:
    """What the limit of a container or of a batch job leaves (cgroup v2); None without such a limit."""
    try:
        limit, used = (int(Path("/sys/fs/cgroup", f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return max(0, limit - used)


def _free_of_machine() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(repr(name) for name in names)


def _member(archive: zipfile.ZipFile, name: str) -> str:
    return f"{name}.npy" if f"{name}.npy" in archive.namelist() else name


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], Any, int]:
    """Shape, type and length of the header of an array in an archive; reads nothing but the header."""
    with archive.open(info) as member:
        start = io.BytesIO(member.read(_HEADER_BYTES))
    version = np.lib.format.read_magic(start)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(start)
    else:
        raise ValueError(f"{info.filename} is an array of version {version}; expected plain numbers")
    return shape, dtype, start.tell()


def _checked_size(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> int:
    """The size of an array in bytes, from its header, checked against the size in the archive.

    Raises:
        DataError: the sizes differ.
        ValueError: the header is damaged.
    """
    shape, dtype, header = _header(archive, info)
    if dtype.hasobject:
        raise ValueError(f"{info.filename} contains Python objects; expected numbers")
    if any(length < 0 for length in shape):
        raise ValueError(f"{info.filename} claims the shape {shape}")
    size = math.prod(shape) * int(dtype.itemsize)
    if size != info.file_size - header:
        raise DataError(
            f"{path} is damaged: {info.filename} claims {dtype} {shape}, which is {size} bytes, "
            f"but has {max(info.file_size - header, 0)}"
        )
    return size


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return array
