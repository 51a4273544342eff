"""How often attacks make the host wait for the device, counted on a simulated accelerator.

    python benchmarks/synchronisations.py [--images 64] [--json FILE]

Needs no accelerator. Every attack is run on digits and a small trained network, on the device of
tests/support/simulated_device.py, which counts what synchronises on CUDA. A step is a forward pass of a batch.
The third column is what the same attack does if it looks after every step which samples are done; the last one
is what it costs to do so less often: images in forward passes, relative to that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.simulated_device import install, synchronisations  # noqa: E402

DEVICE = install()  # before anything else of torch is used

from freqrobust import ImageData, load_data, load_model  # noqa: E402
from freqrobust.attacks import active_set  # noqa: E402
from freqrobust.harness.target_model import TargetModel  # noqa: E402
from freqrobust.plugins.base import Attack  # noqa: E402
from freqrobust.plugins.context import AttackContext  # noqa: E402
from freqrobust.plugins.selection import parse_attacks  # noqa: E402

SPECS = [
    "pgd:eps=0.1,steps=20",
    "pgd:eps=0.5,norm=l2,steps=20",
    "pgd:eps=3,norm=l1,steps=20",
    "apgd:eps=0.1,steps=50",
    "square:eps=0.1,queries=200",
    "fmn:steps=100",
    "ddn:steps=100",
    "deepfool:steps=50",
    "noise:eps=0.2,draws=20",
]


class Steps(nn.Module):
    """Counts the calls of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.count, self.images = model, 0, 0

    def forward(self, x: torch.Tensor) -> Any:
        self.count += 1
        self.images += len(x)
        return self.model(x)


def count(spec: str, target_model: TargetModel, data: ImageData) -> tuple[Counter[str], int, int]:
    """Synchronisations of one batch of an attack by kind, calls of the model, and images in them."""
    attack = parse_attacks([spec])[0].plugin
    assert isinstance(attack, Attack)
    images, labels, ids = data.batch(torch.arange(len(data)), DEVICE)
    with target_model.attacked(ids, spec) as view, synchronisations() as counted:
        steps = Steps(view)
        attack.perturb(steps, images, labels, AttackContext(ids, 0, "decide", slack=target_model.slack))
        return counted(), steps.count, steps.images


def measure(spec: str, target_model: TargetModel, data: ImageData) -> dict[str, Any]:
    """The attack as it is, and if it looks after every step which samples are done."""
    found, steps, images = count(spec, target_model, data)
    usual, active_set.steps_between = active_set.steps_between, lambda device: 1
    try:
        each, each_steps, each_images = count(spec, target_model, data)
    finally:
        active_set.steps_between = usual
    return {
        "attack": spec,
        "steps": steps,
        "synchronisations": dict(found),
        "per_step": found.total() / steps,
        "per_step_if_every_step_looks": each.total() / each_steps,
        "passes": images / each_images,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(title=f"Host synchronisations per step; on an accelerator every {active_set.EVERY}rd step looks")
    shown.add_column("attack")
    for name in ("steps", "per step", "if every step looks", "passes"):
        shown.add_column(name, justify="right")
    for row in rows:
        numbers = [row["per_step"], row["per_step_if_every_step_looks"], row["passes"]]
        shown.add_row(row["attack"], str(row["steps"]), *[f"{number:.2f}" for number in numbers])
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--only", help="attacks whose spec begins like this")
    parser.add_argument("--json", type=Path, default=ROOT / "runs/synchronisations.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = load_model("demo").to(DEVICE).eval().requires_grad_(False)
    data = load_data("digits", limit=given.images)
    probe = data.batch(torch.arange(4), DEVICE)[0]
    target_model = TargetModel(network, network, probe, device=DEVICE)
    rows = [measure(spec, target_model, data) for spec in SPECS if spec.startswith(given.only or "")]
    Console(width=110).print(table(rows))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
