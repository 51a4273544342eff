"""The files of a folder of images: the hash of their content, and what their headers say.

What was found out about a file is remembered, so that later runs read only files whose size or times have changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freqrobust.core.errors import DataError, FreqRobustError, ImageFileError
from freqrobust.core.files import cache_root, identity, keeps, reason, write_atomically
from freqrobust.core.text import excerpt, one_line
from freqrobust.data.decoders import decoders
from freqrobust.data.image_modes import as_eight_bit, check_eight_bit

if TYPE_CHECKING:
    from PIL.Image import Image

#: Folder of the cache in which manifests are kept, and the version of their format.
FOLDER, _VERSION = "manifests", 1
#: A file that was changed less than so many nanoseconds ago is not remembered: the next change may get the same time.
_RECENT_NS = 2_000_000_000


_ADVICE = (
    "delete it, or leave out such files with --skip-unreadable (in freqrobust.toml skip-unreadable = true, in Python "
    "skip_unreadable=True)"
)


class UnreadableImageError(ImageFileError):
    """A file is no image that can be decoded.

    Attributes:
        problem: what is wrong with it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} cannot be read: {problem}; {_ADVICE}")
        self.problem = problem


@dataclass(frozen=True)
class ImageFile:
    """An image in a file.

    Attributes:
        path: where it is.
        name: its path in the folder, with ``/``.
        sha256: of the bytes of the file.
        height: in pixels, from the header.
        width: likewise.
        problem: why it cannot be decoded; None where nothing is wrong, or nothing is known yet.
        decoded: whether all of it was decoded once, and not only the header read.
    """

    path: Path
    name: str
    sha256: str
    height: int = 0
    width: int = 0
    problem: str | None = None
    decoded: bool = False

    def content(self) -> bytes:
        """The bytes of the file.

        Raises:
            ImageFileError: it has changed since the run began.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ImageFileError(f"{self.path} could be read when the run began, but now: {reason(error)}") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ImageFileError(f"{self.path} has changed since the run began; start the run again")
        return content


def decoded(content: bytes, path: Path) -> Image:
    """The image in RGB, as torchvision's folders load it.

    Raises:
        UnreadableImageError: it is damaged, or has more than 8 bits.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            image: Image.Image = as_eight_bit(picture, str(path)).convert("RGB")
            return image
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise any exception in Pillow
        raise UnreadableImageError(path, _problem(error)) from error


def _problem(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no image of a known format"
    if isinstance(error, FreqRobustError):
        return str(error).partition(": ")[2]
    return excerpt(one_line(error), 200) or type(error).__name__


class Manifest:
    """The files of a folder that a run uses."""

    def __init__(self, root: Path, names: Sequence[str], folder: Path | None = None) -> None:
        """Read the files that are not known yet.

        Args:
            root: the folder of the images.
            names: the paths of the files in it, with ``/``.
            folder: where manifests are kept; None stands for the cache.

        Raises:
            DataError: a file is not there.
        """
        import PIL

        self.root = root
        place = {"root": str(root.resolve()), "version": _VERSION, "pillow": PIL.__version__}
        self._remembered = (folder if folder is not None else cache_root() / FOLDER) / f"{identity(place)}.json"
        known = self._read()
        self._times: dict[str, list[int]] = {}
        files = list(decoders().map(lambda name: self._look(name, known.get(name)), names))
        self.files = {file.name: file for file in files}
        if any(name not in known or known[name][0] != self._times.get(name) for name in names):
            self._write()

    def decoded(self, problems: dict[str, str | None]) -> None:
        """Remember that these files were decoded, and which ones of them could not be."""
        for name, problem in problems.items():
            self.files[name] = replace(self.files[name], problem=problem, decoded=True)
        if problems:
            self._write()

    def _look(self, name: str, known: Any) -> ImageFile:
        path = self.root / name
        try:
            if known is not None and known[0] == _times(path.stat()):
                self._times[name] = known[0]
                return ImageFile(path, name, *known[1:])
            with path.open("rb") as opened:
                status = os.fstat(opened.fileno())
                content = opened.read()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {reason(error)}") from error
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _RECENT_NS:
            self._times[name] = _times(status)
        return _header(ImageFile(path, name, hashlib.sha256(content).hexdigest()), content)

    def _read(self) -> dict[str, Any]:
        """What is remembered of each file; a damaged or missing manifest is an empty one."""
        with suppress(OSError, ValueError):
            entries = json.loads(self._remembered.read_text(encoding="utf-8"))
            if isinstance(entries, dict):
                return {name: entry for name, entry in entries.items() if _is_entry(entry)}
        return {}

    def _write(self) -> None:
        """Add what is known to the manifest, with what other processes have added, where the cache can be written."""
        if not keeps():
            return
        entries = {name: [times, *_found(self.files[name])] for name, times in self._times.items()}
        with suppress(OSError, FreqRobustError):
            self._remembered.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._remembered, json.dumps({**self._read(), **entries}))


def _found(file: ImageFile) -> list[Any]:
    return [file.sha256, file.height, file.width, file.problem, file.decoded]


def _times(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_entry(entry: Any) -> bool:
    kinds = (list, str, int, int, str | None, bool)
    return (
        isinstance(entry, list)
        and len(entry) == len(kinds)
        and all(isinstance(value, kind) for value, kind in zip(entry, kinds, strict=True))
    )


def _header(file: ImageFile, content: bytes) -> ImageFile:
    """The file with the size of its image."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            check_eight_bit(picture, str(file.path))
            width, height = picture.size
    except Exception as error:  # a damaged file can raise any exception in Pillow
        return replace(file, problem=_problem(error), decoded=True)
    return replace(file, height=height, width=width)
