"""Datasets by spec."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from freqrobust.core.errors import DataError
from freqrobust.core.files import cache_root, regular_file, user_path
from freqrobust.core.numbers import check_int64
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import call, import_module, load_file, running_user_code
from freqrobust.data.arrays import read_npz
from freqrobust.data.dataset import Choice, ImageData, _as_checked, _positive, _versions, check
from freqrobust.data.decoding import _check_length, from_samples
from freqrobust.data.image_folders import image_folder

TORCHVISION_DATASETS = {
    "cifar10": ("CIFAR10", 10),
    "cifar100": ("CIFAR100", 100),
    "mnist": ("MNIST", 10),
    "fashion_mnist": ("FashionMNIST", 10),
    "svhn": ("SVHN", 10),
    "imagenet": ("ImageNet", 1000),
}
DATASETS = ["digits", *TORCHVISION_DATASETS]
#: Prefixes of the published corruption files.
CORRUPTED = ("cifar10c", "cifar100c", "imagenetc")


def as_data(data: Any, spec: str = "tensors") -> ImageData:
    """Images and labels, a map-style dataset or an :class:`ImageData`, checked.

    What was checked here before comes back as it is, with its hash. An :class:`ImageData` that was made by hand is
    checked and hashed each time: whoever made it may change its arrays in ways that torch does not notice.

    Raises:
        DataError: wrong types, shapes, lengths, ranges, or nothing at all.
    """
    if isinstance(data, ImageData):
        known = vars(data).get("_checked")
        if known is not None and known == _versions(data):
            return data
        checked = check(data.images, data.labels, data.spec, data.classes)
        return _as_checked(replace(data, images=checked.images, labels=checked.labels))
    return _as_checked(_from_anything(data, spec))


def _from_anything(data: Any, spec: str) -> ImageData:
    if isinstance(data, str | os.PathLike):
        return load_data(os.fspath(data))
    if isinstance(data, tuple | list) and len(data) == 2 and (torch.is_tensor(data[0]) or hasattr(data[0], "shape")):
        try:
            images, labels = (torch.as_tensor(part) for part in data)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{spec}: {error}") from error
        return check(images, labels, spec)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, torch.Tensor | type):
        _check_length(data, spec)
        return from_samples(data, spec)
    raise DataError(f"expected (images, labels), a dataset or a data spec, but got {type(data).__name__}")


def load_data(
    spec: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "test",
    limit: int | None = None,
    first: int | None = None,
    seed: int = 0,
) -> ImageData:
    """Load a dataset from a spec.

    Args:
        spec: ``digits``, a torchvision dataset (``cifar10 cifar100 mnist fashion_mnist svhn imagenet``), an
            ``.npz`` with ``images`` and ``labels``, ``folder:DIR``, published corruption files
            (``cifar10c:DIR,name=fog,severity=3``, ``cifar100c:``, ``imagenetc:``), ``robustbench:cifar10c``,
            ``module:callable`` or ``file.py:callable``.
        data_dir: where torchvision datasets lie (downloaded there when missing).
        split: ``test`` or ``train``.
        limit: class-stratified subset of that size, drawn with ``seed``.
        first: the first so many samples.

    Raises:
        DataError: nothing is there, or it is not images in [0, 1] with labels.
    """
    if split not in ("test", "train"):
        raise DataError(f"split should be 'test' or 'train', but got {split!r}")
    if limit is not None and first is not None:
        raise DataError("give either limit or first, not both")
    for name, n in (("limit", limit), ("first", first)):
        if n is not None:
            _positive(name, n)
            check_int64(name, n)
    check_int64("seed", seed)
    if data_dir is not None:
        data_dir = user_path(data_dir, "--data-dir")
    choice = Choice(limit, first, seed)
    data = replace(_load(spec, data_dir, split, choice), split=split)
    index = None if data.subset else choice.index(data.labels)
    return data if index is None else data.take(index)


def _load(spec: str, data_dir: str | os.PathLike[str] | None, split: str, choice: Choice) -> ImageData:
    if spec == "digits":
        return _digits(split)
    if spec in TORCHVISION_DATASETS:
        return _torchvision(spec, data_dir, split, choice)
    if spec.startswith("robustbench:"):
        from freqrobust.data.robustbench import load_corrupted

        return load_corrupted(spec, data_dir, choice)
    if spec.partition(":")[0] in CORRUPTED and ":" in spec:
        from freqrobust.data.corruption_files import load_published

        return load_published(spec, choice)
    if spec.startswith("folder:"):
        return _folder(user_path(spec.removeprefix("folder:"), "folder", DataError), spec, choice)
    if spec.endswith(".npz"):
        return _npz(spec)
    head, colon, attr = spec.rpartition(":")
    if colon and attr.isidentifier() and (head.endswith(".py") or all(part.isidentifier() for part in head.split("."))):
        module = load_file(head) if head.endswith(".py") else import_module(head, f"data {spec!r}", DATASETS)
        with running_user_code(f"{spec} failed", DataError):  # a module can have a __getattr__ of its own
            if not hasattr(module, attr):
                raise DataError(f"{head} has no {attr!r}{near_miss(attr, dir(module))}")
            found = getattr(module, attr)
        return as_data(call(found, spec) if callable(found) else found, spec)
    raise DataError(
        f"unknown data {spec!r}{near_miss(spec, DATASETS)} (known: {', '.join(DATASETS)}, a file .npz, folder:DIR, "
        f"{':DIR,name=...,severity=..., '.join(CORRUPTED)}:DIR,name=...,severity=..., robustbench:cifar10c, "
        f"module:callable, file.py:callable)"
    )


def _digits(split: str) -> ImageData:
    """The 1797 handwritten digits of scikit-learn, 8 x 8: the first 1297 for training, the last 500 for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    data = check(pixels, torch.tensor(labels, dtype=torch.int64), "digits", 10)
    return replace(data.take(torch.arange(1297) if split == "train" else torch.arange(1297, 1797)), subset=False)


def _npz(spec: str) -> ImageData:
    path = regular_file(spec, spec, DataError, "an .npz file")
    arrays = read_npz(
        path, ("images", "labels"), "{path}: expected the arrays 'images' and 'labels', but found {found}"
    )
    try:
        return check(torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]), spec)
    except (TypeError, ValueError) as error:
        raise DataError(f"{spec}: {error}") from error


def _torchvision(name: str, data_dir: str | os.PathLike[str] | None, split: str, choice: Choice) -> ImageData:
    import torchvision

    root = Path(data_dir) if data_dir is not None else cache_root() / "data"
    class_name, classes = TORCHVISION_DATASETS[name]
    make: Callable[..., Any] = getattr(torchvision.datasets, class_name)
    part = (
        {"split": "val" if split == "test" else "train"}
        if name == "imagenet"
        else ({"split": split} if name == "svhn" else {"train": split == "train"})
    )
    if name == "imagenet" and not (root / "meta.bin").exists() and (root / str(part["split"])).is_dir():
        return replace(_folder(root / str(part["split"]), name, choice), classes=classes)

    def failed(error: BaseException) -> DataError:  # torchvision raises many kinds: missing, corrupted, no network
        return DataError(f"{name}: not found in {root}, and it cannot be fetched ({error}); give --data-dir")

    with running_user_code(failed):
        try:
            dataset = make(root, **part)
        except RuntimeError:
            if name == "imagenet":
                raise
            dataset = make(root, **part, download=True)
    if name == "imagenet":
        return from_samples(dataset, name, classes, choice)
    images, labels = dataset.data, dataset.labels if name == "svhn" else dataset.targets
    return check(torch.as_tensor(images), torch.as_tensor(labels), name, classes)


def _folder(path: Path, spec: str, choice: Choice) -> ImageData:
    dataset = image_folder(path)
    return from_samples(dataset, spec, len(dataset.classes), choice)
