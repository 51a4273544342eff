"""Importing and calling code of the user."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from freqrobust.core.errors import FreqRobustError, PluginError, SpecError
from freqrobust.core.files import regular_file
from freqrobust.core.text import LOG, describe_error, near_miss, shortened

#: Modules that were executed from a file are named by this and the hash of the file.
FILE_MODULE = "freqrobust_file_"


@contextmanager
def running_user_code(
    failed: str | Callable[[BaseException], FreqRobustError],
    error_class: type[FreqRobustError] = PluginError,
    *,
    memory_passes: bool = False,
) -> Iterator[None]:
    """Turn whatever the code inside raises into an error of freqrobust; only ``KeyboardInterrupt`` passes, and that the
    reader of standard output has gone.

    Args:
        failed: how the message begins, or what makes the error from what was raised.
        error_class: the class of the error, where ``failed`` is text.
        memory_passes: let errors that say "out of memory" pass, for a caller that retries with a smaller batch.

    Raises:
        FreqRobustError: the code failed; an error of freqrobust passes unchanged.
    """
    try:
        yield
    except (KeyboardInterrupt, FreqRobustError):
        raise
    except BaseException as error:
        if is_closed_output(error):
            raise
        if memory_passes and _is_out_of_memory(error):
            raise
        LOG.debug("code of a user failed", exc_info=error)
        if isinstance(failed, str):
            raise error_class(shortened(f"{failed}: {describe_error(error)}")) from error
        raise failed(error) from error


def is_closed_output(error: BaseException) -> bool:
    """Whether rich or click stopped because the reader of standard output has gone, as in ``freqrobust ... | head``."""
    if not isinstance(error, SystemExit):
        return False
    if isinstance(error.__context__, BrokenPipeError):  # click
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_code.co_name == "on_broken_pipe"


def _is_out_of_memory(error: BaseException) -> bool:
    from freqrobust.core.memory import is_out_of_memory  # imports torch

    return is_out_of_memory(error)


def call(function: Any, spec: str) -> Any:
    """What a user's factory returns.

    Raises:
        SpecError: it failed.
    """
    with running_user_code(f"{spec} failed", SpecError):
        return function()


def import_module(name: str, wanted_as: str, known: Iterable[str] = ()) -> ModuleType:
    """Import ``name``, also from the current folder; an error says what it was wanted for.

    Raises:
        SpecError: it cannot be imported.
    """

    def failed(error: BaseException) -> SpecError:
        listed = f" (known: {', '.join(known)})" if known else ""
        return SpecError(
            f"{wanted_as}: cannot import {name!r} ({describe_error(error)}){near_miss(name, known)}{listed}"
        )

    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        with running_user_code(failed):
            return importlib.import_module(name)
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def load_file(path: str) -> ModuleType:
    """Execute a Python file as a module of its own; the same content is executed once.

    Raises:
        SpecError: it does not exist, cannot be read, or fails.
    """
    file = regular_file(path, path, SpecError)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror or error}") from error
    folder = str(file.resolve().parent)
    name = f"{FILE_MODULE}{hashlib.sha256(str(file.resolve()).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, folder)
    try:
        with running_user_code(f"{path} cannot be executed", SpecError):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def is_code_spec(spec: str) -> bool:
    """Whether a spec has the form ``module:attribute`` or ``file.py:attribute``."""
    head, _, attribute = spec.rpartition(":")
    modules = head.endswith(".py") or all(part.isidentifier() for part in head.split("."))
    return attribute.isidentifier() and modules


def code_object(
    spec: str, wanted_as: str, known: Iterable[str] = (), error_class: type[FreqRobustError] = SpecError
) -> Any:
    """The object behind ``module:attribute`` or ``file.py:attribute``.

    Args:
        spec: the text.
        wanted_as: what the object is, for messages.
        known: names that the user may have meant instead.
        error_class: the class of the error about a missing attribute.

    Raises:
        FreqRobustError: the module cannot be imported, or has no such attribute.
    """
    head, _, name = spec.rpartition(":")
    module = load_file(head) if head.endswith(".py") else import_module(head, wanted_as, known)
    return _attribute(module, name, head, error_class)


def _attribute(module: ModuleType, attr: str, where: str, error_class: type[FreqRobustError] = SpecError) -> Any:
    with running_user_code(f"{where} failed", error_class):  # a module can have a __getattr__ of its own
        if hasattr(module, attr):
            return getattr(module, attr)
    names = [n for n, v in vars(module).items() if inspect.isclass(v) or inspect.isfunction(v)]
    raise error_class(f"{where} has no {attr!r}{near_miss(attr, names)}")
