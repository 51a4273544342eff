"""A folder of JPEG files evaluated, or trained on, while it is decoded: seconds beside pixels in memory, and peak memory.

    python benchmarks/streaming.py [--images 1500] [--few 300] [--repeats 3] [--attack fgsm:eps=1/255]
                                   [--write docs/benchmarks.md]
    python benchmarks/streaming.py --train [--images 1000] [--few 200] [--caches off memory]

The files have 256 x 256 pixels, the model is ResNet-18 with random weights at 224 pixels. Every run is a process of its
own. The sides take turns: pixels in memory (an .npz file), and the folder with each --data-cache. Seconds are those of
the whole evaluation, with the opening of the data; of a directory, there is the run that fills it, and the next one.
Peak memory is that of the process, as the system counts it, at --images and at --few images.

The network gives one class to all images, which is the label of every fourth one. So a quarter of each block is attacked, in
full batches and a smaller last one, also of the smaller folder: what the C library cannot use again of the memory of a batch
of another size is a part of the peak memory, which depends on the batches that there are, and not on their number.

With --train, one epoch of a ResNet-8 is trained on files of 128 x 128 pixels; seconds are those of the epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timing
from PIL import Image

SIDE, CROP, TRAINED, CLASSES = 256, 224, 128, 4
IN_MEMORY, FILL, FILLED = "pixels in memory", "directory, first run", "directory, next run"
CACHES = {"off": "off", "memory": "memory", FILL: "cache", FILLED: "cache"}
START, END = "<!-- streaming: begin -->", "<!-- streaming: end -->"


def write_folder(folder: Path, count: int, side: int) -> None:
    """``folder/CLASS/IMAGE.jpg``, the classes in turns: smooth random images with noise, as large as photographs of this size."""
    generator = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
        noisy = (smooth + generator.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"class{index % CLASSES}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=90)


def write_model(path: Path) -> None:
    """ResNet-18 with random weights."""
    import torch
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=CLASSES).state_dict(), path)


def in_turns(data: Any) -> Any:
    """The samples of a folder with the classes in turns, as they were written."""
    import torch

    place_in_class = torch.cat([torch.arange(n) for n in data.labels.bincount().tolist()])
    return data.take(torch.argsort(place_in_class, stable=True))


def write_pixels(folder: Path, path: Path, sizes: dict[str, int], train: bool) -> None:
    """The pixels of the folder as an .npz file, in the order in which they are used."""
    from freqrobust import load_data

    data = load_data(f"folder:{folder}", data_cache="off", **sizes)
    data = (data if train else in_turns(data)).in_memory()
    np.savez(path, images=data.images, labels=data.labels.numpy())


def inputs(given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The data of a side, and the options that belong to it."""
    if given.side == IN_MEMORY:
        return str(given.home / f"{given.count}.npz"), {}
    cache = CACHES[given.side]
    sizes = {} if given.train else {"resize": SIDE, "crop": CROP}
    return f"folder:{given.home / str(given.count)}", {
        "data_cache": given.home / cache if cache == "cache" else cache,
        **sizes,
    }


def run(given: argparse.Namespace) -> dict[str, float]:
    """One evaluation or epoch in this process: its seconds, its processor seconds and the peak memory in MiB."""
    import torch

    from freqrobust import evaluate, load_data, load_model, train
    from freqrobust.harness.speed import taken

    data, options = inputs(given)
    if given.train:
        settings: dict[str, Any] = {"arch": "resnet8", "epochs": 1, "batch_size": given.batch, "hold_out": 0}
        settings |= {"probe": ["clean"], "probe_samples": given.batch, "device": "cpu", **options}
        start, cpu = time.perf_counter(), time.process_time()
        with tempfile.TemporaryDirectory() as out:
            seconds = train(data=data, out=out, **settings).record.epochs[0].seconds
    else:
        model = load_model(given.home / "net.pth", arch="torchvision:resnet18", normalize="imagenet")
        start, cpu = time.perf_counter(), time.process_time()
        images = load_data(data, **options)
        images = images if given.side == IN_MEMORY else in_turns(images)
        report = evaluate(model, images, attacks=[given.attack], diagnose=None, device="cpu", batch_size=given.batch)
        seconds = time.perf_counter() - start
        attacked = report.cells[0].accuracy
        if abs(attacked - 1 / CLASSES) > 0.02:
            raise SystemExit(f"the network should give one class to all images, but {attacked:.0%} are correct")
    cpu = time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "mib": (taken(torch.device("cpu")) or 0) / 2**20}


def measured(side: str, count: int, given: argparse.Namespace, home: Path) -> dict[str, float]:
    """One evaluation or epoch in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--count", str(count), "--home", str(home)]
    command += ["--attack", given.attack, "--batch", str(given.batch)]
    command += ["--train"] if given.train else []
    environment = {**os.environ, "FREQROBUST_CACHE": str(home / "freqrobust")}
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.splitlines()[-1]
    )
    print(f"{side}, {count} images: {found['seconds']:.1f} s, {found['mib']:.0f} MiB", file=sys.stderr, flush=True)
    return found


def table(
    large: dict[str, list[dict[str, float]]], small: dict[str, dict[str, float]], given: argparse.Namespace
) -> str:
    """The rows of every side."""

    def ratio(side: str, what: str) -> str:
        values, baseline = ([one[what] for one in large[name]] for name in (side, IN_MEMORY))
        return f"{timing.ratio(values, baseline):.2f}" if side != IN_MEMORY else ""

    lines = [
        f"| `--data-cache` | seconds, {given.images} images | ratio to pixels in memory (asked: at most 1.15) "
        f"| ratio of processor seconds | peak memory at {given.few} and {given.images} images | ratio (asked: at most 1.1) |",
        "|---|---|---|---|---|---|",
    ]
    for side, rounds in large.items():
        seconds = [one["seconds"] for one in rounds]
        peak, few = max(one["mib"] for one in rounds), small[side]["mib"]
        cells = [side, f"{statistics.median(seconds):.0f}", ratio(side, "seconds"), ratio(side, "cpu")]
        lines.append(f"| {' | '.join(cells)} | {few:.0f}, {peak:.0f} MiB | {peak / few:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", action="store_true", help="train an epoch, in the place of an evaluation")
    parser.add_argument("--images", type=int, help="images of the larger folder")
    parser.add_argument("--few", type=int, help="images of the smaller folder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--caches", nargs="+", choices=CACHES, default=list(CACHES), help="beside pixels in memory")
    parser.add_argument("--attack", default="fgsm:eps=1/255")
    parser.add_argument("--batch", type=int, default=32, help="images per batch")
    parser.add_argument("--write", type=Path, help="file whose marked part becomes the table")
    parser.add_argument("--json", type=Path, help="write what was measured")
    for hidden, kind in (("--side", str), ("--count", int), ("--home", Path)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.images = given.images or (1000 if given.train else 1500)
    given.few = given.few or given.images // 5
    if given.side:
        print(json.dumps(run(given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_model(home / "net.pth")
        side, sizes = (TRAINED, {}) if given.train else (SIDE, {"resize": SIDE, "crop": CROP})
        for count in (given.few, given.images):
            write_folder(home / str(count), count, side)
            write_pixels(home / str(count), home / f"{count}.npz", sizes, given.train)
        (home / "cache").mkdir()
        sides = (IN_MEMORY, *given.caches)
        small = {side: measured(side, given.few, given, home) for side in sides}
        large: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(given.repeats):
            for kept in home.glob("cache/*/*"):
                kept.unlink()
            for side in sides:
                large[side].append(measured(side, given.images, given, home))
    text = table(large, small, given)
    print(text)
    if given.json:
        given.json.write_text(json.dumps({**timing.surroundings(), "few": small, "many": large}, indent=1))
    if given.write is not None:
        before, _, rest = given.write.read_text(encoding="utf-8").partition(START)
        _, _, after = rest.partition(END)
        given.write.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
