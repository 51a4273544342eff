"""The time of training, against bare loops that do the same.

    python benchmarks/training.py [--images 512] [--repeats 5] [--arch resnet20] [--data FILE] [--only natural,pgd,...]

``natural`` and ``pgd`` compare one epoch of the training loop with one epoch of a bare loop: the same network, batches of
128, flips and crops, SGD with Nesterov momentum, one-cycle learning rate, sums of loss and accuracy. The bare loop of
``pgd`` makes ten forward and backward passes with frozen weights in eval mode, and one training step. ``fast`` compares
methods at equal numbers of optimisation steps, and ``free`` also at equal passes over the data. ``probes`` counts the
images that pass through the network with and without probes.

A ratio is the median over the rounds, in which both sides take turns. Processor seconds are compared, which on one thread
hardly depend on what else the machine does; the ratio of wall-clock seconds is printed beside. Without ``--data`` the images
are random, which takes the same time. Run time: about seven minutes on one idle core, a third of it for ``pgd``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from timing import Timed, alternate, ratio, surroundings
from torch import nn

from freqrobust import load_data
from freqrobust.core.training_config import TrainConfig
from freqrobust.data.dataset import ImageData
from freqrobust.data.loading import as_data
from freqrobust.experiments.probes import measure_probes
from freqrobust.experiments.train import train
from freqrobust.experiments.training_setup import prepare_setup
from freqrobust.models.untrained import untrained
from freqrobust.training.loop import Training
from freqrobust.training.plan import sgd_plan

CPU = torch.device("cpu")
BATCH, RATE, DECAY, EPS = 128, 0.1, 5e-4, 8 / 255
#: Replays of ``free``, and epochs of the methods that it is compared with.
REPLAYS = 4
PROBES = ["clean", "lfc:radius=4", "pgd:eps=8/255,steps=5"]


def ours(arch: str, data: ImageData, method: str, epochs: int = 1) -> Callable[[], float]:
    """Epochs of the training loop; the mean loss of the last one."""

    def work() -> float:
        model = untrained(arch, data.classes, data.shape[0])
        plan = sgd_plan(epochs, RATE, batch_size=BATCH, augment="flip-crop", method=method, weight_decay=DECAY)
        training = Training(model, data, plan, device=CPU)
        return [training.run_epoch().loss for _ in range(epochs)][-1]

    return work


def flipped_and_cropped(images: torch.Tensor, pad: int = 4) -> torch.Tensor:
    """Each image flipped with probability 1/2, and shifted by up to ``pad`` pixels."""
    n, _, height, width = images.shape
    images = torch.where(torch.rand(n, 1, 1, 1) < 0.5, images, images.flip(3))
    windows = F.pad(images, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(0, 2 * pad + 1, (2, n))
    return windows[torch.arange(n), :, top, left]


def bare_batches(data: ImageData) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented batches in random order."""
    for index in torch.randperm(len(data)).split(BATCH):
        images = data.images[index]
        images = images.float().div_(255) if images.dtype == torch.uint8 else images
        yield flipped_and_cropped(images), data.labels[index]


def bare_pgd(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int) -> torch.Tensor:
    """Examples after ``steps`` forward and backward passes, with frozen weights in eval mode."""
    model.eval().requires_grad_(False)
    low, high = (images - EPS).clamp(0, 1), (images + EPS).clamp(0, 1)
    x = (images + EPS * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(steps):
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)
        x = torch.clamp(x.detach() + 2.5 * EPS / steps * gradient.sign(), low, high)
    model.train().requires_grad_(True)
    return x


def bare(arch: str, data: ImageData, steps: int = 0) -> Callable[[], float]:
    """One epoch of natural training, or of PGD training with so many steps; the mean loss."""

    def work() -> float:
        model = untrained(arch, data.classes, data.shape[0]).train()
        sgd = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
        batches = math.ceil(len(data) / BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, RATE, total_steps=batches, pct_start=0.2)
        total, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for images, labels in bare_batches(data):
            x = bare_pgd(model, images, labels, steps) if steps else images
            logits = model(x)
            loss = F.cross_entropy(logits, labels)
            sgd.zero_grad(set_to_none=True)
            loss.backward()
            sgd.step()
            schedule.step()
            total += loss.detach() * len(labels)
            correct += (logits.detach().argmax(dim=1) == labels).sum()
        return float(total) / len(data)

    return work


class Passes:
    """Images that went through a network, shared by its copies."""

    def __init__(self) -> None:
        self.images = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Passes:
        return self

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.images += len(inputs[0])


def probe_passes(arch: str, data: ImageData, folder: Path) -> tuple[int, int, int]:
    """Images in forward passes: of a whole ``train`` with probes, and of its training steps and its probes made apart."""
    whole, apart = Passes(), Passes()
    options = {"data": data, "epochs": 2, "batch_size": BATCH, "probe": PROBES, "probe_samples": 100, "device": "cpu"}
    train(counted(arch, data, whole), **options, out=folder / "run")
    setup = prepare_setup(counted(arch, data, apart), TrainConfig(**options), CPU)
    prepared = apart.images
    training = Training(setup.model, setup.train, setup.plan, device=CPU)
    parts: list[Any] = [setup.probed, setup.held_out]
    steps, epochs = 0, setup.plan.epochs
    for epoch in range(epochs):
        before = apart.images
        training.run_epoch()
        steps += apart.images - before
        measure_probes(training.evaluated, setup.probes, epoch + 1, epochs, *parts, device=CPU)
    return whole.images - prepared, steps, apart.images - prepared - steps


def counted(arch: str, data: ImageData, counter: Passes) -> nn.Module:
    """A network whose forward passes are counted."""
    model = untrained(arch, data.classes, data.shape[0])
    model.register_forward_pre_hook(counter)
    return model


def main() -> None:
    """Measure, print the table, and with ``--json`` write what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="training images; without them, random ones of 3 x 32 x 32")
    parser.add_argument("--images", type=int, default=512, help="of the row natural; the others have fewer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--only", default="natural,pgd,fast,probes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wanted = set(args.only.split(","))
    if args.data:
        data = load_data(args.data, split="train", limit=args.images)
    else:
        pixels = torch.randint(0, 256, (args.images, 3, 32, 32), dtype=torch.uint8)
        data = as_data((pixels, torch.arange(args.images) % 10))
    few = data.first(max(BATCH, args.images // 4))
    console, measured = Console(), dict[str, Any]()
    table = Table("row", "what", "target", "ratio (processor)", "ratio (wall clock)", "seconds, both sides")

    def compare(row: str, what: str, target: str, first: str, second: str, timed: dict[str, Timed]) -> None:
        a, b = timed[first], timed[second]
        ratios = [ratio(a.cpu, b.cpu), ratio(a.seconds, b.seconds)]
        both = " / ".join(f"{statistics.median(side.cpu):.2f}" for side in (a, b))
        table.add_row(row, what, target, *(f"{value:.3f}" for value in ratios), both)
        measured[f"{row}: {first} / {second}"] = {"target": target, "ratios": ratios, "cpu": [a.cpu, b.cpu]}

    if "natural" in wanted:
        sides = {"ours": ours(args.arch, data, "natural"), "bare": bare(args.arch, data)}
        what = f"natural training, {args.arch}, {len(data)} images"
        compare("natural", what, "at most 1.05", "ours", "bare", alternate(sides, args.repeats, console.print))
    if "pgd" in wanted:
        sides = {"ours": ours(args.arch, few, "madry:eps=8/255,steps=10"), "bare": bare(args.arch, few, steps=10)}
        what = f"PGD-10 training, {args.arch}, {len(few)} images"
        compare("pgd", what, "at most 1.05", "ours", "bare", alternate(sides, args.repeats, console.print))
    if "fast" in wanted:
        sides = {
            "madry": ours(args.arch, few, "madry:eps=8/255,steps=7", REPLAYS),
            "rs-fgsm": ours(args.arch, few, "rs-fgsm:eps=8/255", REPLAYS),
            "free": ours(args.arch, few, f"free:eps=8/255,replays={REPLAYS}"),
            "free, equal passes over the data": ours(args.arch, few, f"free:eps=8/255,replays={REPLAYS}", REPLAYS),
        }
        timed = alternate(sides, max(1, args.repeats // 2), console.print)
        for name in list(sides)[1:]:
            target = "" if "passes" in name else "at least 3"
            compare("fast", f"madry, 7 steps / {name}, {args.arch}", target, "madry", name, timed)
    console.print(table)
    if "probes" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            whole, steps, probes = probe_passes(args.arch, few, Path(folder))
        measured["probes"] = {"train": whole, "steps": steps, "probes": probes}
        console.print(
            f"images in forward passes: train {whole}, of it steps {steps} and probes {probes}; others {whole - steps - probes}"
        )
    if args.json:
        args.json.write_text(json.dumps({**surroundings(), "measured": measured}, indent=1))


if __name__ == "__main__":
    main()
