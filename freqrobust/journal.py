"""The run directory: each finished cell is on disk before the next begins.

A cell is one JSON file named by its identity, the hash of everything its numbers depend on. A file holds
its own checksum; one that is truncated or edited is noticed and measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from freqrobust.errors import JournalError


def identity(content: Any) -> str:
    """A short name for JSON-like content: equal content, equal name."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def engine_hash() -> str:
    """Hash of freqrobust's own numerical code, a part of every identity; what was imported does not change."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.name.startswith("cli"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash; pipes and devices are written to.

    Raises:
        JournalError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path = path.resolve()  # a link stays a link
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".freqrobust-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(name, 0o666 & ~umask)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise JournalError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Raise early if ``path`` could not be written at the end; leaves nothing behind.

    Raises:
        JournalError: it is a folder, or its own folder cannot be made or written.
    """
    try:
        target = path.resolve()
        if target.is_dir():
            raise JournalError(f"cannot write {path}: it is a directory")
        if target.exists() and not target.is_file():
            return  # a pipe or a device
        folder = target.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise JournalError(f"cannot write {path}: {folder} is not a folder")
        if len(os.fsencode(target.name)) > os.pathconf(folder, "PC_NAME_MAX"):
            raise JournalError(f"cannot write {path}: the name is too long")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead round in a circle
        raise JournalError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


class Journal:
    """Finished pieces of work, by identity. With ``root=None`` nothing is kept.

    Args:
        root: the run directory.
        folder: the kind of pieces, a folder of the run directory.
    """

    def __init__(self, root: Path | None, folder: str = "cells") -> None:
        self.root = root
        self.folder = folder
        self.damaged: list[str] = []
        if root is not None:
            try:
                (root / folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise JournalError(f"cannot use the run directory {root}: {error.strerror or error}") from error

    def _path(self, key: str) -> Path:
        assert self.root is not None
        return self.root / self.folder / f"{key}.json"

    def load(self, key: str) -> dict[str, Any] | None:
        """The piece of that identity, or None when there is none that can be trusted."""
        if self.root is None or not self._path(key).exists():
            return None
        try:
            text = self._path(key).read_text(encoding="utf-8")
            checksum, _, payload = text.partition("\n")
            if hashlib.sha256(payload.encode()).hexdigest() != checksum:
                raise ValueError("checksum")
            found: dict[str, Any] = json.loads(payload)
            return found
        except (OSError, ValueError):
            self.damaged.append(str(self._path(key)))
            return None

    def store(self, key: str, piece: Mapping[str, Any]) -> None:
        """Put a finished piece on disk, atomically."""
        if self.root is None:
            return
        payload = json.dumps(piece, allow_nan=False)
        write_atomically(self._path(key), f"{hashlib.sha256(payload.encode()).hexdigest()}\n{payload}")
