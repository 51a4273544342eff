"""What ``--compile`` and ``--precision bf16`` save, and how well ``--compile auto`` chooses; all sides in turns.

    python benchmarks/compile.py [--repeats 3] [--eps 0.5,2,8] [--only passes,speed,auto]

``passes``: forward and backward passes of ResNet-20 alone, as attacks make them, beside a product of two matrices in the
same precision, which is about the fastest arithmetic of the processor: what no code can be faster than.
``speed``: PGD-20 in Linf on ResNet-20, 1,000 images (the first 500 test images of CIFAR-10, twice): an evaluation (clean
pass, attack, predictions of the examples and of the rounded examples, no checks) in each of four ways, and torchattacks
with the clean and the final prediction. The time of compiling is left out, and stated. ``auto``: three evaluations with
``compile`` on, off and auto; the time of compiling is included, without caches.

A ratio is the median over the rounds of the ratios within a round, of processor seconds as well: on a machine that does
other things at the same time these are steadier. Exit code 1 if a target was missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sides
import timing
import torch
from rich.console import Console
from rich.table import Table
from timing import packages, ratio, surroundings
from torch.utils.flop_counter import FlopCounterMode

from freqrobust import Report, evaluate, load_model
from freqrobust.data.dataset import ImageData
from freqrobust.data.loading import load_data
from freqrobust.harness import target_model
from freqrobust.harness.compiled_model import Passes, logits_and_gradient

#: Targets: our compiled bf16 against our eager fp32 and against torchattacks, and auto against the better of on and off.
OWN, PEER, AUTO = 2.2, 8.0, 1.05
#: By how much the robust accuracies may differ, in points.
POINTS = 0.5


@dataclass
class Times:
    """Seconds of the rounds of one side, without those of compiling, and what it found."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    compiling: list[float] = field(default_factory=list)
    robust: float = 0.0


@contextmanager
def compiling() -> Iterator[list[tuple[float, float]]]:
    """Inside, the wall and processor seconds of each compilation are noted."""
    original, noted = target_model.compile_model, list[tuple[float, float]]()

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter(), time.process_time()
        try:
            return original(*args, **kwargs)
        finally:
            noted.append((time.perf_counter() - start[0], time.process_time() - start[1]))

    target_model.compile_model = timed
    try:
        yield noted
    finally:
        target_model.compile_model = original


def note(times: Times, work: Callable[[], float], excluding: bool) -> None:
    """Do the work once, and note its time."""
    with compiling() as noted:
        start = time.perf_counter(), time.process_time()
        times.robust = work()
        wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    spent = [sum(column) for column in zip(*noted, strict=True)] if noted else [0.0, 0.0]
    times.compiling.append(spent[0])
    times.wall.append(wall - spent[0] * excluding)
    times.cpu.append(cpu - spent[1] * excluding)


def rounds(
    group: dict[str, Callable[[], float]], repeats: int, excluding: bool, say: Callable[[str], None]
) -> dict[str, Times]:
    """Every side once in each round; a first round is not counted where compiling is excluded, as it fills caches."""
    found = {name: Times() for name in group}
    if excluding:
        for name, work in group.items():
            first = Times()
            note(first, work, excluding)
            found[name].compiling = first.compiling
    for number in range(repeats):
        for name, work in group.items():
            note(found[name], work, excluding)
            say(
                f"round {number + 1}, {name}: {found[name].wall[-1]:.2f} s, {found[name].cpu[-1]:.2f} s of the processor"
            )
    return found


def robust(report: Report) -> float:
    """The robust accuracy of the last attack."""
    accuracy = report.cells[-1].accuracy
    if accuracy is None:
        raise RuntimeError(f"{report.cells[-1].attack_spec} failed: {report.cells[-1].error}")
    return accuracy


def fastest(work: Callable[[], object], times: int = 8) -> float:
    """Processor seconds of the fastest of several calls, after one that is not counted."""
    work()
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def pass_rows(given: argparse.Namespace, data: ImageData) -> list[dict[str, Any]]:
    """Forward and backward passes alone, and how much of the arithmetic speed of the processor they reach."""
    model = load_model(given.shared / "checkpoints/resnet20-12fca82f.th").eval().requires_grad_(False)
    cpu = torch.device("cpu")
    images = data.batch(torch.arange(min(128, len(data))), cpu)[0]
    rows = []
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        target = target_model.TargetModel(model, model, images[:4], device=cpu, precision=precision)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            target.folded(images)
        work = 2 * counter.get_total_flops()  # the gradient of a convolution takes as much as the convolution
        matrix = torch.rand(1024, 1024).to(kind)
        product = 2 * 1024**3 / fastest(lambda matrix=matrix: matrix @ matrix)
        ways: dict[str, torch.nn.Module] = {"eager": target.view.model}
        if precision == "bf16":
            ways["eager, contiguous"] = Passes(target.folded, cpu, "bf16", channels_last=False)
        target.compile(images)
        ways["compiled"] = target.view.model
        for name, passes in ways.items():
            seconds = fastest(lambda passes=passes: logits_and_gradient(passes, images))
            speed = work / seconds
            rows.append({"precision": precision, "way": name, "images": len(images) / seconds})
            rows[-1] |= {"speed": speed, "product": product, "share": speed / product}
    return rows


def speed_rows(given: argparse.Namespace, data: ImageData, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """PGD-20 on ResNet-20 in four ways, beside torchattacks."""
    model = load_model(given.shared / "checkpoints/resnet20-12fca82f.th")
    images, labels, _ = data.batch(torch.arange(given.images) % len(data), torch.device("cpu"))
    rows = []
    for eps in given.eps:
        task = sides.Task(model, images, labels, eps / 255)

        def ours(task: sides.Task = task, **options: Any) -> float:
            pair = (task.images, task.labels)
            return robust(evaluate(task.model, pair, attacks=[task.spec], diagnose=None, **options))

        group: dict[str, Callable[[], float]] = {
            "eager fp32": lambda ours=ours: ours(compile="off"),
            "eager bf16": lambda ours=ours: ours(compile="off", precision="bf16"),
            "compiled fp32": lambda ours=ours: ours(compile="on"),
            "compiled bf16": lambda ours=ours: ours(compile="on", precision="bf16"),
        }
        if not given.no_peer:
            group["torchattacks"] = lambda task=task: sides.torchattacks(task, 125).robust
        say(f"eps {eps:g}/255")
        times = rounds(group, given.repeats, True, say)
        fast = times["compiled bf16"]
        for name, one in times.items():
            bound = {"eager fp32": OWN, "torchattacks": PEER}.get(name)
            points = 100 * (fast.robust - one.robust)
            wall, cpu = ratio(one.wall, fast.wall), ratio(one.cpu, fast.cpu)
            met = None if bound is None else wall >= bound and (name == "torchattacks" or abs(points) <= POINTS)
            rows.append(
                {"eps": eps, "side": name, "wall": wall, "cpu": cpu, "target": bound, "met": met}
                | {"robust": one.robust, "points": points, "times": vars(one)}
            )
    return rows


def auto_rows(given: argparse.Namespace, data: ImageData, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """``compile`` on, off and auto on a small, a medium and a large evaluation."""
    torch._inductor.config.force_disable_caches = True
    resnet = load_model(given.shared / "checkpoints/resnet20-12fca82f.th")
    digits = load_data("digits")
    demo = load_model("demo")
    big = data.batch(torch.arange(given.images) % len(data), torch.device("cpu"))[:2]
    workloads: dict[str, Callable[[str], float]] = {
        "digits, suite standard": lambda mode: robust(evaluate(demo, digits, compile=mode)),
        "ResNet-20, 100 images, FGSM": lambda mode: robust(
            evaluate(resnet, data.part(0, 100), attacks=["fgsm"], compile=mode)
        ),
        f"ResNet-20, {given.images} images, suite standard": lambda mode: robust(
            evaluate(resnet, big, compile=mode, precision=given.precision)
        ),
    }
    rows = []
    for what, work in workloads.items():
        say(what)
        group = {mode: (lambda mode=mode, work=work: work(mode)) for mode in ("off", "on", "auto")}
        times = rounds(group, given.repeats, False, say)
        better = [min(pair) for pair in zip(times["on"].wall, times["off"].wall, strict=True)]
        better_cpu = [min(pair) for pair in zip(times["on"].cpu, times["off"].cpu, strict=True)]
        worse = ratio(times["auto"].wall, better)
        rows.append(
            {"what": what, "wall": worse, "cpu": ratio(times["auto"].cpu, better_cpu), "target": AUTO}
            | {"met": worse <= AUTO, "times": {mode: vars(one) for mode, one in times.items()}}
        )
    return rows


def tables(
    passes: list[dict[str, Any]], speed: list[dict[str, Any]], auto: list[dict[str, Any]], console: Console
) -> None:
    """What was found."""
    sign = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}
    if passes:
        shown = Table(title="forward and backward passes of ResNet-20 alone, in processor seconds")
        for name in ("precision", "passes", "images/s", "GFLOP/s", "product of matrices", "share"):
            shown.add_column(name, justify="right")
        for row in passes:
            speeds = (f"{row[kind] / 1e9:.0f}" for kind in ("speed", "product"))
            shown.add_row(row["precision"], row["way"], f"{row['images']:.0f}", *speeds, f"{row['share']:.0%}")
        console.print(shown)
    if speed:
        shown = Table(title="compiled bf16: how many times faster than each side; compiling excluded")
        for name in (
            "eps",
            "side",
            "seconds",
            "CPU seconds",
            "faster",
            "by CPU time",
            "target",
            "met",
            "robust",
            "compiled in",
        ):
            shown.add_column(name, justify="right")
        for row in speed:
            one = row["times"]
            first = one["compiling"][0]
            shown.add_row(
                f"{row['eps']:g}/255",
                row["side"],
                *(f"{statistics.median(one[kind]):.2f}" for kind in ("wall", "cpu")),
                f"{row['wall']:.2f}x",
                f"{row['cpu']:.2f}x",
                f">= {row['target']:g}" if row["target"] else "",
                sign[row["met"]],
                f"{row['robust']:.1%} ({row['points']:+.1f})",
                f"{first:.1f} s" if first else "",
            )
        console.print(shown)
    if auto:
        shown = Table(title="compile=auto beside the better of on and off; compiling included, without caches")
        for name in ("evaluation", "off", "on", "auto", "auto / better", "by CPU time", "target", "met"):
            shown.add_column(name, justify="right")
        for row in auto:
            seconds = [f"{statistics.median(row['times'][mode]['wall']):.2f} s" for mode in ("off", "on", "auto")]
            shown.add_row(
                row["what"],
                *seconds,
                f"{row['wall']:.2f}",
                f"{row['cpu']:.2f}",
                f"<= {row['target']:g}",
                sign[row["met"]],
            )
        console.print(shown)


def arguments() -> argparse.Namespace:
    parser = timing.parser(__doc__, "compile.json")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--eps", default="0.5,2,8", help="in units of 1/255")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="of the large evaluation of auto")
    parser.add_argument("--no-peer", action="store_true", help="without torchattacks")
    parser.add_argument("--only", default="passes,speed,auto")
    given = parser.parse_args()
    given.eps = [float(one) for one in given.eps.split(",")]
    return given


def main() -> int:
    given = arguments()
    console = timing.screen(given.threads)
    before = surroundings()
    versions = packages("freqrobust", "torch", "torchattacks")
    console.print(f"{before['cpu']}, {before['threads']} threads, load {before['load_average']}; {versions}")
    data = load_data(str(given.shared / "data/cifar10/test_500.npz"))
    passes = pass_rows(given, data) if "passes" in given.only else []
    speed = speed_rows(given, data, console.print) if "speed" in given.only else []
    auto = auto_rows(given, data, console.print) if "auto" in given.only else []
    tables(passes, speed, auto, console)
    content = {"surroundings": before, "versions": versions, "passes": passes, "speed": speed, "auto": auto}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    console.print(f"raw times: {given.json}")
    return 1 if any(row["met"] is False for row in [*speed, *auto]) else 0


if __name__ == "__main__":
    sys.exit(main())
