"""The image and the label in a sample or a batch: a pair, or a dictionary as in the datasets of Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from freqrobust.core.errors import DataError
from freqrobust.core.text import excerpt
from freqrobust.data.dataset import ImageData

#: The names of a column of images and of labels, the first one that exists is taken.
IMAGE_COLUMNS = ("image", "images", "img", "pixel_values")
LABEL_COLUMNS = ("label", "labels")


def pair_of(sample: Any, spec: str, dataset: Any = None) -> tuple[Any, Any]:
    """The image and the label of a sample, or the images and the labels of a batch.

    Of a dictionary the columns are found by their names, or else by the types that a dataset of Hugging Face declares.

    Raises:
        DataError: it is no pair and no dictionary, or has no such columns.
    """
    if isinstance(sample, Mapping):
        return sample[_column(sample, IMAGE_COLUMNS, "Image", dataset, spec)], sample[
            _column(sample, LABEL_COLUMNS, "ClassLabel", dataset, spec)
        ]
    if isinstance(sample, tuple | list) and len(sample) == 2:
        return sample[0], sample[1]
    shown = f"a {type(sample).__name__}" + (f" of {len(sample)}" if isinstance(sample, tuple | list) else "")
    raise DataError(f"{spec}: expected (image, label), or a dictionary with an image and a label, but got {shown}")


def _column(sample: Mapping[str, Any], names: tuple[str, ...], kind: str, dataset: Any, spec: str) -> str:
    for name in names:
        if name in sample:
            return name
    features = next((one for one in map(_features, _layers(dataset)) if one), {})
    typed = [str(name) for name, feature in features.items() if type(feature).__name__ == kind and name in sample]
    if len(typed) == 1:
        return typed[0]
    what = "label" if names is LABEL_COLUMNS else "image"
    several = f"several columns of type {kind} ({', '.join(typed)})" if typed else f"no column {' or '.join(names)}"
    listed = excerpt(", ".join(map(str, sample)), 120)
    raise DataError(f"{spec}: {several} among the columns {listed}; rename the column of the {what}s to {what!r}")


def with_class_names(data: ImageData, dataset: Any) -> ImageData:
    """The data with the names of its classes that a dataset declares, where there is one for each label."""
    names = _class_names(dataset)
    return replace(data, class_names=names) if len(names) >= data.classes else data


def _class_names(dataset: Any) -> tuple[str, ...]:
    """``classes`` as in torchvision, or the names of a ``ClassLabel``; or none."""
    for layer in _layers(dataset):
        names = getattr(layer, "classes", None)
        if isinstance(names, tuple | list) and names:
            return tuple(str(name[0] if isinstance(name, tuple | list) and name else name) for name in names)
        features = _features(layer)
        if features:
            labels = [features[name] for name in LABEL_COLUMNS if name in features]
            typed = labels or [value for value in features.values() if type(value).__name__ == "ClassLabel"]
            return tuple(getattr(typed[0], "names", None) or ()) if len(typed) == 1 else ()
    return ()


def _layers(dataset: Any) -> Iterator[Any]:
    """A dataset, and those that it is a part of, such as the dataset of a ``Subset``."""
    for _ in range(8):
        if dataset is None:
            return
        yield dataset
        dataset = getattr(dataset, "dataset", None)


def _features(dataset: Any) -> Mapping[str, Any]:
    """The types of the columns that a dataset of Hugging Face declares."""
    features = getattr(dataset, "features", None)
    return features if isinstance(features, Mapping) else {}


def in_equal_channels(images: list[torch.Tensor]) -> list[torch.Tensor]:
    """Grayscale images among RGB images as RGB images with three equal channels; otherwise as they are."""
    if {len(image) for image in images if image.dim() == 3} != {1, 3}:
        return images
    return [image.expand(3, *image.shape[1:]) if len(image) == 1 else image for image in images]
