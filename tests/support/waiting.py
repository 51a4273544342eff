"""Waiting for other processes and threads without an assumption about how busy the machine is, and what they took."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

#: Seconds after which a process or a thread counts as hanging: far more than it takes on a busy machine.
PATIENCE = 600.0


def wait_until(happened: Callable[[], bool], running: subprocess.Popen[str] | None = None) -> None:
    """Wait until something has happened, while a process is running where one is given.

    Raises:
        AssertionError: the process has ended, or it does not happen.
    """
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert running is None or running.poll() is None, "the process has ended"
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def processor_seconds_of_children() -> float:
    """What processes that have ended took, which does not depend on what else is running, as the time on a clock does."""
    times = os.times()
    return times.children_user + times.children_system
