"""The peak memory of a piece of work, in a process of its own that has done the same before."""

from __future__ import annotations

from pathlib import Path

import pytest

_RESET = Path("/proc/self/clear_refs")


def _can_be_measured() -> bool:
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


needs_peaks = pytest.mark.skipif(not _can_be_measured(), reason="the system does not tell the peak memory of a process")
#: For the environment: each array of pixels is given back to the system at once, so that no gaps in the memory count.
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
#: Code in which ``peak(work)`` is the largest memory of the process in KiB while it works. What ``getrusage`` says is at least
#: the peak of the process that started it; and the libraries that are imported once take more for a moment than the work.
PEAK = f"""
def peak(work):
    with open("{_RESET}", "w") as file:
        file.write("5")
    work()
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
"""
