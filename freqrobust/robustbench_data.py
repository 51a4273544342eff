"""The corrupted data sets that RobustBench evaluates on, read from local folders in its layout."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from freqrobust.data import Choice, ImageData, cache_root, check, from_samples
from freqrobust.errors import DataError, SpecError
from freqrobust.registry import near_miss
from freqrobust.robustbench_bridge import PREFIX, line, options, package

#: Folders of corrupted data as RobustBench lays them out, and the number of classes.
CORRUPTED = {
    "cifar10c": ("CIFAR-10-C", 10),
    "cifar100c": ("CIFAR-100-C", 100),
    "imagenetc": ("ImageNet-C", 1000),
    "imagenet3dcc": ("ImageNet-3DCC", 1000),
}
DATASETS = [*CORRUPTED, "imagenet"]
SEVERITIES = 5


def load_corrupted(spec: str, data_dir: str | os.PathLike[str] | None, choice: Choice) -> ImageData:
    """``robustbench:cifar10c[:severity=5,corruptions=[fog,snow]]`` and friends, from a local folder.

    The samples of all corruptions are interleaved, image by image: the first ``15 * n`` of ``cifar10c`` are the
    samples that RobustBench takes for ``n_examples=15 * n``, in another order.

    Raises:
        SpecError: there is no such data set or corruption.
        DataError: the files are not there, or not what they should be.
    """
    name, _, text = spec.removeprefix(PREFIX).partition(":")
    if name not in DATASETS:
        raise SpecError(f"robustbench has no data {name!r}{near_miss(name, DATASETS)} ({', '.join(DATASETS)})")
    root = Path(data_dir) if data_dir is not None else cache_root() / "data"
    if name == "imagenet":
        options(text, spec, ())
        return from_samples(_image_folder(root / "val", spec), spec, 1000, choice)
    given = options(text, spec, ("severity", "corruptions"))
    severity = given.get("severity", "5")
    if severity not in map(str, range(1, SEVERITIES + 1)):
        raise SpecError(f"{spec!r}: severity should be 1 to {SEVERITIES}, but got {severity!r}")
    module = package("robustbench.data")
    known = module.CORRUPTIONS_3DCC if name == "imagenet3dcc" else module.CORRUPTIONS
    wanted = [part.strip() for part in given.get("corruptions", ",".join(known)).strip("[]").split(",")]
    for one in wanted:
        if one not in known:
            raise SpecError(f"{spec!r}: unknown corruption {one!r}{near_miss(one, known)} ({', '.join(known)})")
    folder, classes = root / CORRUPTED[name][0], CORRUPTED[name][1]
    if not folder.is_dir():
        raise DataError(f"{spec}: {folder} is not a folder; give --data-dir")
    if name.startswith("imagenet"):
        if len(wanted) != 1:
            raise SpecError(f"{spec!r}: name one corruption, for example {PREFIX}{name}:corruptions={known[0]}")
        return from_samples(_image_folder(folder / wanted[0] / severity, spec), spec, classes, choice)
    return _arrays(folder, wanted, int(severity), spec, classes, choice)


def _arrays(folder: Path, corruptions: list[str], severity: int, spec: str, classes: int, choice: Choice) -> ImageData:
    """CIFAR-C: ``CORRUPTION.npy`` uint8 ``(5 * n, 32, 32, 3)``, mild first, and ``labels.npy``."""
    labels = torch.from_numpy(np.array(_array(folder / "labels.npy", 1)).astype(np.int64))
    stacks = [_array(folder / f"{name}.npy", 4) for name in corruptions]
    for name, stack in zip(corruptions, stacks, strict=True):
        if len(stack) % SEVERITIES or len(labels) not in (len(stack), len(stack) // SEVERITIES):
            raise DataError(f"{spec}: {name}.npy holds {len(stack)} images, but labels.npy {len(labels)} labels")
    n = min(len(stack) for stack in stacks) // SEVERITIES
    labels = labels[:n].repeat_interleave(len(stacks))
    index = choice.index(labels)
    taken = torch.arange(len(labels)) if index is None else index
    offset = (severity - 1) * n
    images = np.empty((len(taken), *stacks[0].shape[1:]), dtype=np.uint8)
    which, position = taken.numpy() % len(stacks), taken.numpy() // len(stacks)
    for i, stack in enumerate(stacks):
        images[which == i] = stack[offset + position[which == i]]
    data = check(torch.from_numpy(images), labels[taken], spec, classes)
    return data if index is None else replace(data, ids=index, subset=True)


def _array(path: Path, dims: int) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or line(error)}") from error
    if found.ndim != dims or (dims == 4 and found.dtype != np.uint8):
        raise DataError(f"{path}: expected {dims} dimensions, images as uint8, but got {found.dtype} {found.shape}")
    return found


class _Pairs:
    """RobustBench's image folder as (image, label) pairs; the paths are left out."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.samples, self.targets = folder, folder.samples, folder.targets

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label, _ = self.folder[index]
        return image, label


def _image_folder(path: Path, spec: str) -> _Pairs:
    """The 5000 ImageNet images that RobustBench evaluates on, below ``path/CLASS/``."""
    if not path.is_dir():
        raise DataError(f"{spec}: {path} is not a folder; give --data-dir")
    try:
        return _Pairs(package("robustbench.loaders").CustomImageFolder(str(path)))
    except KeyError as error:
        raise DataError(f"{spec}: {path} lacks the class folder {error}") from error
