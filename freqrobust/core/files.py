"""Paths, atomic writing, and names made from content."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from freqrobust.core.errors import FreqRobustError, JournalError, SpecError
from freqrobust.core.text import one_line

#: Bytes of a file name and of a whole path that common file systems can hold.
_NAME_BYTES, _PATH_BYTES = 255, 4095
_SHOWN = 60
#: Seconds that a process waits for a lock that another one may have for a moment only, and between two tries.
PATIENCE, _AGAIN = 1.0, 0.1
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}

_keeps = ContextVar("keeps", default=True)


def user_path(
    given: str | os.PathLike[str], what: str = "the path", error_class: type[FreqRobustError] = SpecError
) -> Path:
    """A path as a user gave it, ``~`` expanded; it need not exist.

    Args:
        given: the text.
        what: what the path is for, such as the name of the option; the message begins with it.
        error_class: the class of the error.

    Raises:
        FreqRobustError: it is empty, too long, has a NUL character, names a user who does not exist, or leads to
            where this process may not look.
    """
    if not isinstance(given, str | os.PathLike):
        raise error_class(f"{what}: expected a path, but got {type(given).__name__}")
    text = os.fspath(given)
    if not text:
        raise error_class(f"{what}: expected a path, but got an empty one")
    shown = one_line(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
    if "\0" in text:
        raise error_class(f"{what}: a path cannot have a NUL character, but {shown!r} has one")
    try:
        size = len(os.fsencode(text))
        if size > _PATH_BYTES:
            raise error_class(f"{what}: a path cannot be longer than {_PATH_BYTES} bytes, but {shown} has {size}")
        longest = max(len(os.fsencode(part)) for part in text.split(os.sep))
        if longest > _NAME_BYTES:
            raise error_class(
                f"{what}: a file name cannot be longer than {_NAME_BYTES} bytes, but one in {shown} has {longest}"
            )
        # a Path has been through here before, and lost the "./" of "./~name"
        expanded = os.path.expanduser(text) if isinstance(given, str) else text
        if isinstance(given, str) and expanded.startswith("~"):
            raise error_class(f"{what}: there is no home folder for {shown}; for a file of that name write ./{shown}")
        path = Path(expanded)
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError) as error:
        raise error_class(f"{what}: cannot use {shown}: {reason(error)}") from error
    return path


def reason(error: Exception) -> str:
    """What the system says about a failure, without the path."""
    return getattr(error, "strerror", None) or one_line(error)


def regular_file(
    given: str | os.PathLike[str], what: str, error_class: type[FreqRobustError], form: str = "a file"
) -> Path:
    """The path of a file that can be opened without waiting for another process: no folder, pipe, socket or device.

    Args:
        given: the path.
        what: how the message names it.
        error_class: the class of the error.
        form: what was expected.

    Raises:
        FreqRobustError: it is not there, or not a file.
    """
    path = user_path(given, what, error_class)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise error_class(f"{what} does not exist") from None
    if not stat.S_ISREG(mode):
        raise error_class(f"{what} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}; expected {form}")
    return path


def identity(content: Any) -> str:
    """A short name for JSON-like content: equal content, equal name."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cache_root() -> Path:
    """``$FREQROBUST_CACHE``, or the user's cache folder.

    Raises:
        SpecError: the variable is not a path, or there is no home folder.
    """
    given = os.environ.get("FREQROBUST_CACHE")
    if given:
        return user_path(given, "FREQROBUST_CACHE")
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "the cache folder") / "freqrobust"


@contextmanager
def keeping_nothing() -> Iterator[None]:
    """Inside the block nothing is kept for later runs: neither what was found out about files, nor their decoded pixels."""
    token = _keeps.set(False)
    try:
        yield
    finally:
        _keeps.reset(token)


def keeps() -> bool:
    """Whether this thread is outside of :func:`keeping_nothing`."""
    return _keeps.get()


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash; pipes and devices are written to.

    Raises:
        JournalError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    path = user_path(path, "cannot write", JournalError)
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
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead round in a circle
        raise JournalError(f"cannot write {path}: {reason(error)}") from error


def check_writable(path: str | os.PathLike[str], what: str = "cannot write") -> None:
    """Raise early if ``path`` could not be written at the end; leaves nothing behind.

    Raises:
        JournalError: it is no path, it is a folder, or its own folder cannot be made or written.
    """
    given = user_path(path, what, JournalError)
    try:
        target = given.resolve()
        if target.is_dir():
            raise JournalError(f"cannot write {given}: it is a directory")
        if target.exists() and not target.is_file():
            return  # a pipe or a device
        folder = target.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise JournalError(f"cannot write {given}: {folder} is not a folder")
        if len(os.fsencode(target.name)) > os.pathconf(folder, "PC_NAME_MAX"):
            raise JournalError(f"cannot write {given}: the name is too long")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead round in a circle
        raise JournalError(f"cannot write {given}: {reason(error)}") from error


@contextmanager
def exclusive(folder: Path, patient: bool = False) -> Iterator[bool]:
    """Whether the folder, or the file, is free; inside the block it is then taken, for all processes that ask.

    It becomes free when the process ends, however it ends. Where the system or the file system has no locks, it is free.

    Args:
        folder: the folder, or the file.
        patient: look again for a second, as a process that only looks takes it for a moment.
    """
    try:
        handle = _opened(folder)
    except OSError:  # Windows, or a folder that may be written but not read
        yield True
        return
    try:
        yield _locked(handle, patient=patient)
    finally:
        os.close(handle)


@contextmanager
def alone(folder: Path | None) -> Iterator[None]:
    """Inside the block, no other process is inside of one for the same folder; until then, wait.

    Where the file system has no locks, nobody waits.
    """
    handle = None
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if handle is not None:
            import fcntl

            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def in_use(folder: Path | None, patient: bool = False) -> Iterator[bool]:
    """Inside the block, the folder is not free for :func:`exclusive`; several processes may use it at the same time.

    Args:
        folder: the folder, or the file; with None nothing is done.
        patient: see :func:`exclusive`.

    Yields:
        Whether no other process is inside of :func:`exclusive`.
    """
    try:
        handle = os.open(folder, os.O_RDONLY) if folder is not None else None
    except OSError:
        handle = None
    try:
        yield handle is None or _locked(handle, shared=True, patient=patient)
    finally:
        if handle is not None:
            os.close(handle)


def _opened(path: Path) -> int:
    """A file for reading and writing, as NFS locks no other ones for one process alone; a folder can only be read."""
    try:
        return os.open(path, os.O_RDWR)
    except OSError:
        return os.open(path, os.O_RDONLY)


def _locked(handle: int, shared: bool = False, patient: bool = False) -> bool:
    import fcntl

    deadline = time.monotonic() + (PATIENCE if patient else 0.0)
    while True:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_AGAIN)
            continue
        except OSError:  # some network file systems
            pass
        return True
