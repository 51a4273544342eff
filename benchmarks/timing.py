"""Timing several sides of a comparison fairly: in turns, after a warm-up, with everything recorded."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


ROOT = Path(__file__).resolve().parents[1]


def parser(description: str, results: str) -> argparse.ArgumentParser:
    """The options that benchmarks with several sides have in common.

    Args:
        description: the docstring of the benchmark, of which the first line is shown.
        results: the name of the file of the raw times, in ``runs/``.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="rounds of all sides in turns")
    shared = os.environ.get("FREQROBUST_SHARED", ROOT.parent / "shared")
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ and checkpoints/")
    parser.add_argument("--threads", type=int, help="threads of torch, for all sides (default: torch's choice)")
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / results, help="raw times")
    return parser


def screen(threads: int | None) -> Console:
    """Where a benchmark prints its tables; torch gets so many threads, if a number is given."""
    import torch
    from rich.console import Console

    if threads:
        torch.set_num_threads(threads)
    console = Console()
    return console if console.is_terminal else Console(width=160)


@dataclass
class Timed:
    """What one side took.

    Attributes:
        cold: seconds of its first call, the warm-up, which is not counted.
        seconds: wall-clock seconds of each round.
        cpu: processor seconds of each round, child processes included. On one thread they hardly depend on what
            else the machine does; on several, threads that wait for each other also count.
        result: what the last round returned.
    """

    cold: float = 0.0
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)


def _cpu_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def alternate(
    sides: Mapping[str, Callable[[], Any]], repeats: int, say: Callable[[str], None] = lambda _: None
) -> dict[str, Timed]:
    """Run every side once to warm up, then ``repeats`` rounds of all sides in turns (A B C A B C ...)."""
    timed = {name: Timed() for name in sides}
    for name, work in sides.items():
        start = time.perf_counter()
        work()
        timed[name].cold = time.perf_counter() - start
    for round_ in range(repeats):
        for name, work in sides.items():
            gc.collect()
            cpu, start = _cpu_seconds(), time.perf_counter()
            timed[name].result = work()
            timed[name].seconds.append(time.perf_counter() - start)
            timed[name].cpu.append(_cpu_seconds() - cpu)
        say(f"round {round_ + 1} of {repeats}: " + ", ".join(f"{n} {t.seconds[-1]:.3g} s" for n, t in timed.items()))
    return timed


def ratio(a: list[float], b: list[float]) -> float:
    """Median over the rounds of ``a / b``, of two sides that took turns."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def packages(*names: str) -> dict[str, str | None]:
    """Installed versions; None where a package is missing."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """The processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def surroundings() -> dict[str, Any]:
    """When and on what a benchmark ran."""
    import torch

    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "openmp": {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "KMP_", "GOMP_"))},
        "load_average": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }
