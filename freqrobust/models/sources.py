"""Where models come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import call, import_module, load_file, running_user_code
from freqrobust.models import normalization
from freqrobust.results.records import PublishedRecord


@dataclass(frozen=True)
class _Loaded:
    """A network without normalisation, and what is known about it."""

    network: nn.Module
    arch: str
    known: normalization.Chosen | None = None
    sha256: str | None = None
    note: str | None = None
    published: PublishedRecord | None = None


def factory(spec: str, wanted_as: str) -> Callable[..., Any]:
    """The callable behind ``module:callable`` or ``file.py:callable``."""
    head, _, attr = spec.rpartition(":")
    module = load_file(head) if head.endswith(".py") else import_module(head, f"{wanted_as} {spec!r}")
    with running_user_code(f"{spec} failed", SpecError):  # a module can have a __getattr__ of its own
        found = getattr(module, attr, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v)]
        raise SpecError(f"{head} has no callable {attr!r}{near_miss(attr, names)}")
    return found  # type: ignore[no-any-return]


def _called(function: Callable[..., Any], spec: str) -> nn.Module:
    found = call(function, spec)
    if not isinstance(found, nn.Module):
        raise ModelError(f"{spec} should return an nn.Module, but returned {type(found).__name__}")
    return found
