"""Decoding datasets of files and objects into tensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from freqrobust.core.errors import DataError
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import Choice, ImageData, _check_dense, check

#: How far behind its end a dataset is asked for a sample that cannot be there.
_FAR = 2**40


def _check_length(dataset: Any, spec: str) -> None:
    """Refuse a dataset whose ``__len__`` is not the number of its samples, as far as it can be seen.

    Raises:
        DataError: it is no number, or there are samples behind the last one.
    """
    try:
        n = len(dataset)
    except Exception as error:  # negative, no whole number, or whatever it raises
        raise DataError(f"{spec}: len() of the dataset fails: {' '.join(str(error).split())}") from error
    if n == 0:
        raise DataError(f"{spec} is empty")
    if _has_sample(dataset, n) and not _has_sample(dataset, n + _FAR):  # one that makes samples up has no end
        raise DataError(
            f"{spec}: the dataset says that it has {n} samples, but there is one at position {n} too; correct __len__, or "
            f"give torch.utils.data.Subset(dataset, range({n}))"
        )


def _has_sample(dataset: Any, position: int) -> bool:
    try:
        dataset[position]
    except Exception:  # IndexError where the dataset is like a list; others raise what they like
        return False
    return True


def from_samples(dataset: Any, spec: str, classes: int | None = None, choice: Choice | None = None) -> ImageData:
    """Decode a map-style dataset of (PIL image or tensor, label) pairs; only the chosen ones where it lists its labels.

    PIL images that differ in size are resized (shorter side 256) and cropped at the centre (224 x 224), the
    usual ImageNet evaluation.
    """
    images: list[torch.Tensor] = []
    labels: list[int] = []
    index = None
    with running_user_code(spec, DataError):  # a missing file, a label that is no number, whatever a dataset raises
        if len(dataset) == 0:
            raise DataError(f"{spec} is empty")
        targets = getattr(dataset, "targets", None)
        index = choice.index(torch.as_tensor(targets)) if choice is not None and targets is not None else None
        positions = range(len(dataset)) if index is None else index.tolist()
        crop = _mixed_sizes(dataset)
        for i in positions:
            image, label = dataset[i]
            images.append(_decode(image, crop, spec))
            labels.append(int(label))
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise DataError(f"{spec}: images differ in shape: {', '.join(map(str, sorted(shapes)[:3]))}")
    data = check(torch.stack(images), torch.tensor(labels), spec, classes)
    return data if index is None else replace(data, ids=index, subset=True)


def _mixed_sizes(dataset: Any) -> bool:
    """Whether the files differ in size; all are asked, so that an image's pixels do not depend on the choice."""
    samples: Sequence[tuple[str, int]] | None = getattr(dataset, "samples", None)
    if samples is None or getattr(dataset, "transform", None) is not None:
        return False
    if not all(isinstance(sample, tuple) and isinstance(sample[0], str | os.PathLike) for sample in samples):
        return False  # not those of torchvision
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
        _check_dense(image, "images", spec)
        return image
    if crop:
        image = functional.center_crop(functional.resize(image, 256), [224, 224])
    try:
        decoded: torch.Tensor = functional.pil_to_tensor(image)
    except TypeError as error:
        raise DataError(f"{spec}: expected PIL images or tensors, but got {type(image).__name__}") from error
    return decoded
