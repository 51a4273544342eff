"""What freqrobust stored on disk: entries with size and age, and deleting them without touching anything else.

An entry is deleted file by file: only files that were recognised, never through a link, and directories only once they
are empty.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from freqrobust.core.errors import SpecError
from freqrobust.core.files import exclusive, reason
from freqrobust.core.text import excerpt

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZE = re.compile(r"^(?P<number>\d{1,12}(\.\d{1,6})?)\s*(?P<unit>[kmgt]?)(i?b)?$", re.IGNORECASE)
_DURATION = re.compile(r"^(?P<number>\d{1,9}(\.\d{1,6})?)\s*(?P<unit>[smhdw])$", re.IGNORECASE)


@dataclass(frozen=True)
class Stored:
    """One thing on disk.

    Attributes:
        path: the file or the directory.
        what: what it is, in words.
        files: the files of it that freqrobust wrote; links and files of others are not among them.
        facts: further values, by the heading of their column.
        others: names of files in the directory that freqrobust did not write.
    """

    path: Path
    what: str
    files: tuple[Path, ...]
    facts: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(status.st_size for status in map(_status, self.files) if status is not None)

    @property
    def modified(self) -> float:
        """When the newest of its files was written, in seconds since 1970."""
        return max((status.st_mtime for status in map(_status, self.files) if status is not None), default=0.0)

    def age(self, now: float | None = None) -> float:
        """Seconds since it was written; at least 0."""
        return max(0.0, (time.time() if now is None else now) - self.modified)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def is_plain_file(path: Path) -> bool:
    """Whether it is a file and no link."""
    status = _status(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def is_plain_folder(path: Path) -> bool:
    """Whether it is a directory and no link."""
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def entries_of(folder: Path) -> list[Path]:
    """What a directory contains, sorted; nothing where it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def split_files(folder: Path, patterns: Sequence[str]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files of a directory whose relative paths match one of the patterns, and the names of all else.

    Links are never followed and never match.

    Args:
        folder: the directory.
        patterns: regular expressions for whole relative paths with ``/``.
    """
    known: list[Path] = []
    others: list[str] = []
    expression = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    for here, folders, files in os.walk(folder, followlinks=False):
        for name in sorted([*files, *(f for f in folders if not is_plain_folder(Path(here, f)))]):
            path = Path(here, name)
            relative = path.relative_to(folder).as_posix()
            if is_plain_file(path) and expression.fullmatch(relative):
                known.append(path)
            else:
                others.append(relative)
        folders.sort()
    return tuple(known), tuple(others)


def delete(entry: Stored) -> str | None:
    """Delete the files of an entry, and its directory where nothing else is in it.

    Returns:
        None, or why not everything was deleted.
    """
    if not is_plain_folder(entry.path):
        return _unlink(entry.files)
    with exclusive(entry.path) as free:
        if not free:
            return "a process is using it"
        why = _unlink(entry.files)
    for here, _, _ in os.walk(entry.path, topdown=False, followlinks=False):
        with suppress(OSError):  # something is left in it
            os.rmdir(here)
    if why is None and entry.others:
        more = f" and {len(entry.others) - 1} more" if len(entry.others) > 1 else ""
        return f"files of others were kept: {entry.others[0]}{more}"
    return why


def _unlink(files: Iterable[Path]) -> str | None:
    why = None
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            why = f"{file.name}: {reason(error)}"
    return why


def parse_size(text: str, flag: str) -> float:
    """Bytes, from ``500k``, ``100M`` or ``1.5G``.

    Raises:
        SpecError: it is no size.
    """
    found = _SIZE.match(text.strip())
    if found is None:
        raise SpecError(f"{flag} should be a size such as 500k, 100M or 1.5G, but got {excerpt(repr(text))}")
    return float(found["number"]) * _UNITS[found["unit"].lower()]


def parse_duration(text: str, flag: str) -> float:
    """Seconds, from ``30d``, ``12h`` or ``2w``.

    Raises:
        SpecError: it is no duration.
    """
    found = _DURATION.match(text.strip())
    if found is None:
        raise SpecError(f"{flag} should be a duration such as 12h, 30d or 2w, but got {excerpt(repr(text))}")
    return float(found["number"]) * _SECONDS[found["unit"].lower()]


def size_text(size: float) -> str:
    """``12.3 MB``, in units of 1024.

    Example:
        >>> size_text(0), size_text(1536), size_text(5 * 1024**3)
        ('0 B', '1.5 kB', '5.0 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def age_text(seconds: float) -> str:
    """``3 d``, in the largest unit that is at least 1.

    Example:
        >>> age_text(5), age_text(7200), age_text(40 * 86400)
        ('5 s', '2 h', '40 d')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
