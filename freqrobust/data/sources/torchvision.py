"""Datasets of torchvision, downloaded into the data directory when missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from freqrobust.core.errors import DataError
from freqrobust.core.user_code import running_user_code
from freqrobust.data.class_names import with_names
from freqrobust.data.dataset import ImageData, check
from freqrobust.data.folder_data import from_folder
from freqrobust.data.image_folders import image_folder
from freqrobust.data.source_table import DataRequest, DataSource


@dataclass(frozen=True)
class _Dataset:
    """A dataset of torchvision that is an array of images.

    Attributes:
        class_name: its class in ``torchvision.datasets``.
        classes: number of classes.
        labels: the attribute of its labels.
        part: the arguments of the class that name a split.
    """

    class_name: str
    classes: int
    labels: str = "targets"
    part: Callable[[str], dict[str, Any]] = lambda split: {"train": split == "train"}


_ARRAYS = {
    "cifar10": _Dataset("CIFAR10", 10),
    "cifar100": _Dataset("CIFAR100", 100),
    "mnist": _Dataset("MNIST", 10),
    "fashion_mnist": _Dataset("FashionMNIST", 10),
    "svhn": _Dataset("SVHN", 10, "labels", lambda split: {"split": split}),
}
_IMAGENET_CLASSES = 1000


def _load_array(request: DataRequest) -> ImageData:
    entry = _ARRAYS[request.spec]
    part = entry.part(request.split)
    with running_user_code(lambda error: _not_found(request, error)):
        try:
            dataset = _made(entry.class_name, request, **part)
        except RuntimeError:
            dataset = _made(entry.class_name, request, **part, download=True)
    images, labels = dataset.data, getattr(dataset, entry.labels)
    data = check(torch.as_tensor(images), torch.as_tensor(labels), request.spec, entry.classes)
    return with_names(data, getattr(dataset, "classes", ()))


def _load_imagenet(request: DataRequest) -> ImageData:
    """ImageNet with its development kit, or ``val/CLASS/IMAGE`` and ``train/CLASS/IMAGE`` alone."""
    split = "train" if request.split == "train" else "val"
    if not (request.root / "meta.bin").exists() and (request.root / split).is_dir():
        dataset = image_folder(request.root / split)
    else:
        with running_user_code(lambda error: _not_found(request, error)):
            dataset = _made("ImageNet", request, split=split)
    return from_folder(dataset, request, _IMAGENET_CLASSES)


def _made(class_name: str, request: DataRequest, **options: Any) -> Any:
    import torchvision

    return getattr(torchvision.datasets, class_name)(request.root, **options)


def _not_found(request: DataRequest, error: BaseException) -> DataError:
    """torchvision raises many classes of errors: files that are missing or damaged, and downloads that fail."""
    return DataError(
        f"{request.spec}: not found in {request.root}, and it cannot be downloaded ({error}); give --data-dir"
    )


SOURCES = (
    *(
        DataSource(name, f"torchvision's {entry.class_name}, {entry.classes} classes", _load_array)
        for name, entry in _ARRAYS.items()
    ),
    DataSource("imagenet", f"torchvision's ImageNet, {_IMAGENET_CLASSES} classes", _load_imagenet),
)
