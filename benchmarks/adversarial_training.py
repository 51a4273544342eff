"""Methods of adversarial training side by side at equal epochs: clean and robust accuracy, and seconds.

    python benchmarks/adversarial_training.py --train TRAIN --test TEST [--epochs 8] [--arch resnet8] [--runs DIR]

Every method trains the same network from the same initial weights, with the same order and augmentation of the images.
``free`` is there twice: with as many optimisation steps as the others, and with as many passes over the data. Each
network is then attacked on the test images by PGD with 50 steps and by ``aa``, an ensemble after AutoAttack. The table
has the processor seconds of the training, which on one thread hardly depend on what else the machine does.

Run time: with 4,000 training and 500 test images about 30 minutes on one idle core, half of it for ``aa``. Networks and
results are stored one by one in ``--runs``, and a later call continues.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from freqrobust import load_data
from freqrobust.core.numbers import pixel_text
from freqrobust.core.training_config import Recipe
from freqrobust.data.dataset import ImageData
from freqrobust.harness.correctness import correct_samples
from freqrobust.models.classifier import Classifier
from freqrobust.models.normalization import training_normalization
from freqrobust.models.untrained import untrained
from freqrobust.numerics.statistics import wilson
from freqrobust.plugins.registry import attacks
from freqrobust.training.loop import fit
from freqrobust.training.plan import plan

CPU = torch.device("cpu")
REPLAYS = 4


def contestants(eps: float, steps: int, epochs: int) -> dict[str, tuple[str, int]]:
    """Method and passes over the data, by the name of the row."""
    budget = f"eps={pixel_text(eps)}"
    return {
        "natural": ("natural", epochs),
        "rs-fgsm": (f"rs-fgsm:{budget}", epochs),
        f"free, {epochs // REPLAYS} x {REPLAYS} replays": (f"free:{budget},replays={REPLAYS}", epochs // REPLAYS),
        "madry": (f"madry:{budget},steps={steps}", epochs),
        "trades": (f"trades:{budget},steps={steps}", epochs),
        "mart": (f"mart:{budget},steps={steps}", epochs),
        f"free, {epochs} x {REPLAYS} replays": (f"free:{budget},replays={REPLAYS}", epochs),
    }


def trained(method: str, epochs: int, data: ImageData, args: argparse.Namespace, path: Path) -> Classifier:
    """The network of a method, from ``path`` where it was trained before; its seconds are stored with it."""
    choice = training_normalization(data)
    network = untrained(args.arch, data.classes, data.shape[0], seed=args.seed)
    model = Classifier(network, choice, method, args.arch, None)
    if not path.exists():
        recipe = Recipe(method=method, epochs=epochs, batch_size=args.batch_size, optimizer=args.optimizer)
        start = time.process_time()
        fit(model, data, plan(recipe), device=CPU, seed=args.seed)
        torch.save({"model": model.state_dict(), "seconds": time.process_time() - start}, path)
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    return model.eval().requires_grad_(False)


def accuracy(model: Classifier, data: ImageData, spec: str | None, args: argparse.Namespace) -> dict[str, Any]:
    """Correct samples after an attack, with the 95 % interval."""
    plugin_spec = attacks.parse(spec)[0] if spec is not None else None
    start = time.process_time()
    (correct,) = correct_samples(model, data, [plugin_spec], device=CPU, seed=args.seed)
    n = int(correct.sum())
    seconds = time.process_time() - start
    return {"accuracy": n / len(data), "ci95": wilson(n, len(data)), "n": len(data), "seconds": seconds}


def main() -> None:
    """Train, attack, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--arch", default="resnet8")
    parser.add_argument("--epochs", type=int, default=8, help=f"a multiple of {REPLAYS}")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--optimizer", default="sgd:lr=0.05,momentum=0.9,nesterov=true,weight_decay=0.0005")
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--steps", type=int, default=7, help="of the training attacks of madry, mart and trades")
    parser.add_argument("--limit", type=int, default=None, help="training images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/adversarial-training"))
    parser.add_argument("--without-aa", action="store_true", help="leave out the attacks that take longest")
    args = parser.parse_args()
    if args.epochs % REPLAYS:
        parser.error(f"--epochs should be a multiple of {REPLAYS}, but is {args.epochs}")
    torch.set_num_threads(1)
    args.runs.mkdir(parents=True, exist_ok=True)
    train, test = load_data(args.train, split="train", limit=args.limit), load_data(args.test)
    results_path = args.runs / "results.json"
    results: dict[str, Any] = json.loads(results_path.read_text()) if results_path.exists() else {}
    budget = f"eps={pixel_text(args.eps)}"
    columns = {"clean": None, "PGD-50": f"pgd:{budget},steps=50", "AutoAttack (aa)": f"aa:{budget}"}
    if args.without_aa:
        del columns["AutoAttack (aa)"]
    rows = contestants(args.eps, args.steps, args.epochs)
    slowest = [name for name in columns if name.startswith("AutoAttack")]  # last, so that the rest is there before
    for names in ([name for name in columns if name not in slowest], slowest):
        for row, (method, epochs) in rows.items():
            path = args.runs / f"{row.replace(' ', '').replace(',', '-')}.pt"
            model = trained(method, epochs, train, args, path)
            record = results.setdefault(row, {"seconds": torch.load(path, weights_only=True)["seconds"]})
            for name in names:
                if name not in record:
                    record[name] = accuracy(model, test, columns[name], args)
                    results_path.write_text(json.dumps(results, indent=1))
                    print(row, name, record[name], flush=True)
    print("| method | " + " | ".join(columns) + " | seconds of training |")
    print("|---|" + "---|" * (len(columns) + 1))
    for row in rows:
        record = results[row]
        cells = [
            f"{record[c]['accuracy']:.1%} ({record[c]['ci95'][0]:.1%}-{record[c]['ci95'][1]:.1%})" for c in columns
        ]
        print(f"| {row} | " + " | ".join(cells) + f" | {record['seconds']:.0f} |")


if __name__ == "__main__":
    main()
