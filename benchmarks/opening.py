"""How long it takes until measuring begins: loading, hashing, checking and opening, for ResNet-20 and 500 images.

    python benchmarks/opening.py [--repeats 5] [--against FOLDER]

Each repetition is one ``freqrobust eval`` with the defense ``smooth``, of which only the time before each clean pass
counts; the diagnosis is left out. ``--against`` is another checkout of freqrobust: both are
measured in turns, in processes of their own, and the ratios of this one to that one are printed. The last table counts
how often a whole model is hashed or copied, and the data is hashed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMAGES = 500
PHASES = ("load and open", "open the defense")
ARGUMENTS = ("--attack", "clean", "--defense", "smooth", "--no-oblivious", "--device", "cpu", "--quiet")


def now() -> tuple[float, float]:
    """Processor seconds and wall-clock seconds."""
    return time.process_time(), time.perf_counter()


class Clock:
    """Stands in for the progress bar: notes the time from the end of one cell to the beginning of the next."""

    mark = now()
    found: list[tuple[str, float, float]] = []

    def __init__(self, quiet: bool) -> None: ...

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *error: object) -> None: ...

    def begin(self, label: str, total: int) -> None:
        cpu, wall = now()
        Clock.found.append((label, cpu - Clock.mark[0], wall - Clock.mark[1]))

    def advance(self, amount: int) -> None: ...

    def end(self, summary: str) -> None:
        Clock.mark = now()

    def say(self, message: str) -> None: ...


def prepare(folder: Path) -> None:
    """An untrained ResNet-20 and random images, as files."""
    import numpy as np
    import torch

    from freqrobust.models.architectures import ARCHITECTURES

    torch.manual_seed(0)
    torch.save(ARCHITECTURES["resnet20"].build(num_classes=10).state_dict(), folder / "net.pth")
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", images=images, labels=np.arange(IMAGES) % 10)


def command(arguments: list[str]) -> None:
    """``freqrobust ARGUMENTS``, in this process and in either layout of the modules."""
    first_module("freqrobust.cli.main", "freqrobust.cli").main(arguments)


def first_module(*names: str) -> Any:
    """The first of these modules that exists."""
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise ImportError(f"none of {', '.join(names)} exists")


def everywhere(original: Any, replacement: Any, name: str) -> None:
    """Replace a function or class in every module of freqrobust that has it under this name."""
    for module in [module for key, module in sys.modules.items() if key.startswith("freqrobust")]:
        if getattr(module, name, None) is original:
            setattr(module, name, replacement)


def once(folder: Path) -> dict[str, tuple[float, float]]:
    """Processor and wall-clock seconds of each phase of one evaluation."""
    Clock.found = []
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as out:
        os.chdir(out)
        Clock.mark = now()
        try:
            command(["eval", "--model", str(folder / "net.pth"), "--data", str(folder / "data.npz"), *ARGUMENTS])
        except SystemExit as done:
            if done.code:
                raise
        finally:
            os.chdir(here)
    spent = dict.fromkeys(PHASES, (0.0, 0.0))
    for label, cpu, wall in Clock.found:
        phase = PHASES[not label.startswith(("none", "undefended"))]
        spent[phase] = spent[phase][0] + cpu, spent[phase][1] + wall
    return spent


def count_calls(counts: Counter[str]) -> None:
    """Count from here on the calls of what hashes or copies a whole model, or hashes the data."""
    from torch import nn

    hashing = first_module("freqrobust.models.fingerprint", "freqrobust.models")
    ImageData = first_module("freqrobust.data.dataset", "freqrobust.data").ImageData  # noqa: N806

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    for name in ("fingerprint", "state_hash"):
        original = getattr(hashing, name)
        everywhere(original, counting(name, original), name)
    deepcopy, depth = copy.deepcopy, 0

    def copying(value: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        if depth == 0 and isinstance(value, nn.Module) and list(value.children()):
            counts["deepcopy"] += 1
        depth += 1
        try:
            return deepcopy(value, *args, **kwargs)
        finally:
            depth -= 1

    copy.deepcopy = copying
    if hasattr(ImageData, "_hash"):
        ImageData._hash = counting("data sha256", ImageData._hash)  # type: ignore[method-assign]
    else:  # a cached property
        vars(ImageData)["sha256"].func = counting("data sha256", vars(ImageData)["sha256"].func)


def work(root: Path, folder: Path) -> None:
    """Answer each line on standard input with the seconds of one evaluation by the checkout at ``root``."""
    sys.path.insert(0, str(root))
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    import freqrobust

    freqrobust.__path__.append(str(root))  # attacks, defenses and reports are beside it
    assert Path(str(freqrobust.__file__)).is_relative_to(root)
    import torch

    screen = first_module("freqrobust.core.progress", "freqrobust.progress", "freqrobust.run")
    examining = first_module("freqrobust.harness.evaluate", "freqrobust.session")
    first_module("freqrobust.cli.eval", "freqrobust.run")  # has names of its own for both
    everywhere(screen.Screen, Clock, "Screen")
    everywhere(examining.examine, lambda *_: None, "examine")
    torch.set_num_threads(1)
    if not (folder / "net.pth").exists():
        prepare(folder)
    counts: Counter[str] = Counter()
    for line in sys.stdin:
        if line.strip() == "count":
            count_calls(counts)
        spent = once(folder)
        print(json.dumps({"spent": spent, "counts": counts}), flush=True)


class Side:
    """One checkout, in a process of its own."""

    def __init__(self, root: Path, folder: Path) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(root), str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.rounds: list[dict[str, tuple[float, float]]] = []

    def ask(self, what: str) -> dict[str, Any]:
        """One evaluation."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def seconds(self, phase: str | None, kind: int) -> list[float]:
        """Of each round; of all phases where none is named."""
        return [sum(spent[p][kind] for p in ([phase] if phase else PHASES)) for spent in self.rounds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--worker", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(*given.worker)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sides = {"this": Side(ROOT, folder)}
        sides["this"].ask("time")  # to warm up, and to make the files
        if given.against is not None:
            sides["other"] = Side(given.against.resolve(), folder)
            sides["other"].ask("time")
        for _ in range(given.repeats):
            for side in sides.values():
                side.rounds.append(side.ask("time")["spent"])
        counts = {name: side.ask("count")["counts"] for name, side in sides.items()}
        for side in sides.values():
            assert side.process.stdin is not None
            side.process.stdin.close()
            side.process.wait()
    print(f"median of {given.repeats} rounds, one thread")
    for kind, unit in enumerate(("processor seconds", "wall-clock seconds")):
        for phase in (*PHASES, None):
            times = {name: side.seconds(phase, kind) for name, side in sides.items()}
            shown = ", ".join(f"{name} {statistics.median(values):.3f}" for name, values in times.items())
            if "other" in times:
                ratios = [a / b for a, b in zip(times["this"], times["other"], strict=True)]
                shown += f", ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{phase or 'together'}, {unit}: {shown}")
    for name, found in counts.items():
        print(f"calls, {name}: {', '.join(f'{key} {value}' for key, value in sorted(found.items()))}")


if __name__ == "__main__":
    main()
