"""freqrobust beside its peers: same model, same images, same threads, in turns, in one run.

    python benchmarks/peers.py [--repeats 3] [--images 250] [--only maximize,foolbox]

Every row has a target. A ratio is the median over the rounds of one side's time over the other's in the
same round. Exit code 1 if a target was missed.

On a machine that does other things at the same time, threads that wait for each other by spinning can take
ten times as long: set OMP_WAIT_POLICY=PASSIVE there (or --threads 1), and look at the ratio by CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cifar_small
import sides
import torch
from rich.console import Console
from rich.table import Table
from timing import Timed, alternate, packages, ratio, surroundings

from freqrobust import load_model
from freqrobust.data import ImageData, load_data
from freqrobust.devices import auto_batch_size
from freqrobust.frequency import low_pass
from freqrobust.fusion import fold_batch_norm

ROOT = Path(__file__).resolve().parents[1]
SWEEP = [0.5, 1.0, 2.0, 4.0, 8.0]
#: The images of the low-pass row, and its rounds for each of ``--repeats``.
FILTERED, FILTER_ROUNDS = 500, 100
#: Rounds of the start-up row for each of ``--repeats``.
START_ROUNDS = 5
#: Rounds of the row on the small network for each of ``--repeats``.
SMALL_ROUNDS = 5


@dataclass
class Row:
    """One comparison.

    Attributes:
        faster: the target is how many times faster ours is, at least; else our share of their time, at most.
        bound: the target; None for a row that only informs.
        notes: what else was seen.
    """

    name: str
    what: str
    ours: str
    theirs: str
    faster: bool
    bound: float | None
    times: dict[str, Timed] = field(repr=False)
    notes: str = ""

    @property
    def ratio(self) -> float:
        """Their time over ours, or ours over theirs: the way the target is stated."""
        return self._over(self.times[self.ours].seconds, self.times[self.theirs].seconds)

    @property
    def cpu_ratio(self) -> float:
        """The same of processor seconds."""
        return self._over(self.times[self.ours].cpu, self.times[self.theirs].cpu)

    def _over(self, ours: list[float], theirs: list[float]) -> float:
        return ratio(theirs, ours) if self.faster else ratio(ours, theirs)

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        if self.bound is None:
            return None
        return self.ratio >= self.bound if self.faster else self.ratio <= self.bound


@dataclass
class Bench:
    """What the rows share; models are loaded, and sides measured, when the first row needs them."""

    shared: Path
    repeats: int
    images: int
    peer_batch: int
    say: Callable[[str], None]

    @cached_property
    def data(self) -> ImageData:
        return load_data(str(self.shared / "data/cifar10/test_500.npz"))

    def task(self, model: torch.nn.Module) -> sides.Task:
        images, labels, _ = self.data.batch(torch.arange(min(self.images, len(self.data))), sides.CPU)
        return sides.Task(model, images, labels)

    @cached_property
    def resnet(self) -> sides.Task:
        return self.task(load_model(self.shared / "checkpoints/resnet20-12fca82f.th"))

    @cached_property
    def small(self) -> sides.Task:
        return self.task(cifar_small.load(self.shared / "checkpoints/cifar_small_36px.pth"))

    @cached_property
    def batch_size(self) -> int:
        """What ``batch_size="auto"`` stands for, used by the hand-written loops too."""
        return auto_batch_size(self.resnet.model, self.data.shape, sides.CPU)

    def run(self, group: dict[str, Callable[[], Any]], rounds: int = 1, quiet: bool = False) -> dict[str, Timed]:
        return alternate(group, self.repeats * rounds, (lambda _: None) if quiet else self.say)


def resnet_rows(bench: Bench, wanted: set[str]) -> list[Row]:
    """The rows on ResNet-20, measured in the same rounds."""
    task, size = bench.resnet, bench.batch_size
    image = task.images[:4]
    every: dict[str, Callable[[], Any]] = {
        "freqrobust": lambda: sides.ours(task),
        "freqrobust, maximize": lambda: sides.ours_maximize(task, size),
        "torchattacks": lambda: sides.torchattacks(task, bench.peer_batch),
        "foolbox": lambda: sides.foolbox(task, bench.peer_batch),
        "loop": lambda: sides.loop(task, size),
        "loop, batch norm folded": lambda: sides.loop(task, size, fold_batch_norm(task.model, image)),
    }
    pgd = _pgd(task, "ResNet-20")
    plan: list[tuple[str, str, str, str, bool, float | None]] = [
        ("torchattacks", pgd, "freqrobust", "torchattacks", True, 4.0),
        ("maximize", f"{pgd}, all samples, all steps", "freqrobust, maximize", "torchattacks", True, 1.1),
        ("foolbox", pgd, "freqrobust", "foolbox", True, 6.0),
        ("loop", pgd, "freqrobust", "loop", False, 1.10),
        ("loop", pgd, "freqrobust", "loop, batch norm folded", False, None),
    ]
    plan = [row for row in plan if row[0] in wanted]
    needed = {side for row in plan for side in row[2:4]}
    times = bench.run({name: work for name, work in every.items() if name in needed})
    return [Row(*row, times, _accuracies(times[row[2]], times[row[3]])) for row in plan]


def _pgd(task: sides.Task, model: str) -> str:
    return f"PGD-{task.steps}, {model}, {len(task.images)} images"


def _accuracies(ours: Timed, theirs: Timed) -> str:
    a, b = ours.result.robust, theirs.result.robust
    return f"robust {a:.1%} / {b:.1%} ({100 * (a - b):+.1f} points)"


def small_rows(bench: Bench) -> list[Row]:
    """A small network without batch norm."""
    task = bench.small
    theirs = partial(sides.torchattacks, task, bench.peer_batch)
    times = bench.run({"freqrobust": lambda: sides.ours(task), "torchattacks": theirs}, SMALL_ROUNDS, quiet=True)
    what = _pgd(task, "cifar_small_36px")
    note = _accuracies(times["freqrobust"], times["torchattacks"])
    return [Row("small", what, "freqrobust", "torchattacks", True, 1.5, times, note)]


def sweep_rows(bench: Bench) -> list[Row]:
    """Five eps at once against five calls."""
    task = bench.resnet
    together, apart = partial(sides.sweep_together, task, SWEEP), partial(sides.sweep_apart, task, SWEEP)
    times = bench.run({"one evaluate()": together, "five evaluate()": apart})
    a, b = times["one evaluate()"].result, times["five evaluate()"].result
    note = "robust " + ", ".join(f"{x:.1%} / {y:.1%}" for x, y in zip(a, b, strict=True))
    what = f"{_pgd(task, 'ResNet-20')}, eps {', '.join(f'{eps:g}' for eps in SWEEP)} /255"
    return [Row("sweep", what, "one evaluate()", "five evaluate()", False, 0.6, times, note)]


def filter_rows(bench: Bench) -> list[Row]:
    """Our low-pass against the bare transforms."""
    images, _, _ = bench.data.batch(torch.arange(min(FILTERED, len(bench.data))), sides.CPU)
    bare = sides.bare_low_pass(images, 12)
    times = bench.run({"low_pass": lambda: low_pass(images, 12), "bare FFTs": bare}, FILTER_ROUNDS, quiet=True)
    farthest = float((times["low_pass"].result - times["bare FFTs"].result).abs().max())
    what = f"LFC at radius 12 of {len(images)} images"
    return [Row("lfc", what, "low_pass", "bare FFTs", False, 1.3, times, f"largest difference {farthest:.1g}")]


def start_rows(bench: Bench) -> list[Row]:
    """How soon the command line answers."""
    script = Path(sys.executable).with_name("freqrobust")
    group = {
        "freqrobust --help": lambda: _quietly([str(script), "--help"]),
        "import torch": lambda: _quietly([sys.executable, "-c", "import torch"]),
    }
    times = bench.run(group, START_ROUNDS, quiet=True)
    return [Row("help", "start-up of the command line", "freqrobust --help", "import torch", False, 0.3, times)]


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def passes(bench: Bench) -> dict[str, Any]:
    """Images that went forward and backward: reported, necessary (the loop's own count), and true."""
    task, folded = bench.resnet, fold_batch_norm(bench.resnet.model, bench.resnet.images[:4])
    counts = {
        "reported": sides.ours(task),
        "loop": sides.loop(task, bench.batch_size),
        "loop, batch norm folded": sides.loop(task, bench.batch_size, folded),
        "evaluate() with set-up, counted from outside": sides.true_passes(task),
    }
    found: dict[str, Any] = {name: [one.forwards, one.backwards] for name, one in counts.items()}
    found["equal"] = found["reported"] == found["loop, batch norm folded"]
    return found


NAMES = ["torchattacks", "maximize", "foolbox", "loop", "small", "sweep", "lfc", "help", "passes"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="rounds (more for the short rows)")
    shared = os.environ.get("FREQROBUST_SHARED", ROOT.parent / "shared")
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ and checkpoints/")
    parser.add_argument("--images", type=int, default=250, help="first test images of CIFAR-10, at most 500")
    parser.add_argument("--peer-batch", type=int, default=125, help="batch size of torchattacks and Foolbox")
    parser.add_argument("--threads", type=int, help="threads of torch, for all sides (default: torch's choice)")
    parser.add_argument("--json", type=Path, default=ROOT / "runs/peers.json", help="raw times")
    parser.add_argument("--only", default=",".join(NAMES), help=f"rows: {','.join(NAMES)}")
    given = parser.parse_args()
    given.only = {name.strip() for name in given.only.split(",") if name.strip()}
    if unknown := given.only - set(NAMES):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))} (known: {', '.join(NAMES)})")
    if not (given.shared / "checkpoints").is_dir():
        parser.error(f"{given.shared} holds no checkpoints; give --shared or set FREQROBUST_SHARED")
    return given


def table(rows: list[Row]) -> Table:
    shown = Table(title="freqrobust beside its peers: medians, sides in turns; PGD in Linf, eps 2/255 unless said")
    shown.add_column("what")
    for name in ("ours", "theirs", "ratio", "by CPU time", "target"):
        shown.add_column(name, justify="right", no_wrap=name != "what")
    shown.add_column("met")
    for row in rows:
        unit, sign = ("x faster", ">=") if row.faster else ("x the time", "<=")
        shown.add_row(
            row.what,
            f"{row.ours}\n{_seconds(row.times[row.ours])}",
            f"{row.theirs}\n{_seconds(row.times[row.theirs])}",
            f"{row.ratio:.2f}{unit}",
            f"{row.cpu_ratio:.2f}",
            f"{sign} {row.bound:g}" if row.bound is not None else "none",
            {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row.met],
            end_section=True,
        )
    return shown


def _seconds(timed: Timed) -> str:
    return f"{timed.median:.2f} s" if timed.median >= 0.1 else f"{timed.median * 1000:.2f} ms"


def record(row: Row) -> dict[str, Any]:
    chosen = {"ours": row.times[row.ours], "theirs": row.times[row.theirs]}
    return {
        "name": row.name,
        "what": row.what,
        "sides": {"ours": row.ours, "theirs": row.theirs},
        "ratio_of": "theirs / ours" if row.faster else "ours / theirs",
        "ratio": row.ratio,
        "cpu_ratio": row.cpu_ratio,
        "target": row.bound,
        "met": row.met,
        "seconds": {key: timed.seconds for key, timed in chosen.items()},
        "cpu_seconds": {key: timed.cpu for key, timed in chosen.items()},
        "first_call_seconds": {key: timed.cold for key, timed in chosen.items()},
        "notes": row.notes,
    }


def main() -> int:
    given = arguments()
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    if given.threads:
        torch.set_num_threads(given.threads)
    before = surroundings()
    bench = Bench(given.shared, given.repeats, given.images, given.peer_batch, console.print)
    batch = bench.batch_size
    versions = packages("freqrobust", "torch", "torchattacks", "foolbox", "numpy")
    console.print(f"{before['cpu']}, {before['threads']} threads, load {before['load_average']}; {versions}")
    console.print(f"batches: ours and the loops {batch} (auto), torchattacks and Foolbox {given.peer_batch}")
    rows: list[Row] = []
    if given.only & {"torchattacks", "maximize", "foolbox", "loop"}:
        rows += resnet_rows(bench, given.only)
    for name, measure in [("small", small_rows), ("sweep", sweep_rows), ("lfc", filter_rows), ("help", start_rows)]:
        if name in given.only:
            rows += measure(bench)
    counts = passes(bench) if "passes" in given.only else None
    if rows:
        console.print(table(rows))
    for row in rows:
        if row.notes:
            console.print(f"{row.ours} / {row.theirs}: {row.notes}")
    if counts is not None:
        equal = counts.pop("equal")
        for name, (forwards, backwards) in counts.items():
            console.print(f"passes, {name}: {forwards} forward, {backwards} backward")
        console.print(f"reported passes are {'' if equal else 'not '}those that must happen")
        counts["equal"] = equal
    content = {
        "surroundings": before,
        "load_average_after": surroundings()["load_average"],
        "versions": versions,
        "options": {
            "repeats": given.repeats,
            "images": given.images,
            "peer_batch": given.peer_batch,
            "our_batch": batch,
        },
        "rows": [record(row) for row in rows],
        "passes": counts,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(f"raw times: {given.json}")
    missed = [row.name for row in rows if row.met is False] + (["passes"] if counts and not counts["equal"] else [])
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
