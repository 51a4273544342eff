"""How fast attacks find what they find: robust accuracy against the number of passes, in the manner of AttackBench.

    python benchmarks/attacks.py [--networks resnet20,cifar_small_36px] [--samples 100] [--attacks pgd,adv-lib] [--quick]

For every network and eps, each attack's robust accuracy after a number of forward and backward passes of each sample,
and its area relative to that of the best attack on every sample (optimality: 1 = nothing was faster anywhere). The
passes of all sides are counted by the same recording model (benchmarks/curves.py).

Run time: ``--quick`` (three networks, 30 images, few attacks) takes about one minute on one core, the small networks
with all attacks about four. Everything takes an hour or more, most of it for the ResNets; AutoAttack, which is only run
if ``--attacks`` names it, adds up to 20 minutes for every budget of a ResNet. No attack starts after ``--minutes``
(default 60). Results are stored one by one in ``--runs``, and a later call continues.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import attack_sides
import curves
import networks
import numpy as np
import torch
from curves import SHOWN, Recorder, Trace
from rich.console import Console
from rich.table import Table
from timing import surroundings
from torch import nn

from freqrobust import load_data
from freqrobust.core.files import write_atomically
from freqrobust.models.classifier import frozen
from freqrobust.models.fingerprint import fingerprint
from freqrobust.results.figures import COLUMN, figure, file_of, picture_format, styled

ROOT = Path(__file__).resolve().parents[1]
QUICK_NETWORKS = ("cifar_small_36px", "small_natural", "resnet20")
QUICK_ATTACKS = ("fgsm", "pgd-20", "pgd-50", "torchattacks PGD-20", "foolbox FMN-50", "adv-lib APGD-50 ce")


@dataclass
class Cell:
    """One network at one eps: when each attack succeeded on each sample that is classified correctly."""

    network: str
    eps: float
    total: int
    firsts: dict[str, np.ndarray] = field(default_factory=dict)
    traces: dict[str, Trace] = field(default_factory=dict)

    @property
    def optimality(self) -> dict[str, float]:
        """Of each attack, compared with all that were measured here."""
        return curves.optimality(self.firsts)

    def record(self) -> dict[str, Any]:
        """The cell as plain data."""
        ranked = self.optimality
        return {
            "network": self.network,
            "eps": self.eps,
            "samples": self.total,
            "attacks": {
                name: {
                    "optimality": ranked[name],
                    "passes_until_success": [int(k) if np.isfinite(k) else None for k in first],
                    "robust": {str(k): curves.robust_after(first, k, self.total) for k in SHOWN},
                    "final": curves.robust_after(first, np.finfo(float).max, self.total),
                    "forwards": self.traces[name].forwards,
                    "backwards": self.traces[name].backwards,
                }
                for name, first in self.firsts.items()
            },
        }


class Measured:
    """Traces that are stored on disk, or measured if the time allows it."""

    def __init__(self, folder: Path, minutes: float, any_code: bool) -> None:
        self.folder, self.any_code = folder, any_code
        self.until = time.monotonic() + 60 * minutes

    def trace(
        self, name: str, side: attack_sides.Side, model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float
    ) -> Trace | None:
        """The trace of an attack, or None if it is not stored and the time is over."""
        budget = "minimum" if side.minimum else f"{eps * 255:g}"
        identity = {"eps": budget, "n": len(x), "model": fingerprint(model)}
        if not self.any_code:
            identity["attack"] = side.code
        path = self.folder / f"{name.replace(' ', '_')}-{budget}.json"
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            if identity.items() <= stored["identity"].items():
                return Trace(**stored["trace"])
        if time.monotonic() > self.until:
            return None
        start = time.process_time()
        trace = measure(side, model, x, y, eps)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = {
            "identity": {**identity, "attack": side.code},
            "cpu_seconds": time.process_time() - start,
            "trace": curves.to_json(trace),
        }
        path.write_text(json.dumps(stored), encoding="utf-8")
        return trace


def measure(side: attack_sides.Side, model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> Trace:
    """Run an attack on samples that are classified correctly; the prediction of its examples is part of it."""
    recorder = Recorder(model, x, y).eval()
    with frozen(recorder):
        examples = side.perturb(recorder, x.clone(), y.clone(), eps)
        with torch.no_grad():
            recorder(examples.detach())
    return recorder.trace


def cells(name: str, names: list[str], options: argparse.Namespace) -> list[Cell]:
    """All budgets of one network."""
    model = networks.network(name, options.shared, options.folder)
    data = load_data(str(options.shared / "data/cifar10/test_500.npz"), first=options.samples)
    images, labels, _ = data.batch(torch.arange(len(data)), networks.CPU)
    with torch.no_grad():
        right = model(images).argmax(dim=1) == labels
    images, labels = images[right], labels[right]
    measured = Measured(options.runs / f"{name}-{options.samples}", options.minutes_left(), options.any_code)
    available = attack_sides.sides()
    found = []
    for budget in networks.BUDGETS[name]:
        if options.eps and budget not in options.eps:
            continue
        cell = Cell(name, budget / 255, options.samples)
        for attack in names:
            trace = measured.trace(attack, available[attack], model, images, labels, cell.eps)
            if trace is None:
                print(f"{name} {budget:g}/255: no time left for {attack}", file=sys.stderr)
                continue
            cell.traces[attack], cell.firsts[attack] = trace, trace.first(cell.eps)
            print(f"{name} {budget:g}/255 {attack}", file=sys.stderr, flush=True)
        if cell.firsts:
            found.append(cell)
    return found


def table(cell: Cell) -> Table:
    """Robust accuracy by passes, the best area first."""
    clean = len(next(iter(cell.firsts.values()))) / cell.total
    title = f"{cell.network}, Linf {cell.eps * 255:g}/255, {cell.total} images, clean {clean:.0%}"
    shown = Table("attack", title=title, box=None)
    for head in (*map(str, SHOWN), "final", "passes", "optimality"):
        shown.add_column(head, justify="right", no_wrap=True)
    ranked = cell.optimality
    best = curves.envelope(cell.firsts.values())
    for name in sorted(ranked, key=lambda name: -ranked[name]):
        trace, first = cell.traces[name], cell.firsts[name]
        passes = (trace.forwards + trace.backwards) / trace.n
        shown.add_row(name, *_row(first, cell.total), f"{passes:.0f}", f"{ranked[name]:.3f}")
    shown.add_row("best of all", *_row(best, cell.total), "", "1.000")
    return shown


def _row(first: np.ndarray, total: int) -> list[str]:
    return [f"{100 * curves.robust_after(first, k, total):.0f}" for k in (*SHOWN, np.finfo(float).max)]


def summary(found: list[Cell]) -> Table:
    """Optimality by network and eps, and its mean."""
    shown = Table("attack", title="optimality", box=None)
    for cell in found:
        shown.add_column(f"{cell.network}\n{cell.eps * 255:g}/255", justify="right")
    shown.add_column("mean", justify="right")
    ranked = [cell.optimality for cell in found]
    everywhere = [name for name in ranked[0] if all(name in one for one in ranked)]
    means = {name: float(np.mean([one[name] for one in ranked])) for name in everywhere}
    for name in sorted(means, key=lambda name: -means[name]):
        shown.add_row(name, *(f"{one[name]:.3f}" for one in ranked), f"{means[name]:.3f}")
    return shown


def family(name: str) -> str:
    """The library and the kind of an attack, without its configuration."""
    words = name.split()
    kept = words[:2] if words[0] in attack_sides.LIBRARIES else words[:1]
    return " ".join([*kept[:-1], kept[-1].partition("-")[0]])


def draw(found: list[Cell], path: Path) -> None:
    """The curves: one panel for each network and eps, with the best configuration of every attack."""
    with styled():
        write_atomically(path, file_of(_figure(found), picture_format(path)))


def _figure(found: list[Cell]) -> Any:
    from matplotlib import colormaps

    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    drawn = figure(2.4 * rows, COLUMN * columns)
    axes = drawn.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    grid = np.unique(np.geomspace(1, curves.HORIZON, 200).astype(int))
    for axis, cell in zip(axes.flat, found, strict=False):
        ranked = cell.optimality
        best = curves.envelope(cell.firsts.values())
        axis.set_prop_cycle(color=colormaps["tab20"].colors)  # more curves than the default has colours
        axis.step(grid, _curve(best, grid, cell.total), "k--", where="post", label="best of all")
        shown: dict[str, str] = {}
        for name in sorted(ranked, key=lambda name: -ranked[name]):
            shown.setdefault(family(name), name)
        for name in shown.values():
            label = f"{name} ({ranked[name]:.2f})"
            axis.step(grid, _curve(cell.firsts[name], grid, cell.total), where="post", label=label)
        axis.set(xscale="log", xlabel="passes per sample", ylabel="robust accuracy, %")
        axis.set_title(f"{cell.network}, Linf {cell.eps * 255:g}/255")
        axis.legend(fontsize=4, loc="upper right")
    return drawn


def _curve(first: np.ndarray, grid: np.ndarray, total: int) -> list[float]:
    return [100 * curves.robust_after(first, k, total) for k in grid]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    networks.add_folders(parser)
    parser.add_argument("--networks", help=f"of {','.join(networks.BUDGETS)} (default: all)")
    parser.add_argument("--eps", help="only these budgets, in 1/255, separated by commas")
    parser.add_argument("--samples", type=int, help="first test images (default 100; 30 with --quick)")
    parser.add_argument("--attacks", help="attacks whose names start with one of these, separated by commas")
    parser.add_argument("--quick", action="store_true", help="three networks, 30 images, few attacks")
    parser.add_argument("--minutes", type=float, default=60, help="no attack is started after this time")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/attacks", help="folder of the stored traces")
    parser.add_argument("--any-code", action="store_true", help="take stored results of other versions of attacks too")
    options = parser.parse_args()
    given = options.networks.split(",") if options.networks else list(networks.BUDGETS)
    options.networks = [n for n in given if options.networks or not options.quick or n in QUICK_NETWORKS]
    if unknown := set(options.networks) - set(networks.BUDGETS):
        parser.error(f"unknown networks: {', '.join(sorted(unknown))} (known: {', '.join(networks.BUDGETS)})")
    options.samples = options.samples or (30 if options.quick else 100)
    options.eps = {float(value) for value in options.eps.split(",")} if options.eps else set()
    until = time.monotonic() + 60 * options.minutes
    options.minutes_left = lambda: (until - time.monotonic()) / 60
    if not (options.shared / "checkpoints").is_dir():
        parser.error(f"{options.shared} contains no checkpoints; give --shared or set FREQROBUST_SHARED")
    return options


def chosen(options: argparse.Namespace) -> list[str]:
    """Names of the attacks to run."""
    available = attack_sides.sides()
    if options.attacks:
        prefixes = tuple(options.attacks.split(","))
        names = [name for name in available if name.startswith(prefixes)]
        if not names:
            sys.exit(f"no attack starts with any of {', '.join(prefixes)} (known: {', '.join(available)})")
        return names
    if options.quick:
        return [name for name in available if name in QUICK_ATTACKS]
    return [name for name, side in available.items() if not side.slow]


def main() -> int:
    options = arguments()
    names = chosen(options)
    console = Console() if sys.stdout.isatty() else Console(width=160)
    found: list[Cell] = []
    for name in options.networks:
        for cell in cells(name, names, options):
            found.append(cell)
            console.print(table(cell))
    if not found:
        return 1
    console.print(summary(found))
    document = {"surroundings": surroundings(), "cells": [cell.record() for cell in found]}
    path = options.runs / "attacks.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    draw(found, options.runs / "attacks.png")
    console.print(f"{path}, {path.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
