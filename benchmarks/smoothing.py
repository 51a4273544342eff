"""ResNet-20 with randomized smoothing, before and after fine-tuning with Gaussian noise.

    python benchmarks/smoothing.py --folder DIR [--shared ../shared] [--images 30] [--epochs 5] [--copies 4] [--n 1000]

The published weights were trained without noise. They are fine-tuned with Gaussian noise on ``train_4000.npz`` and stored
in the folder, from which they are taken the next time. Both networks are then attacked with PGD in the L2 norm and
certified with ``smoothing``. The training takes about a minute and a half of processor time, the evaluation four minutes.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

import torch
from torch import nn

from freqrobust import evaluate, load_data, load_model
from freqrobust.core.files import write_atomically
from freqrobust.data.dataset import ImageData
from freqrobust.results.reporter import reports
from freqrobust.training.loop import fit
from freqrobust.training.plan import sgd_plan

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
LEARNING_RATE = 0.01


def fine_tune(model: nn.Module, train: ImageData, sigma: float, epochs: int) -> None:
    """Train in place on images with Gaussian noise, which is new in every epoch (Cohen et al. 2019, sec. 3.3)."""
    augment = ["flip-crop", f"gaussian-noise:sigma={sigma:g}"]
    fit(model, train, sgd_plan(epochs, LEARNING_RATE, augment=augment), device=CPU)


def fine_tuned(shared: Path, folder: Path, sigma: float, epochs: int) -> nn.Module:
    """The fine-tuned network of the folder; it is trained if the folder does not contain it."""
    model = load_model(shared / "checkpoints/resnet20-12fca82f.th")
    path = folder / f"resnet20-noise-{sigma:g}-epochs-{epochs}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        fine_tune(model, load_data(str(shared / "data/cifar10/train_4000.npz")), sigma, epochs)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        write_atomically(path, buffer.getvalue())
    return model


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("FREQROBUST_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ and checkpoints/")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the fine-tuned network and of the runs")
    parser.add_argument("--images", type=int, default=30, help="first images of the test set")
    parser.add_argument("--epochs", type=int, default=5, help="of the fine-tuning")
    parser.add_argument("--sigma", type=float, default=0.12, help="standard deviation of the noise")
    parser.add_argument("--copies", type=int, default=4, help="noisy copies that vote")
    parser.add_argument("--steps", type=int, default=10, help="of PGD, each the mean of 10 draws of all copies")
    parser.add_argument("--n", type=int, default=1000, help="draws of the certificate")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    models = {
        "natural": load_model(options.shared / "checkpoints/resnet20-12fca82f.th"),
        "fine-tuned": fine_tuned(options.shared, options.folder, options.sigma, options.epochs),
    }
    report = evaluate(
        models,
        str(options.shared / "data/cifar10/test_500.npz"),
        first=options.images,
        defenses=[f"randomized-smoothing:sigma={options.sigma:g},copies={options.copies}"],
        undefended=False,
        attacks=[f"pgd:eps=[0.1,0.25],norm=l2,steps={options.steps}"],
        certify=[f"smoothing:eps=[0.1,0.25],n={options.n}"],
        diagnose=None,
        oblivious=False,
        run_dir=options.folder / "run",
        progress=True,
    )
    reports.get("table")().render(report, sys.stdout)


if __name__ == "__main__":
    main()
