"""The rows of the comparison: which sides, how often, and what is aimed for."""

from __future__ import annotations

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
from timing import Timed, alternate, ratio

from freqrobust import load_model
from freqrobust.attacks.active_set import steps_between
from freqrobust.data.dataset import ImageData
from freqrobust.data.loading import load_data
from freqrobust.harness.devices import auto_batch_size
from freqrobust.models.batch_norm_folding import fold_batch_norm
from freqrobust.numerics.frequency import low_pass

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
class Batches:
    """What the rows share; models are loaded, and sides measured, when the first row needs them."""

    shared: Path
    repeats: int
    images: int
    peer_batch: int
    say: Callable[[str], None]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def data(self) -> ImageData:
        return load_data(str(self.shared / "data/cifar10/test_500.npz"))

    def task(self, model: torch.nn.Module) -> sides.Task:
        images, labels, _ = self.data.batch(torch.arange(min(self.images, len(self.data))), self.device)
        return sides.Task(model.to(self.device), images, labels)

    @cached_property
    def resnet(self) -> sides.Task:
        return self.task(load_model(self.shared / "checkpoints/resnet20-12fca82f.th"))

    @cached_property
    def small(self) -> sides.Task:
        return self.task(cifar_small.load(self.shared / "checkpoints/cifar_small_36px.pth"))

    @cached_property
    def batch_size(self) -> int:
        """What ``batch_size="auto"`` stands for, used by the hand-written loops too."""
        return auto_batch_size(self.resnet.model, self.data.shape, self.device)

    def run(self, group: dict[str, Callable[[], Any]], rounds: int = 1, quiet: bool = False) -> dict[str, Timed]:
        return alternate(group, self.repeats * rounds, (lambda _: None) if quiet else self.say)


def resnet_rows(batches: Batches, wanted: set[str]) -> list[Row]:
    """The rows on ResNet-20, measured in the same rounds."""
    task, size = batches.resnet, batches.batch_size
    image = task.images[:4]
    every: dict[str, Callable[[], Any]] = {
        "freqrobust": lambda: sides.ours(task),
        "freqrobust, maximize": lambda: sides.ours_maximize(task, size),
        "torchattacks": lambda: sides.torchattacks(task, batches.peer_batch),
        "foolbox": lambda: sides.foolbox(task, batches.peer_batch),
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
    times = batches.run({name: work for name, work in every.items() if name in needed})
    return [Row(*row, times, _accuracies(times[row[2]], times[row[3]])) for row in plan]


def _pgd(task: sides.Task, model: str) -> str:
    return f"PGD-{task.steps}, {model}, {len(task.images)} images"


def _accuracies(ours: Timed, theirs: Timed) -> str:
    a, b = ours.result.robust, theirs.result.robust
    return f"robust {a:.1%} / {b:.1%} ({100 * (a - b):+.1f} points)"


def small_rows(batches: Batches) -> list[Row]:
    """A small network without batch norm."""
    task = batches.small
    theirs = partial(sides.torchattacks, task, batches.peer_batch)
    times = batches.run({"freqrobust": lambda: sides.ours(task), "torchattacks": theirs}, SMALL_ROUNDS, quiet=True)
    what = _pgd(task, "cifar_small_36px")
    note = _accuracies(times["freqrobust"], times["torchattacks"])
    return [Row("small", what, "freqrobust", "torchattacks", True, 1.5, times, note)]


def sweep_rows(batches: Batches) -> list[Row]:
    """Five eps at once against five calls."""
    task = batches.resnet
    together, apart = partial(sides.sweep_together, task, SWEEP), partial(sides.sweep_apart, task, SWEEP)
    times = batches.run({"one evaluate()": together, "five evaluate()": apart})
    a, b = times["one evaluate()"].result, times["five evaluate()"].result
    pairs = ", ".join(f"{x.robust:.1%} / {y.robust:.1%}" for x, y in zip(a, b, strict=True))
    forwards, backwards = (
        sum(getattr(one, way) for one in a) / sum(getattr(one, way) for one in b) for way in ("forwards", "backwards")
    )
    note = f"robust {pairs}; {forwards:.2f} of the forward and {backwards:.2f} of the backward passes"
    what = f"{_pgd(task, 'ResNet-20')}, eps {', '.join(f'{eps:g}' for eps in SWEEP)} /255"
    return [Row("sweep", what, "one evaluate()", "five evaluate()", False, 0.6, times, note)]


def filter_rows(batches: Batches) -> list[Row]:
    """Our low-pass against the bare transforms."""
    images, _, _ = batches.data.batch(torch.arange(min(FILTERED, len(batches.data))), batches.device)
    bare = sides.bare_low_pass(images, 12)
    group = {"low_pass": lambda: waited(low_pass(images, 12)), "bare FFTs": lambda: waited(bare())}
    times = batches.run(group, FILTER_ROUNDS, quiet=True)
    farthest = float((times["low_pass"].result - times["bare FFTs"].result).abs().max())
    what = f"LFC at radius 12 of {len(images)} images"
    return [Row("lfc", what, "low_pass", "bare FFTs", False, 1.3, times, f"largest difference {farthest:.1g}")]


def waited(found: torch.Tensor) -> torch.Tensor:
    """A result, when the device has it."""
    if found.device.type == "cuda":
        torch.cuda.synchronize(found.device)
    return found


def start_rows(batches: Batches) -> list[Row]:
    """How soon the command line answers."""
    script = Path(sys.executable).with_name("freqrobust")
    group = {
        "freqrobust --help": lambda: _quietly([str(script), "--help"]),
        "import torch": lambda: _quietly([sys.executable, "-c", "import torch"]),
    }
    times = batches.run(group, START_ROUNDS, quiet=True)
    return [Row("help", "start-up of the command line", "freqrobust --help", "import torch", False, 0.3, times)]


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def passes(batches: Batches) -> dict[str, Any]:
    """Images that went forward and backward: reported, necessary (the loop's own count), and true.

    On an accelerator, where our attack does not look after every step which samples are done, ``equal`` is None.
    """
    task, folded = batches.resnet, fold_batch_norm(batches.resnet.model, batches.resnet.images[:4])
    counts = {
        "reported": sides.ours(task),
        "loop": sides.loop(task, batches.batch_size),
        "loop, batch norm folded": sides.loop(task, batches.batch_size, folded),
        "evaluate() with set-up, counted from outside": sides.true_passes(task),
    }
    found: dict[str, Any] = {name: [one.forwards, one.backwards] for name, one in counts.items()}
    looks = steps_between(batches.device) == 1
    found["equal"] = found["reported"] == found["loop, batch norm folded"] if looks else None
    return found
