"""An attack in a sweep over eps beside AutoAttack: robust samples, and the passes of both.

    python benchmarks/reference.py [--networks resnet20] [--attack apgd] [--samples 100] [--measure]

The attack is swept over 0.5, 1, 2, 4 and 8/255 in one evaluation, as in a suite. AutoAttack is run at the budgets of
each network (benchmarks/networks.py), one evaluation for each; its results are stored in ``--stored`` and only measured
with ``--measure``: on one core, half a minute for a small network, up to 20 minutes for a ResNet. The passes are those
of the report, without the clean pass.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import networks
from rich.console import Console
from rich.table import Table
from torch import nn

from freqrobust import evaluate, load_data
from freqrobust.data.dataset import ImageData

ROOT = Path(__file__).resolve().parents[1]
SWEEP = (0.5, 1, 2, 4, 8)


class Stored:
    """Results of AutoAttack in a file: a list of records with ``network``, ``norm``, ``eps`` and ``n``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> list[dict[str, Any]]:
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else []

    def find(self, network: str, eps: str, n: int) -> dict[str, Any] | None:
        """The record of these samples, or of the fewest samples that include them."""
        fitting = [r for r in self.records() if (r["network"], r["norm"], r["eps"]) == (network, "linf", eps)]
        return min((r for r in fitting if r["n"] >= n), key=lambda r: r["n"], default=None)

    def add(self, record: dict[str, Any]) -> None:
        records = [*self.records(), record]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(records), encoding="utf-8")
        os.replace(temporary, self.path)


def autoattack(name: str, model: nn.Module, data: ImageData, eps: str) -> dict[str, Any]:
    """One evaluation with AutoAttack, all samples in one batch."""
    spec = f"autoattack:eps={eps}"
    clean, cell = evaluate(model, data, attacks=[spec], device="cpu", batch_size=len(data), diagnose=None).cells
    return {
        "network": name,
        "norm": "linf",
        "eps": eps,
        "n": len(data),
        "clean": clean.correct,
        "robust": cell.correct,
        "forwards": cell.forwards,
        "backwards": cell.backwards,
        "outcomes": [bool(value) for value in cell.right()],
    }


def rows(name: str, model: nn.Module, data: ImageData, options: argparse.Namespace) -> list[list[str]]:
    """One row for each budget at which there is a result of AutoAttack."""
    stored, n = Stored(options.stored), len(data)
    values = ",".join(f"{value:g}/255" for value in SWEEP)
    attack = f"{options.attack}{',' if ':' in options.attack else ':'}eps=[{values}]"
    cells = evaluate(model, data, attacks=[attack], device="cpu", diagnose=None).cells[1:]
    shown = []
    for budget in networks.BUDGETS[name]:
        eps = f"{budget:g}/255"
        reference = stored.find(name, eps, n)
        if reference is None and options.measure:
            reference = autoattack(name, model, data, eps)
            stored.add(reference)
        cell = cells[SWEEP.index(budget)]
        passes = cell.forwards + cell.backwards
        robust, ratio = "", ""
        if reference is not None:
            ours, theirs = cell.right(), reference["outcomes"][:n]
            missed = sum(bool(a) and not b for a, b in zip(ours, theirs, strict=True))
            found = sum(not a and b for a, b in zip(ours, theirs, strict=True))
            robust = f"{sum(theirs)} ({missed} missed, {found} more)"
            ratio = f"{(reference['forwards'] + reference['backwards']) / reference['n'] * n / passes:.0f}"
        shown.append([name, eps, f"{cell.correct}", robust, f"{passes}", ratio])
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    networks.add_folders(parser)
    parser.add_argument("--networks", default=",".join(networks.BUDGETS), help="names, separated by commas")
    parser.add_argument("--attack", default="apgd", help="spec without eps")
    parser.add_argument("--samples", type=int, default=100, help="first test images")
    parser.add_argument("--measure", action="store_true", help="run AutoAttack where there is no stored result")
    parser.add_argument("--stored", type=Path, default=ROOT / "runs/autoattack.json", help="results of AutoAttack")
    options = parser.parse_args()
    data = load_data(str(options.shared / "data/cifar10/test_500.npz"), first=options.samples)
    table = Table("network", "eps", "robust", "AutoAttack", "passes", "passes of AutoAttack / passes", box=None)
    for name in options.networks.split(","):
        for row in rows(name, networks.network(name, options.shared, options.folder), data, options):
            table.add_row(*row)
            print(" | ".join(row), file=sys.stderr, flush=True)
    Console(width=140).print(f"{options.attack}, swept; {options.samples} images", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
