"""The networks of the benchmark of attacks: published checkpoints, and networks that are trained here.

    python benchmarks/networks.py --folder DIR [--shared ../shared] [--only small_natural,small_robust]

Trained networks are stored in the folder and taken from there the next time. The small ones take less than two
minutes together on one core, ``resnet20_madry`` about five minutes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import cifar_small
import torch
from torch import nn

from freqrobust import load_data, load_model
from freqrobust.data.dataset import ImageData
from freqrobust.defenses.adversarial_training import AdversarialTraining
from freqrobust.models.classifier import Classifier, frozen
from freqrobust.models.normalization import parse
from freqrobust.plugins.context import DefenseContext
from freqrobust.training.loop import fit
from freqrobust.training.plan import sgd_plan

ROOT = Path(__file__).resolve().parents[1]
#: Linf budgets in 1/255 at which the robust accuracy of each network is neither 0 nor its clean accuracy.
BUDGETS: dict[str, tuple[float, ...]] = {
    "resnet20": (0.5, 1, 2),
    "resnet32": (0.5, 1, 2),
    "cifar_small_36px": (2, 4, 8),
    "resnet20_madry": (2, 4),
    "small_natural": (1, 2),
    "small_robust": (4, 8),
}
CPU = torch.device("cpu")


def published(shared: Path, name: str) -> nn.Module:
    """A network of the checkpoints in the shared folder."""
    checkpoints = shared / "checkpoints"
    if name == "cifar_small_36px":
        return cifar_small.load(checkpoints / "cifar_small_36px.pth")
    file = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th"}[name]
    return load_model(checkpoints / file)


def _small() -> nn.Module:
    """The architecture of ``cifar_small_36px`` with fresh weights and the same normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(cifar_small.build(), parse(cifar_small.NORMALIZE), "small", "small", "")


def small_natural(train: ImageData, shared: Path) -> nn.Module:
    """The small architecture, trained on clean images for 15 epochs."""
    model = _small()
    fit(model, train, sgd_plan(15, 0.05, augment="flip-crop"), device=CPU)
    return model


def small_robust(train: ImageData, shared: Path) -> nn.Module:
    """``small_natural``, adversarially trained at eps 8/255 for 10 epochs; from fresh weights the loss stays high."""
    return _madry(small_natural(train, shared), train, AdversarialTraining(eps=8 / 255, steps=7, epochs=10, lr=0.02))


def resnet20_madry(train: ImageData, shared: Path) -> nn.Module:
    """ResNet-20, adversarially trained at eps 2/255 for four epochs, as in docs/kernel-smoothing.md."""
    return _madry(published(shared, "resnet20"), train, AdversarialTraining(eps=2 / 255, steps=5, epochs=4))


def _madry(model: nn.Module, train: ImageData, defense: AdversarialTraining) -> nn.Module:
    with frozen(model):
        return defense.apply(model, DefenseContext(train_data=train))


TRAINED: dict[str, Callable[[ImageData, Path], nn.Module]] = {
    "resnet20_madry": resnet20_madry,
    "small_natural": small_natural,
    "small_robust": small_robust,
}


def network(name: str, shared: Path, folder: Path) -> nn.Module:
    """The network of that name in eval mode, images in [0, 1] to logits; trained if the folder does not contain it."""
    if name not in TRAINED:
        return published(shared, name)
    path = folder / f"{name}.pt"
    if path.exists():
        model = published(shared, "resnet20") if name == "resnet20_madry" else _small()
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        model = TRAINED[name](load_data(str(shared / "data/cifar10/train_4000.npz")), shared)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    return model.eval().requires_grad_(False)


def add_folders(parser: argparse.ArgumentParser) -> None:
    """The options that name the folders."""
    shared = Path(os.environ.get("FREQROBUST_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ and checkpoints/")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/networks", help="folder of the trained networks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--only", default=",".join(TRAINED), help=f"networks: {','.join(TRAINED)}")
    options = parser.parse_args()
    test = load_data(str(options.shared / "data/cifar10/test_500.npz"))
    images, labels, _ = test.batch(torch.arange(len(test)), CPU)
    for name in options.only.split(","):
        model = network(name, options.shared, options.folder)
        with torch.no_grad():
            right = model(images).argmax(dim=1) == labels
        print(f"{name}: {int(right.sum())} of {len(right)} test images are classified correctly", flush=True)


if __name__ == "__main__":
    main()
