"""What makes commands start and end faster."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def load_engine() -> None:
    """Import the engine, and PyTorch with it, without looking for garbage meanwhile.

    What was imported is never collected, so that the end of the process does not look through it either: both take about
    0.3 s each.
    """
    if "torch" in sys.modules:
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        import_module("freqrobust.harness.evaluate")
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def remembering_sources(config: Any) -> Iterator[None]:
    """Inside, source files that an earlier command has parsed for their hash are not parsed again."""
    from freqrobust.core.errors import FreqRobustError
    from freqrobust.core.files import cache_root, keeps, user_path
    from freqrobust.core.source_hash import remembering

    given = getattr(config, "cache_dir", None)
    try:
        folder = user_path(given, "--cache-dir") if given is not None else cache_root()
    except FreqRobustError:  # the command says so, where it needs the folder
        yield
        return
    with remembering(folder / "sources", only_read=not keeps()):
        yield
