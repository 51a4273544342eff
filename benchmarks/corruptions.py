"""The time to make the corruption suite, beside imagecorruptions-imaug.

    python benchmarks/corruptions.py [--images 500] [--rounds 3] [--constants cifar,imagenet] [--extra]

Generation alone, one thread on both sides, in turns: every corruption at five severities on CIFAR-10 images of 32
pixels. The peer has the ImageNet constants only, so that ours with those do the same work; the CIFAR constants
are what these images would get. Targets: at least 5 times as fast in total, and none slower. Exit code 1 if missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from timing import Timed, alternate, packages, ratio, surroundings

from freqrobust.attacks.corruption import Corruption
from freqrobust.data.loading import load_data
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.corruption_names import COMMON, EXTRA, SEVERITIES

ROOT = Path(__file__).resolve().parents[1]
#: How many times as fast in total, at least.
TARGET = 5.0
PEER = "imagecorruptions-imaug"


def ours(images: torch.Tensor, name: str, constants: str, batch: int) -> Callable[[], int]:
    """All severities of one corruption, batch by batch."""
    attacks = [Corruption(name=name, severity=s, constants=constants) for s in SEVERITIES]  # type: ignore[arg-type]
    nothing, ids = torch.nn.Identity(), torch.arange(len(images))

    def run() -> int:
        made = 0
        for attack in attacks:
            for part in ids.split(batch):
                made += len(attack.perturb(nothing, images[part], part, AttackContext(part)))
        return made

    return run


def peer(images: np.ndarray, name: str) -> Callable[[], int]:
    """The same, image by image."""
    from imagecorruptions import corrupt

    def run() -> int:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")  # its own use of deprecated interfaces
            for severity in SEVERITIES:
                for image in images:
                    corrupt(image, severity=severity, corruption_name=name)
        return len(images) * len(SEVERITIES)

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    shared = os.environ.get("FREQROBUST_SHARED", ROOT.parent / "shared")
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/")
    parser.add_argument("--images", type=int, default=500, help="first test images of CIFAR-10, at most 500")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--constants", default="cifar,imagenet", help="of ours")
    parser.add_argument("--extra", action="store_true", help="the four validation corruptions as well")
    parser.add_argument("--json", type=Path, default=ROOT / "runs/corruptions.json", help="raw times")
    given = parser.parse_args()
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)
    data = load_data(str(given.shared / "data/cifar10/test_500.npz"), first=given.images)
    floats, arrays = data.images.float() / 255, data.images.permute(0, 2, 3, 1).contiguous().numpy()
    sets = given.constants.split(",")
    names = COMMON + EXTRA if given.extra else COMMON
    console = Console() if sys.stdout.isatty() else Console(width=160)
    found: dict[str, dict[str, Timed]] = {}
    for name in names:
        sides: dict[str, Callable[[], Any]] = {PEER: peer(arrays, name)}
        sides |= {constants: ours(floats, name, constants, given.batch) for constants in sets}
        found[name] = alternate(sides, given.rounds)
        console.print(f"{name}: " + ", ".join(f"{side} {t.median:.3f} s" for side, t in found[name].items()))
    met = show(console, found, sets)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    raw = {n: {side: {"seconds": t.seconds, "cpu": t.cpu} for side, t in one.items()} for n, one in found.items()}
    versions = packages("freqrobust", "torch", PEER, "numpy", "opencv-python-headless", "scikit-image")
    given.json.write_text(json.dumps({"surroundings": surroundings(), "versions": versions, "times": raw}, indent=1))
    return 0 if met else 1


def show(console: Console, found: dict[str, dict[str, Timed]], sets: list[str]) -> bool:
    """The table; whether all targets were met."""
    table = Table(title=f"five severities each: seconds, and how many times as fast as {PEER} (by processor time)")
    table.add_column("corruption")
    for head in ("peer", *(column for constants in sets for column in (f"{constants} constants", "ratio"))):
        table.add_column(head, justify="right")
    slower: list[str] = []
    for name, one in found.items():
        cells = [f"{one[PEER].median:.2f}"]
        for constants in sets:
            times = ratio(one[PEER].seconds, one[constants].seconds)
            by_cpu = ratio(one[PEER].cpu, one[constants].cpu)
            slower += [f"{name} ({constants})"] if times < 1 else []
            cells += [f"{one[constants].median:.2f}", f"{times:.1f} ({by_cpu:.1f})"]
        table.add_row(name, *cells)
    totals = {side: np.sum([one[side].seconds for one in found.values()], axis=0) for side in (PEER, *sets)}
    cpus = {side: np.sum([one[side].cpu for one in found.values()], axis=0) for side in (PEER, *sets)}
    cells, met = [f"{np.median(totals[PEER]):.2f}"], not slower
    for constants in sets:
        times = ratio(totals[PEER].tolist(), totals[constants].tolist())
        met &= times >= TARGET
        by_cpu = ratio(cpus[PEER].tolist(), cpus[constants].tolist())
        cells += [f"{np.median(totals[constants]):.2f}", f"{times:.1f} ({by_cpu:.1f})"]
    table.add_section()
    table.add_row("total", *cells)
    console.print(table)
    console.print(f"target: {TARGET:g} times as fast in total, none slower; slower: {', '.join(slower) or 'none'}")
    return met


if __name__ == "__main__":
    sys.exit(main())
