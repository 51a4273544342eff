"""Decoding map-style datasets into tensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from freqrobust.core.errors import DataError
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData, Subset, check, check_dense
from freqrobust.data.samples import as_eight_bit, class_names_of, in_equal_channels, pair_of

#: Offset from the end of a dataset at which no sample can exist.
_FAR = 2**40


def check_length(dataset: Any, spec: str) -> None:
    """Refuse a dataset whose ``__len__`` is smaller than the number of its samples.

    Raises:
        DataError: ``len()`` fails or is 0, or there is a sample after the last one.
    """
    try:
        n = len(dataset)
    except Exception as error:  # the user's code can raise any exception
        raise DataError(f"{spec}: len() of the dataset fails: {' '.join(str(error).split())}") from error
    if n == 0:
        raise DataError(f"{spec} is empty")
    if _has_sample(dataset, n) and not _has_sample(dataset, n + _FAR):  # generated datasets can have no end
        raise DataError(
            f"{spec}: len() of the dataset is {n}, but it has a sample at position {n}; correct __len__, or "
            f"give torch.utils.data.Subset(dataset, range({n}))"
        )


def _has_sample(dataset: Any, position: int) -> bool:
    try:
        dataset[position]
    except Exception:  # IndexError of lists; other classes can raise any exception
        return False
    return True


def from_samples(dataset: Any, spec: str, classes: int | None = None, subset: Subset | None = None) -> ImageData:
    """Decode a map-style dataset of (PIL image or tensor, label) pairs; only the subset where it has ``targets``.

    PIL images that differ in size are resized (shorter side 256) and cropped at the centre (224 x 224), the
    usual ImageNet evaluation.
    """
    images: list[torch.Tensor] = []
    labels: list[int] = []
    index = None
    with running_user_code(
        spec, DataError
    ):  # a missing file, a label that is not a number, any exception of the dataset
        if len(dataset) == 0:
            raise DataError(f"{spec} is empty")
        targets = getattr(dataset, "targets", None)
        index = subset.index(torch.as_tensor(targets)) if subset is not None and targets is not None else None
        positions = range(len(dataset)) if index is None else index.tolist()
        crop = _mixed_sizes(dataset)
        for i in positions:
            image, label = pair_of(dataset[i], spec, dataset)
            images.append(_decode(image, crop, spec))
            labels.append(int(label))
    images = in_equal_channels(images)
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise DataError(f"{spec}: images differ in shape: {', '.join(map(str, sorted(shapes)[:3]))}")
    data = check(torch.stack(images), torch.tensor(labels), spec, classes)
    data = replace(data, class_names=class_names_of(dataset))
    return data if index is None else replace(data, ids=index, subset=True)


def _mixed_sizes(dataset: Any) -> bool:
    """Whether the images differ in size; all are opened, so that the decoded pixels do not depend on the subset."""
    samples: Sequence[tuple[str, int]] | None = getattr(dataset, "samples", None)
    if samples is None or getattr(dataset, "transform", None) is not None:
        return False
    if not all(isinstance(sample, tuple) and isinstance(sample[0], str | os.PathLike) for sample in samples):
        return False  # not a dataset of torchvision
    from PIL import Image

    sizes = set()
    for path, _ in samples:
        with Image.open(path) as image:
            sizes.add(image.size)
        if len(sizes) > 1:
            return True
    return False


def _decode(image: Any, crop: bool, spec: str) -> torch.Tensor:
    from torchvision.transforms import functional

    if isinstance(image, torch.Tensor):
        check_dense(image, "images", spec)
        return image
    if isinstance(image, np.ndarray | list):  # a column of arrays
        return torch.as_tensor(np.asarray(image))
    image = as_eight_bit(image, spec)
    if crop:
        image = functional.center_crop(functional.resize(image, 256), [224, 224])
    try:
        decoded: torch.Tensor = functional.pil_to_tensor(image)
    except TypeError as error:
        raise DataError(f"{spec}: expected PIL images or tensors, but got {type(image).__name__}") from error
    return decoded
