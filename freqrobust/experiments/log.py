"""The log of a training: one line of JSON for each epoch, which survives a kill at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from freqrobust.core.errors import JournalError
from freqrobust.core.files import reason, user_path, write_atomically
from freqrobust.results.training_record import EpochRecord


class Log:
    """Epochs of a training in a file, one line each.

    A line counts once its newline is there. What a killed process left after the last newline is ignored by
    :meth:`records`, and removed by :meth:`append` and :meth:`rewind`.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = user_path(path, "the log", JournalError)

    def append(self, record: EpochRecord) -> None:
        """Write one line, which is on disk afterwards; a failure leaves the lines from before.

        Raises:
            JournalError: it cannot be written.
        """
        line = (record.model_dump_json() + "\n").encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                end = _end_of_last_line(self.path, file.tell())
                file.truncate(end)
                try:
                    _write(file.fileno(), line)
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise JournalError(f"cannot write {self.path}: {reason(error)}") from error

    def records(self) -> list[EpochRecord]:
        """All epochs in the order in which they were written; none without a file.

        Raises:
            JournalError: the file cannot be read, or a whole line is no record of an epoch.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError(f"cannot read {self.path}: {reason(error)}") from error
        found = []
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                found.append(EpochRecord.model_validate_json(line))
            except ValidationError as error:
                raise JournalError(
                    f"{self.path}, line {number}: expected the record of an epoch as JSON, but {_problem(error)}; "
                    f"give another --out"
                ) from error
        return found

    def rewind(self, epoch: int) -> list[EpochRecord]:
        """Keep the epochs up to this one; later ones and an incomplete line are removed, atomically.

        Returns:
            The epochs that are kept.

        Raises:
            JournalError: the file cannot be read or written.
        """
        kept = [record for record in self.records() if record.epoch <= epoch]
        if self.path.exists():
            write_atomically(self.path, _lines(kept))
        return kept


def _lines(records: Iterable[EpochRecord]) -> str:
    return "".join(record.model_dump_json() + "\n" for record in records)


def _write(handle: int, line: bytes) -> None:
    """All bytes of the line, on disk."""
    while line:
        line = line[os.write(handle, line) :]
    os.fsync(handle)


def _end_of_last_line(path: Path, size: int, block: int = 1 << 16) -> int:
    """The position after the last newline; 0 where there is none."""
    with path.open("rb") as file:
        while size > 0:
            start = max(0, size - block)
            file.seek(start)
            found = file.read(size - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            size = start
    return 0


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
