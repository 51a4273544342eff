"""The run directory: each finished block of a cell is on disk before the next begins.

A block is one JSON file named by its identity, the hash of everything its numbers depend on. A file contains its own
checksum; one that is truncated or edited is noticed and measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from freqrobust.core.errors import JournalError
from freqrobust.core.files import alone, reason, user_path, write_atomically


class Pieces(Protocol):
    """Pieces of work, by identity."""

    def has(self, key: str) -> bool:
        """Whether there is a piece of that identity."""


@dataclass(frozen=True)
class Listed:
    """The pieces that a journal had at one moment, as far as the names of its files tell: one may be damaged."""

    keys: frozenset[str]

    def has(self, key: str) -> bool:
        """See :meth:`Pieces.has`."""
        return key in self.keys


class Journal:
    """Finished pieces of work, by identity. With ``root=None`` nothing is kept.

    Args:
        root: the run directory.
        folder: the kind of pieces, a folder of the run directory.
    """

    def __init__(self, root: str | os.PathLike[str] | None, folder: str = "cells") -> None:
        self.root = user_path(root, "the run directory", JournalError) if root is not None else None
        self.folder = folder
        self.damaged: list[str] = []
        if self.root is not None:
            try:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise JournalError(f"cannot use the run directory {root}: {reason(error)}") from error

    def _path(self, key: str) -> Path:
        assert self.root is not None
        return self.root / self.folder / f"{key}.json"

    def alone(self) -> AbstractContextManager[None]:
        """Inside the block, no other process is inside of one for the same pieces; until then, wait.

        The lock is not that of the run directory, which is held while a defense is trained.
        """
        return alone(self.root / self.folder if self.root is not None else None)

    def listed(self) -> Listed:
        """All pieces by their names, read at once and without a look into them."""
        if self.root is None:
            return Listed(frozenset())
        with suppress(OSError):
            names = os.listdir(self.root / self.folder)
            return Listed(frozenset(name.removesuffix(".json") for name in names if name.endswith(".json")))
        return Listed(frozenset())

    def has(self, key: str) -> bool:
        """Whether there is a piece of that identity that can be trusted."""
        return self._payload(key) is not None

    def remove(self, key: str) -> None:
        """Forget a piece, if there is one."""
        if self.root is not None:
            with suppress(OSError):
                self._path(key).unlink(missing_ok=True)

    def load(self, key: str) -> dict[str, Any] | None:
        """The piece of that identity, or None when there is none that can be trusted."""
        payload = self._payload(key)
        if payload is None:
            return None
        found: dict[str, Any] = json.loads(payload)
        return found

    def _payload(self, key: str) -> str | None:
        """The text of a piece, whose checksum is right; one that is damaged is remembered."""
        if self.root is None or not self._path(key).exists():
            return None
        try:
            checksum, _, payload = self._path(key).read_text(encoding="utf-8").partition("\n")
            if hashlib.sha256(payload.encode()).hexdigest() != checksum:
                raise ValueError("checksum")
        except FileNotFoundError:  # another process has removed it just now
            return None
        except (OSError, ValueError):
            if str(self._path(key)) not in self.damaged:
                self.damaged.append(str(self._path(key)))
            return None
        return payload

    def store(self, key: str, piece: Mapping[str, Any]) -> None:
        """Put a finished piece on disk, atomically."""
        if self.root is None:
            return
        payload = json.dumps(piece, allow_nan=False)
        write_atomically(self._path(key), f"{hashlib.sha256(payload.encode()).hexdigest()}\n{payload}")
