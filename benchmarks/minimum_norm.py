"""Minimum-norm attacks beside Foolbox's and adversarial-library's FMN, and beside a sweep of PGD.

    python benchmarks/minimum_norm.py [--networks resnet20,cifar_small] [--norms linf,l2,l1] [--images 200]

The same model, correct images and steps for all; passes are counted by the model. A sample without an example has an
infinite distance. ``python -m pip install foolbox adv-lib`` for the peers; one that is not installed is left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import cifar_small
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from freqrobust import evaluate, load_data, load_model
from freqrobust.harness.target_model import TargetModel
from freqrobust.models.classifier import Classifier
from freqrobust.numerics.norms import norms
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks

ROOT = Path(__file__).resolve().parents[1]
#: In 255ths.
SWEEP = [0.5, 1.0, 2.0, 4.0, 8.0]
OURS = {"linf": ["fmn", "deepfool:norm=linf"], "l2": ["fmn:norm=l2", "ddn", "deepfool"], "l1": ["fmn:norm=l1"]}

Side = Callable[[nn.Module, torch.Tensor, torch.Tensor, AttackContext], torch.Tensor]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    shared = os.environ.get("FREQROBUST_SHARED", ROOT.parent / "shared")
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ and checkpoints/")
    parser.add_argument("--networks", default="cifar_small,resnet20")
    parser.add_argument("--norms", default="linf,l2,l1")
    parser.add_argument(
        "--images", type=int, default=200, help="size of a class-stratified subset of the 500 test images"
    )
    parser.add_argument("--steps", type=int, default=100, help="of FMN, DDN and PGD")
    return parser.parse_args()


def network(name: str, folder: Path) -> Classifier:
    if name == "cifar_small":
        return cifar_small.load(folder / "cifar_small_36px.pth")
    return load_model(folder / "resnet20-12fca82f.th")


def ours(norm: str, steps: int) -> Iterator[tuple[str, Side]]:
    for spec in OURS[norm]:
        attack = attacks.parse(spec)[0].plugin
        if not spec.startswith("deepfool"):
            attack = attack.model_copy(update={"steps": steps})
        yield spec, attack.perturb


def peers(norm: str, steps: int) -> Iterator[tuple[str, Side]]:
    """FMN of the libraries that are installed."""
    try:
        import foolbox

        found = {"linf": "LInfFMNAttack", "l2": "L2FMNAttack", "l1": "L1FMNAttack"}[norm]

        def of_foolbox(model: nn.Module, x: torch.Tensor, y: torch.Tensor, context: AttackContext) -> torch.Tensor:
            wrapped = foolbox.models.PyTorchModel(model, bounds=(0, 1), device="cpu")
            made: torch.Tensor = getattr(foolbox.attacks, found)(steps=steps).run(wrapped, x, y)
            return made

        yield "Foolbox FMN", of_foolbox
    except ImportError:
        pass
    # adversarial-library imports visdom for its plots alone, which are not used here
    sys.modules.setdefault("visdom", types.ModuleType("visdom")).__dict__.setdefault("Visdom", object)
    try:
        from adv_lib.attacks import fmn
    except ImportError:
        return

    def of_adv_lib(model: nn.Module, x: torch.Tensor, y: torch.Tensor, context: AttackContext) -> torch.Tensor:
        made: torch.Tensor = fmn(model, x, y, norm={"linf": float("inf"), "l2": 2, "l1": 1}[norm], steps=steps)
        return made

    yield "adv-lib FMN", of_adv_lib


def main() -> None:
    given, console = arguments(), Console(width=150)
    for name in given.networks.split(","):
        model = network(name, given.shared / "checkpoints").eval().requires_grad_(False)
        data = load_data(str(given.shared / "data/cifar10/test_500.npz"), limit=given.images)
        images, labels, _ = data.batch(torch.arange(len(data)), torch.device("cpu"))
        images = images.contiguous()  # adversarial-library projects in place, which is lost on a view
        target = TargetModel(model, model, images[:4], device=torch.device("cpu"))
        correct = target.logits(images).argmax(dim=1) == labels
        images, labels = images[correct], labels[correct]
        n = len(labels)
        table = Table(title=f"{name}, {n} correct images, {given.steps} steps; passes per image")
        for column in (
            "attack",
            "median",
            "mean of found",
            "not found",
            "forward",
            "backward",
            "robust at eps / 255 (%)",
        ):
            table.add_column(column, justify="left" if column == "attack" else "right")
        for norm in given.norms.split(","):
            for title, side in [*ours(norm, given.steps), *peers(norm, given.steps)]:
                target.view.reset()
                target.view.training = False  # Foolbox warns otherwise
                made = []
                for part in torch.arange(n).split(100):
                    context = AttackContext(part, 0, "decide", slack=target.slack)
                    made.append(side(target.view, images[part], labels[part], context).detach())
                found = torch.cat(made)
                adversarial = target.logits(found).argmax(dim=1) != labels
                distance = norms(found - images, norm).where(adversarial, torch.tensor(float("inf")))
                scale = 255 if norm == "linf" else 1
                finite = distance[distance.isfinite()]
                curve = [f"{float((distance > eps / 255).float().mean()):.1%}" for eps in SWEEP]
                table.add_row(
                    f"{title} ({norm})",
                    f"{float(distance.median()) * scale:.4f}",
                    f"{float(finite.mean()) * scale:.4f}",
                    str(int(distance.isinf().sum())),
                    f"{target.view.forwards / n:.1f}",
                    f"{target.view.backwards / n:.1f}",
                    "  ".join(curve) if norm == "linf" else "",
                )
                console.print(f"{name} {norm} {title}: done", style="dim")
            if norm == "linf":
                sweep = ",".join(f"{eps:g}/255" for eps in SWEEP)
                spec = f"pgd:eps=[{sweep}],steps={given.steps}"
                cells = evaluate(model, (images, labels), attacks=[spec], device="cpu", diagnose=None).cells[1:]
                passes = [sum(c.forwards for c in cells) / n, sum(c.backwards for c in cells) / n]
                row = "  ".join(f"{c.accuracy or 0:.1%}" for c in cells)
                table.add_row("pgd, five eps (linf)", "", "", "", *[f"{p:.1f}" for p in passes], row)
            table.add_section()
        console.print(table)


if __name__ == "__main__":
    main()
