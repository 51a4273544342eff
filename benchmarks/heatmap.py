"""The Fourier heat map against its forward passes alone, and the memory it takes.

    python benchmarks/heatmap.py [--images 100] [--repeats 3] [--json FILE]

Both sides take turns in one process. "Passes alone" is the same network on as many batches of the same size, with
nothing else done. Memory is the peak of a process of its own, for few and for many images and directions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

import timing

from freqrobust import ImageData, analyze, load_data, load_model

SHARED = Path(os.environ.get("FREQROBUST_SHARED") or Path(__file__).resolve().parents[2] / "shared")
BATCH = 100
TARGET = 1.1


def inputs(images: int) -> tuple[nn.Module, ImageData]:
    """ResNet-20 and the first CIFAR-10 test images."""
    data = load_data(str(SHARED / "data" / "cifar10" / "test_500.npz"), first=images)
    model = load_model(SHARED / "checkpoints" / "resnet20-12fca82f.th", normalize="imagenet")
    return model.eval(), data


def passes(model: nn.Module, data: ImageData, count: int) -> None:
    """``count`` images through the model, in batches, and nothing else."""
    batch = data.batch(torch.arange(BATCH) % len(data), torch.device("cpu"))[0]
    with torch.no_grad():
        for start in range(0, count, BATCH):
            model(batch[: count - start])


def speed(images: int, repeats: int) -> dict[str, Any]:
    """Seconds of both sides and their ratio."""
    model, data = inputs(images)
    found = analyze(model, data.first(2), "heatmap", device="cpu")
    directions = found.results[0].directions  # type: ignore[attr-defined]
    forwards = (directions + 1) * len(data)
    timed = timing.alternate(
        {
            "heat map": lambda: analyze(model, data, "heatmap", batch_size=BATCH, device="cpu").results[0].forwards,
            "passes alone": lambda: passes(model, data, forwards),
        },
        repeats,
        print,
    )
    assert timed["heat map"].result == forwards, "other passes were made than are compared with"
    ours, bare = timed["heat map"], timed["passes alone"]
    return {
        "images": len(data),
        "directions": directions,
        "forwards": forwards,
        "heat map, seconds": ours.seconds,
        "passes alone, seconds": bare.seconds,
        "ratio": timing.ratio(ours.seconds, bare.seconds),
        "ratio of processor seconds": timing.ratio(ours.cpu, bare.cpu),
    }


def peak(images: int, side: int) -> float:
    """Peak MiB of this process after a heat map of so many ``side x side`` images by a model of a few weights."""
    data = torch.zeros(images, 1, side, side, dtype=torch.uint8), torch.arange(images) % 2
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 2))
    analyze(model, data, "heatmap", batch_size=64, device="cpu")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory() -> dict[str, float]:
    """Peak MiB by number of images and directions, less what the images themselves take, each in a fresh process."""
    found = {}
    for images, side in [(64, 16), (4096, 16), (64, 48)]:
        done = subprocess.run(
            [sys.executable, __file__, "--peak", str(images), str(side)], capture_output=True, text=True, check=True
        )
        own = images * side * side / 2**20
        waves = (side * side + 4) // 2
        found[f"{images} images, {waves} directions, {side} px"] = round(float(done.stdout) - own, 1)
    return found


def main() -> int:
    """Measure, print, and fail where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        print(peak(*given.peak))
        return 0
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    report = {"surroundings": timing.surroundings(), "speed": speed(given.images, given.repeats), "memory": memory()}
    print(json.dumps(report, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    ratio = report["speed"]["ratio"]
    print(f"heat map: {ratio:.3f} x the time of its forward passes alone (at most {TARGET})")
    return 0 if math.isfinite(ratio) and ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
