"""Throughput on a CUDA device, against bare forward and backward passes of the same model.

    python benchmarks/gpu.py [--batch-sizes 128,512,2048] [--images 4096] [--json FILE]
    python benchmarks/gpu.py --device cpu --small        # tries the script

First PGD on the CIFAR ResNet-18 with random weights. The bare loop makes the same number of forward and
backward passes on the same images and changes nothing: what it does in a second is the ceiling. A ratio is
our image-steps per second over the ceiling's, median over the rounds; ours makes one forward pass more.

Then the evaluation of a folder of JPEG files of 256 pixels, with a ResNet-50 at 224 pixels, random weights and
PGD with 10 steps: from the call of evaluate() to the report, decoding included. The labels are what the network predicts, so
that all images are attacked. The ceiling is the time that the passes in its report would take on one batch that is already on
the device.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from streaming import CLASSES, CROP, SIDE, write_folder
from timing import alternate, packages, ratio, surroundings
from torch import nn

from freqrobust import ImageData, evaluate, load_data
from freqrobust.core.memory import is_out_of_memory
from freqrobust.harness.devices import describe
from freqrobust.harness.target_model import TargetModel
from freqrobust.models.architectures import cifar_resnet18
from freqrobust.numerics.precision import full_precision
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.selection import parse_attacks

ROOT = Path(__file__).resolve().parents[1]


def bare(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    """Forward and backward passes to the images, and nothing else."""
    x = images.clone().requires_grad_(True)
    for _ in range(steps):
        torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)


def ours(target_model: TargetModel, images: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    """Our PGD on every sample, none dropped."""
    attack = parse_attacks([f"pgd:eps=2/255,steps={steps}"])[0].plugin
    assert isinstance(attack, Attack)
    ids = torch.arange(len(images), device=images.device)
    with target_model.attacked(ids, "pgd") as view:
        attack.perturb(view, images, labels, AttackContext(ids, 0, "maximize"))


def synchronized(work: Callable[[], None], device: torch.device) -> None:
    """Do the work, and wait for the device."""
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(network: nn.Module, batch: int, steps: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Image-steps per second of each side at one batch size."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, 32, 32, generator=generator).to(device)
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
    target_model = TargetModel(network, network, images[:4], device=device)
    sides: dict[str, Callable[[], None]] = {
        "ours": partial(ours, target_model, images, labels, steps),
        "bare": partial(bare, network, images, labels, steps),
        "bare, folded": partial(bare, target_model.view.model, images, labels, steps),
    }
    timed = alternate({name: partial(synchronized, work, device) for name, work in sides.items()}, repeats)
    return {
        "batch": batch,
        "folded": target_model.view.model is not network,
        "per_second": {name: batch * steps / one.median for name, one in timed.items()},
        "ratio": {name: ratio(timed[name].seconds, timed["ours"].seconds) for name in ("bare", "bare, folded")},
        "seconds": {name: one.seconds for name, one in timed.items()},
    }


@torch.no_grad()
def predicted(network: nn.Module, data: ImageData, device: torch.device) -> torch.Tensor:
    """The class of each image, int64 ``(N,)``."""
    parts = torch.arange(len(data)).split(64)
    return torch.cat([network(data.batch(part, device)[0]).argmax(dim=1) for part in parts]).cpu()


def measure_folder(images: int, steps: int, repeats: int, batch: int | str, device: torch.device) -> dict[str, Any]:
    """Seconds of the evaluation of a folder with a ResNet-50, and of the same passes without anything else."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    network = resnet50(num_classes=CLASSES).to(device).eval().requires_grad_(False)
    attack = f"pgd:eps=1/255,steps={steps}"
    with tempfile.TemporaryDirectory() as home:
        write_folder(Path(home), images, SIDE)
        options: dict[str, Any] = {"attacks": [attack], "diagnose": None, "device": device, "batch_size": batch}
        data = load_data(f"folder:{home}", resize=SIDE, crop=CROP, data_cache="off")
        data = replace(data, labels=predicted(network, data, device), classes=CLASSES)
        work = {"evaluate": lambda: evaluate(network, data, **options)}
        timed = alternate(work, repeats)["evaluate"]  # the first call, which is not timed, chooses convolutions
    cells = timed.result.cells
    if failed := [cell.error for cell in cells if cell.error]:
        raise RuntimeError(failed[0])
    forwards, backwards = sum(cell.forwards for cell in cells), sum(cell.backwards for cell in cells)
    size = max(cell.batch_size for cell in cells)
    x, labels = torch.rand(size, 3, CROP, CROP, device=device), torch.zeros(size, dtype=torch.int64, device=device)

    def forward() -> None:
        with torch.no_grad():
            network(x)

    passes = {"forward": forward, "both": partial(bare, network, x, labels, 1)}
    rates = alternate({name: partial(synchronized, one, device) for name, one in passes.items()}, max(3, repeats))
    only, both = (rates[name].median / size for name in ("forward", "both"))
    ceiling = (forwards - backwards) * only + backwards * both
    return {
        "images": images,
        "batch": size,
        "forwards": forwards,
        "backwards": backwards,
        "seconds": timed.seconds,
        "ceiling": ceiling,
        "ratio": ceiling / timed.median,
    }


def table(found: list[dict[str, Any]], title: str) -> Table:
    shown = Table(title=title)
    for name in ("batch", "ours", "bare", "bare, folded", "ours / bare", "ours / bare, folded"):
        shown.add_column(name, justify="right")
    for one in found:
        rates, ratios = one["per_second"], one["ratio"]
        cells = [f"{rates[name]:,.0f}" for name in ("ours", "bare", "bare, folded")]
        shown.add_row(f"{one['batch']}", *cells, f"{ratios['bare']:.2f}", f"{ratios['bare, folded']:.2f}")
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu only makes sense with --small")
    parser.add_argument("--batch-sizes", default="128,256,512,1024,2048")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=4096, help="JPEG files of the folder; 0 leaves it out")
    parser.add_argument("--small", action="store_true", help="tiny batches, two steps, one round, four files")
    parser.add_argument("--json", type=Path, default=ROOT / "runs/gpu.json", help="raw times")
    given = parser.parse_args()
    given.sizes = [int(size) for size in given.batch_sizes.split(",")]
    given.folder_steps, given.folder_batch = 10, "auto"
    if given.small:
        given.sizes, given.steps, given.repeats = [4, 8], 2, 1
        given.images, given.folder_steps, given.folder_batch = min(given.images, 4), 2, 2
    return given


@full_precision()  # for all sides, as evaluate() has it: without, the others would round to TF32 on a GPU
def main() -> int:
    given = arguments()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing measured (--device cpu --small tries the script)")
        return 0
    torch.manual_seed(0)
    network = cifar_resnet18().to(device).eval().requires_grad_(False)
    console = Console()
    found: list[dict[str, Any]] = []
    start = time.perf_counter()
    for batch in given.sizes:
        try:
            found.append(measure(network, batch, given.steps, given.repeats, device))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            console.print(f"batch {batch}: memory ran out")
            break
    title = f"PGD-{given.steps}, CIFAR ResNet-18, {describe(device)}: image-steps per second"
    console.print(table(found, title))
    folder = None
    if given.images:
        folder = measure_folder(given.images, given.folder_steps, min(given.repeats, 3), given.folder_batch, device)
        console.print(
            f"folder of {given.images} files, ResNet-50, PGD-{given.folder_steps}: {folder['ratio']:.2f} of the bare "
            f"throughput ({folder['forwards']} forward and {folder['backwards']} backward passes)"
        )
    content = {
        "surroundings": surroundings() | {"device": describe(device)},
        "versions": packages("freqrobust", "torch") | {"cuda": torch.version.cuda},
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
        "options": {"steps": given.steps, "repeats": given.repeats},
        "rows": found,
        "folder": folder,
        "seconds": time.perf_counter() - start,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(f"raw times: {given.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
