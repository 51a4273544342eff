"""Decoding map-style datasets into tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from freqrobust.core.errors import DataError
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData, Subset, check, check_dense
from freqrobust.data.image_modes import as_eight_bit
from freqrobust.data.input_config import ADVICE, InputConfig, with_channels
from freqrobust.data.samples import in_equal_channels, pair_of, with_class_names

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


def from_samples(
    dataset: Any,
    spec: str,
    classes: int | None = None,
    subset: Subset | None = None,
    config: InputConfig | None = None,
    *,
    sized: bool = False,
) -> ImageData:
    """Decode a map-style dataset of (PIL image or tensor, label) pairs; only the subset where it has ``targets``.

    Args:
        dataset: the pairs.
        spec: the data spec.
        classes: number of classes.
        subset: which samples.
        config: how PIL images are resized and cropped; tensors only where the user gave the sizes.
        sized: the images were resized and cropped when they were published: those of the size that ``config`` leads to
            are taken as they are, unless the user gave the sizes.

    Raises:
        DataError: an image cannot be read, or the images differ in size and ``config`` does not change that.
    """
    images: list[torch.Tensor] = []
    labels: list[int] = []
    index = None
    used = False
    with running_user_code(
        spec, DataError
    ):  # a missing file, a label that is not a number, any exception of the dataset
        if len(dataset) == 0:
            raise DataError(f"{spec} is empty")
        targets = getattr(dataset, "targets", None)
        index = subset.index(torch.as_tensor(targets)) if subset is not None and targets is not None else None
        positions = range(len(dataset)) if index is None else index.tolist()
        for i in positions:
            image, label = pair_of(dataset[i], spec, dataset)
            pixels, changed = _decode(image, spec, config, sized)
            used |= changed
            images.append(pixels)
            labels.append(int(label))
    images = in_equal_channels(images)
    other = next((pixels for pixels in images if pixels.shape != images[0].shape), None)
    if other is not None:
        raise DataError(different(spec, images[0].shape, other.shape, config))
    data = with_class_names(check(torch.stack(images), torch.tensor(labels), spec, classes), dataset)
    if config is not None and used:
        data = replace(data, preprocessing=config)
    return data if index is None else replace(data, ids=index, subset=True)


def different(spec: str, first: Sequence[int], other: Sequence[int], config: InputConfig | None) -> str:
    """That two images have different shapes, ``(C, H, W)`` where nothing is wrong, and what to do about it."""
    if len(first) != len(other) or first[0] != other[0]:
        return f"{spec}: images differ in shape: {tuple(first)} and {tuple(other)}"
    sizes = " and ".join(f"{shape[-2]}x{shape[-1]}" for shape in (first, other))
    after = f" after they were {config}" if config is not None else ""
    return f"{spec}: images differ in size{after} ({sizes} pixels); {ADVICE}"


def _decode(image: Any, spec: str, config: InputConfig | None, sized: bool) -> tuple[torch.Tensor, bool]:
    """The pixels of a sample, and whether ``config`` was applied to them."""
    if isinstance(image, torch.Tensor):
        check_dense(image, "images", spec)
        if config is None or not config.given or image.dim() not in (2, 3):
            return image, False
        image = image[None] if image.dim() == 2 else image
        if image.dtype == torch.uint8 and image.shape[-1] in (1, 3) and image.shape[0] not in (1, 3):
            image = image.permute(2, 0, 1)
        return config.applied(image[None])[0], True
    if isinstance(image, np.ndarray | list):  # a column of arrays
        return _decode(torch.from_numpy(np.array(image)), spec, config, sized)
    from torchvision.transforms import functional

    image = as_eight_bit(image, spec)
    try:
        width, height = functional.get_image_size(image)
    except TypeError as error:
        raise DataError(f"{spec}: expected PIL images or tensors, but got {type(image).__name__}") from error
    if config is None or (sized and not config.given and config.size == (height, width)):
        pixels: torch.Tensor = functional.pil_to_tensor(with_channels(image, config.channels if config else None))
        return pixels, False
    return config.decoded(image), True
