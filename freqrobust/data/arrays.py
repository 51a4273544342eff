"""Arrays from ``.npz`` files of others: what a header claims is held against the file before anything is read."""

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
from freqrobust.core.files import reason
from freqrobust.core.text import excerpt

#: Bytes that the description of an array may take; what numpy writes takes about a hundred.
_HEADER_BYTES = 1 << 16
#: An archive that grows by more than this when it is unpacked, to more than so many bytes, holds no images.
_GROWTH, _LARGE = 200, 1 << 30
#: Share of the free memory that arrays may take; images are copied once when they are checked.
_SHARE = 0.5


def read_npz(path: Path, names: Sequence[str], missing: str) -> dict[str, np.ndarray]:
    """Arrays of an archive, each read only once its size is known to be true and to fit into memory.

    Args:
        path: a regular file.
        names: the arrays that are wanted.
        missing: what to say where one is not there; ``{path}``, ``{found}`` and ``{missing}`` are filled in.

    Raises:
        DataError: the file is damaged, is something else, or is too large.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(6)
            if magic == b"\x93NUMPY":
                raise DataError(f"{path} holds one array; expected an .npz with the arrays {_listed(names)}")
            with warnings.catch_warnings(), zipfile.ZipFile(file) as archive:
                warnings.simplefilter("ignore")
                found = [name.removesuffix(".npy") for name in archive.namelist()]
                lacking = [name for name in names if name not in found]
                if lacking:
                    listed = ", ".join(found) or "nothing"
                    raise DataError(missing.format(path=path, found=listed, missing=", ".join(lacking)))
                members = {name: archive.getinfo(_member(archive, name)) for name in names}
                check_growth(list(members.values()), path)
                sizes = [_checked_size(archive, info, path) for info in members.values()]
                check_memory(sum(sizes), f"{path}: the arrays")
                return {name: _read(archive, info) for name, info in members.items()}
    except DataError:
        raise
    except Exception as error:  # a damaged file can break zipfile and numpy anywhere
        text = excerpt(reason(error), 200) or type(error).__name__
        raise DataError(f"{path} cannot be read as .npz: {text}") from error


def check_growth(
    members: Sequence[zipfile.ZipInfo], path: Path, error_class: type[FreqRobustError] = DataError
) -> None:
    """Refuse an archive that is small on disk and huge in memory.

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
    """Refuse what does not fit into memory.

    Raises:
        DataError: it does not.
    """
    free = _free_memory()
    if free is not None and size > _SHARE * free:
        raise DataError(f"{what} take {in_bytes(size)}, but only {in_bytes(free)} of memory are free")


def in_bytes(size: float) -> str:
    """``8.6 GB``."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" or size >= 100 else f"{size:.1f} {units[0]}"


def _free_memory() -> int | None:
    """Bytes that can be used without swapping; None where the system does not say."""
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
    """Bytes of an array, as its header claims, once the archive is known to hold so many.

    Raises:
        DataError: it does not.
        ValueError: the header is damaged.
    """
    shape, dtype, header = _header(archive, info)
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds Python objects; expected numbers")
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
        found: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return found
