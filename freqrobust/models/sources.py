"""Where models come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.progress import Progress, Silent
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import call, import_module, load_file, running_user_code
from freqrobust.models import normalization
from freqrobust.results.records import PublishedRecord


@dataclass(frozen=True)
class Loaded:
    """A network without normalisation, and what is known about it."""

    network: nn.Module
    arch: str
    known: normalization.Chosen | None = None
    sha256: str | None = None
    note: str | None = None
    published: PublishedRecord | None = None


@dataclass(frozen=True)
class ModelRequest:
    """What a model source is asked for.

    Attributes:
        spec: as the user wrote it, ``PREFIX`` or ``PREFIX:NAME``.
        name: what follows the prefix.
        trust: whether loading may run code of the checkpoint.
        cache_dir: where the source may keep what it trained or downloaded.
        progress: told what takes long.
    """

    spec: str
    name: str
    trust: bool = False
    cache_dir: Path | None = None
    progress: Progress = field(default_factory=Silent)


@cache
def model_sources() -> dict[str, EntryPoint]:
    """The model sources by prefix: functions from a :class:`ModelRequest` to a :class:`Loaded`.

    Declared in the entry-point group ``freqrobust.model_sources``, by other packages too.
    """
    return {entry.name: entry for entry in entry_points(group="freqrobust.model_sources")}


def factory(spec: str, wanted_as: str) -> Callable[..., Any]:
    """The callable behind ``module:callable`` or ``file.py:callable``."""
    head, _, attr = spec.rpartition(":")
    module = load_file(head) if head.endswith(".py") else import_module(head, f"{wanted_as} {spec!r}")
    with running_user_code(f"{spec} failed", SpecError):  # a module can have a __getattr__ of its own
        found: Callable[..., Any] | None = getattr(module, attr, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v)]
        raise SpecError(f"{head} has no callable {attr!r}{near_miss(attr, names)}")
    return found


def _called(function: Callable[..., Any], spec: str) -> nn.Module:
    found = call(function, spec)
    if not isinstance(found, nn.Module):
        raise ModelError(f"{spec} should return an nn.Module, but returned {type(found).__name__}")
    return found
