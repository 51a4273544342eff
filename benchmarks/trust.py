"""How far the adversarial numbers can be trusted, on real models: the tables of docs/trustworthy-numbers.md.

    python benchmarks/trust.py autoattack|eot [--images 200] [--shared ../shared]

``autoattack``: robust accuracy under AutoAttack, through the harness and from the library called directly with the
same seed, beside PGD-20, with the passes of each. ``eot``: post-averaging attacked with and without expectation over
its directions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cifar_small
import pyautoattack
import torch
from torch import nn

from freqrobust import evaluate, load_data, load_model
from freqrobust.data.dataset import ImageData
from freqrobust.models.classifier import frozen

#: Budgets at which some samples hold.
BUDGETS = {"resnet20": 1 / 255, "cifar_small_36px": 4 / 255}


class Counting(nn.Module):
    """Images that went forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += len(x)
        return self.model(x)  # type: ignore[no-any-return]


def direct(model: nn.Module, data: ImageData, eps: float) -> tuple[torch.Tensor, int]:
    """Which samples hold against the library's own standard evaluation, and the forward passes it took."""
    images, labels, _ = data.batch(torch.arange(len(data)), torch.device("cpu"))
    counting = Counting(model)
    with frozen(model):
        attack = pyautoattack.AutoAttack(counting, norm="Linf", eps=eps, version="standard", seed=0, device="cpu")
        found = attack.run_standard_evaluation(images, labels, batch_size=len(data))[0]
        with torch.no_grad():
            return model(found).argmax(dim=1) == labels, counting.forwards


def autoattack(shared: Path, images: int) -> None:
    data = load_data(str(shared / "data/cifar10/test_500.npz"), first=images)
    models = {
        "resnet20": load_model(str(shared / "checkpoints/resnet20-12fca82f.th"), data=data),
        "cifar_small_36px": cifar_small.load(shared / "checkpoints/cifar_small_36px.pth"),
    }
    print(
        "| model | eps | PGD-20 | AutoAttack, harness | AutoAttack, direct | same verdict | forward passes | direct |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, model in models.items():
        eps = BUDGETS[name]
        specs = [f"pgd:eps={eps},steps=20", f"autoattack:eps={eps}"]
        report = evaluate(model, data, attacks=specs, batch_size=images, diagnose=None)
        pgd, ours = report.cell("pgd"), report.cell("autoattack")
        holds, forwards = direct(model, data, eps)
        same = int((torch.from_numpy(ours.right()) == holds).sum())
        print(
            f"| {name} | {round(eps * 255)}/255 | {pgd.correct} | {ours.correct} | {int(holds.sum())} | {same} of {images} "
            f"| {ours.forwards} | {forwards} |",
            flush=True,
        )
        print(f"    parts: {ours.breakdown}", file=sys.stderr, flush=True)


def eot(shared: Path, images: int) -> None:
    data = load_data(str(shared / "data/cifar10/test_500.npz"), first=images)
    model = load_model(str(shared / "checkpoints/resnet20-12fca82f.th"), data=data)
    specs = [f"pgd:eps={eps}/255,steps=20,eot={draws}" for eps in (1, 2) for draws in (1, 10)]
    report = evaluate(model, data, attacks=specs, defenses=["post-averaging:radius=2,directions=4"], diagnose=None)
    print("| defense | attack | averaged over | right | oblivious |")
    print("|---|---|---|---|---|")
    for cell in report.cells:
        if cell.knowledge == "adaptive":
            oblivious = [
                c.correct
                for c in report.cells
                if (c.attack_spec, c.defense, c.knowledge) == (cell.attack_spec, cell.defense, "oblivious")
            ]
            shown = oblivious[0] if oblivious else ""
            print(
                f"| {cell.defense} | {cell.attack_spec} | {cell.eot or ''} | {cell.correct} of {cell.n} | {shown} |",
                flush=True,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["autoattack", "eot"])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    given = parser.parse_args()
    {"autoattack": autoattack, "eot": eot}[given.what](given.shared, given.images)
    return 0


if __name__ == "__main__":
    sys.exit(main())
