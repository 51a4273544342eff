"""Waiting for other processes and threads, without an assumption about how fast the machine is."""

from __future__ import annotations

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
