"""Processor time of every augmentation, in microseconds per image of 3 x 32 x 32.

    python benchmarks/augmentations.py [--images 512] [--repeats 5]

The images are random and smooth. The time is the smallest of several repetitions on one thread. The last row is a forward
and a backward pass of ResNet-20 in batches of 128 images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from freqrobust.models.architectures import cifar_resnet_option_a
from freqrobust.plugins.registry import augmentations
from freqrobust.plugins.training import Batch, StepContext

SPECS = (
    "flip-crop", "gaussian-noise", "mixup", "cutmix:p=1", "autoaugment", "randaugment", "augmix", "augmix:jsd=true",
    "apr:p=1", "apr:amplitude=single,p=1",
)  # fmt: skip


def fastest(work: Callable[[], object], repeats: int, images: int) -> float:
    """The smallest processor time of several calls, in microseconds per image."""
    seconds = []
    work()
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds) / images * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512, help="images of the batch")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions, of which the fastest counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ids = torch.arange(options.images)
    # smooth images, as noise would be unusually fast or slow for operations that count grey levels
    coarse = torch.rand(options.images, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = F.interpolate(coarse, size=(32, 32), mode="bilinear")
    labels = ids % 10
    batch, context = Batch(images, labels, ids, labels), StepContext(ids, 0, 0, 10)
    print("| augmentation | microseconds |\n|---|---|")
    for spec in SPECS:
        plugin = augmentations.parse(spec)[0].plugin
        spent = fastest(partial(plugin.augment, batch, context), options.repeats, options.images)
        print(f"| `{spec}` | {spent:.0f} |")
    network = cifar_resnet_option_a(20).train()
    spent = fastest(lambda: F.cross_entropy(network(images[:128]), labels[:128]).backward(), options.repeats, 128)
    print(f"| ResNet-20 | {spent:.0f} |")


if __name__ == "__main__":
    main()
