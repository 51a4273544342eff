"""Every attack of torchattacks through its adapter and called directly: same model, same images, same seeds.

    python benchmarks/zoo.py [--model resnet20|cifar_small] [--images 100] [--only CW,PGD] [--full]

Both sides get the images that the model has right, as one batch. A side that fails says why. Attacks that take
hours on images of this size run with fewer iterations on both sides, shown in the table; ``--full`` leaves them
as they are. Exit code 1 if successes differ by more than two in a hundred.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import cifar_small
import numpy as np
import torch
import torchattacks
from rich.console import Console
from rich.table import Table
from torch import nn

from freqrobust import evaluate, load_model
from freqrobust.attacks.isolation import batch_seed, generators
from freqrobust.data.dataset import ImageData
from freqrobust.data.loading import load_data
from freqrobust.models.classifier import frozen
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks

ROOT = Path(__file__).resolve().parents[1]
#: Fewer iterations where the library's defaults take too long here.
SHORTER = {
    "JSMA": "gamma=0.004",
    "EADL1": "binary_search_steps=2,max_iterations=30",
    "EADEN": "binary_search_steps=2,max_iterations=30",
    "SPSA": "nb_sample=32",
    "OnePixel": "steps=3",
    "Pixle": "restarts=5",
    "Square": "n_queries=500",
    "SparseFool": "steps=3",
    "DeepFool": "steps=10",
}


@dataclass
class Side:
    """What one side found: successes, or why there are none."""

    successes: int | None
    forwards: int
    seconds: float
    error: str = ""


class Counted(nn.Module):
    """Counts the images that go forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards = model, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += len(x)
        return self.model(x)


def adapter(model: nn.Module, data: ImageData, spec: str) -> Side:
    """Through the harness, less the pass that verifies."""
    start = time.perf_counter()
    cell = evaluate(model, data, attacks=[spec], device="cpu", batch_size=len(data)).cells[1]
    seconds = time.perf_counter() - start
    if cell.status != "ok":
        return Side(None, 0, seconds, cell.error or "")
    return Side(cell.n - cell.correct, cell.forwards - cell.n, seconds)


def direct(model: nn.Module, data: ImageData, spec: str) -> Side:
    """The library's class, made and called as its own examples do."""
    (plugin_spec,) = attacks.parse(spec)
    images, labels, ids = data.batch(torch.arange(len(data)), torch.device("cpu"))
    seed = batch_seed(AttackContext(ids))
    given = {key: getattr(plugin_spec.plugin, key) for key in plugin_spec.plugin.model_fields_set}
    if plugin_spec.name in ("torchattacks:APGD", "torchattacks:APGDT", "torchattacks:FAB", "torchattacks:Square"):
        given["seed"] = seed
    if plugin_spec.name == "torchattacks:AutoAttack":
        given["seed"] = seed
    counted = Counted(model).eval()
    start = time.perf_counter()
    try:
        with (
            frozen(model),
            generators(seed, images.device),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            found = getattr(torchattacks, plugin_spec.name.partition(":")[2])(counted, **given)(images, labels)
    except Exception as error:
        return Side(None, 0, time.perf_counter() - start, f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - start
    with torch.no_grad():
        broken = model(found.detach().clamp(0, 1)).argmax(dim=1) != labels
    return Side(int(broken.sum()), counted.forwards, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--model", choices=["resnet20", "cifar_small"], default="cifar_small")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--full", action="store_true", help="the library's iterations, also where they take hours")
    options = parser.parse_args()

    checkpoints = options.shared / "checkpoints"
    if options.model == "resnet20":
        model: nn.Module = load_model(checkpoints / "resnet20-12fca82f.th")
    else:
        model = cifar_small.load(checkpoints / "cifar_small_36px.pth")
    everything = load_data(str(options.shared / "data" / "cifar10" / "test_500.npz"))
    right = evaluate(model, everything, attacks=["clean"], device="cpu").cells[0].right()
    data = everything.take(torch.from_numpy(np.flatnonzero(right)[: options.images]))

    members = attacks.family("torchattacks").members()
    wanted = [name for name in options.only.split(",") if name] or members
    table = Table("attack", "ours", "direct", "forwards", "direct", "seconds", "direct", "note", box=None)
    console = Console(width=150)
    worst = 0.0
    for name in wanted:
        shorter = "" if options.full else SHORTER.get(name, "")
        spec = f"torchattacks:{name}" + (f":{shorter}" if shorter else "")
        sides = [adapter(model, data, spec), direct(model, data, spec)]
        counts = [str(side.successes) if side.successes is not None else "failed" for side in sides]
        if sides[0].successes is not None and sides[1].successes is not None:
            worst = max(worst, abs(sides[0].successes - sides[1].successes) / len(data))
        note = " ".join(dict.fromkeys(filter(None, [shorter, *(side.error for side in sides)])))
        passes = [str(side.forwards) for side in sides]
        table.add_row(name, *counts, *passes, *(f"{side.seconds:.1f}" for side in sides), note)
        print(f"{name}: {' '.join(counts)}", file=sys.stderr)
    console.print(f"{options.model}, {len(data)} images that it has right, torchattacks {torchattacks.__version__}")
    console.print(table)
    console.print(f"largest difference: {worst:.1%}")
    return int(worst > 0.02)


if __name__ == "__main__":
    sys.exit(main())
