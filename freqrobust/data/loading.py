"""Datasets by spec."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from freqrobust.core.config import SizeOptions
from freqrobust.core.errors import DataError
from freqrobust.core.files import user_path
from freqrobust.core.numbers import check_int64
from freqrobust.core.user_code import running_user_code
from freqrobust.data.class_names import published_names
from freqrobust.data.dataset import ImageData, Subset, as_checked, check, check_labels, check_positive, versions
from freqrobust.data.decoding import check_length, from_samples
from freqrobust.data.input_config import InputConfig, requested
from freqrobust.data.lazy_images import LazyImages
from freqrobust.data.loaders import from_iterable, from_loader
from freqrobust.data.pixel_cache import AUTO, cache_option
from freqrobust.data.samples import pair_of
from freqrobust.data.source_table import DataRequest, data_sources


def as_data(data: Any, spec: str = "tensors", first: int | None = None, config: InputConfig | None = None) -> ImageData:
    """Images and labels, a dataset, a ``DataLoader`` or an :class:`ImageData`, checked.

    Data that this function returned before is not checked again. An :class:`ImageData` that was constructed directly is
    checked and hashed each time: its arrays may be changed in ways that torch does not record.

    Args:
        data: ``(images, labels)``; a dataset of torch or of Hugging Face, or a ``DataLoader``, of (image, label) pairs or
            of dictionaries with an image and a label; or a data spec.
        spec: what the data is called.
        first: of data that is iterated over, so many samples are read; other data is read completely.
        config: how PIL images are resized and cropped, and arrays where the user gave the sizes.

    Raises:
        DataError: a type, shape, length or range is wrong, or there are no samples.
    """
    if isinstance(data, ImageData):
        known = vars(data).get("_checked")
        if known is None or known != versions(data):
            if isinstance(data.images, LazyImages):
                data = replace(data, labels=check_labels(data.labels, data.spec, data.classes))
            else:
                checked = check(data.images, data.labels, data.spec, data.classes)
                data = replace(data, images=checked.images, labels=checked.labels)
            data = as_checked(data)
        return _resized(data, config)
    return as_checked(_resized(_from_anything(data, spec, first, config), config))


def _resized(data: ImageData, config: InputConfig | None) -> ImageData:
    """Arrays as they are, unless the user gave sizes and they were not applied when images were decoded.

    Raises:
        DataError: the crop is larger than the images.
    """
    if config is None or not config.given or data.preprocessing == config:
        return data
    with running_user_code(f"{data.spec} cannot be resized", DataError):
        images = config.applied(cast("torch.Tensor", data.in_memory().images)).contiguous()
    return as_checked(replace(data, images=images, preprocessing=config))


def _from_anything(data: Any, spec: str, first: int | None, config: InputConfig | None) -> ImageData:
    if isinstance(data, str | os.PathLike):
        return load_data(os.fspath(data), input=config)
    if isinstance(data, tuple | list) and len(data) == 2 and (torch.is_tensor(data[0]) or hasattr(data[0], "shape")):
        return check(_as_tensor(data[0], "images", spec), _as_tensor(data[1], "labels", spec), spec)
    if isinstance(data, DataLoader):
        return from_loader(data, first, config)
    if isinstance(data, Mapping):
        if not any(isinstance(value, torch.Tensor | np.ndarray) for value in data.values()):
            splits = ", ".join(map(repr, data)) or "nothing"
            raise DataError(f"expected one dataset, but got a {type(data).__name__} with {splits}; give one of them")
        return _from_anything(pair_of(data, spec), spec, first, config)
    if isinstance(data, torch.Tensor | type):
        raise DataError(_expected(data))
    iterated = isinstance(data, IterableDataset) or not hasattr(data, "__getitem__")
    if spec == "tensors" and (iterated or hasattr(data, "column_names")):
        spec = type(data).__name__
    if iterated and hasattr(data, "__iter__"):
        return from_iterable(data, spec, first, config=config)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        check_length(data, spec)
        return from_samples(data, spec, config=config)
    raise DataError(_expected(data))


def _as_tensor(values: Any, what: str, spec: str) -> torch.Tensor:
    try:
        writable = values if torch.is_tensor(values) else np.require(values, requirements="W")
        return torch.as_tensor(writable)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{spec}: the {what} should be an array, but got {type(values).__name__}: {error}") from error


def _expected(data: Any) -> str:
    return f"expected (images, labels), a dataset, a DataLoader or a data spec, but got {type(data).__name__}"


def load_data(
    spec: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "test",
    limit: int | None = None,
    first: int | None = None,
    seed: int = 0,
    resize: str | int | tuple[int, int] | None = None,
    crop: str | int | tuple[int, int] | None = None,
    input: InputConfig | None = None,
    data_cache: str | os.PathLike[str] = AUTO,
    skip_unreadable: bool = False,
) -> ImageData:
    """Load a dataset from a spec. Images in files are decoded when they are used.

    Args:
        spec: a name, a file or a callable; ``freqrobust list datasets`` prints the forms.
        data_dir: directory of the downloaded datasets; missing ones are downloaded into it.
        split: ``test`` or ``train``.
        limit: size of a class-stratified subset, drawn with ``seed``.
        first: number of samples from the start of the dataset.
        seed: the seed of the subset.
        resize: the shorter side, (height, width) or ``"none"``: images and arrays are resized first.
        crop: the side, (height, width) or ``"none"``: then they are cropped at the centre.
        input: how a model expects images, such as ``load_model(...).input``: those in files are resized and cropped so.
        data_cache: where decoded images in files are kept: ``memory``, ``off``, a directory, or ``auto``, which is memory
            where they take at most a quarter of the free memory, and off otherwise.
        skip_unreadable: leave out files that cannot be decoded.

    Raises:
        DataError: the data cannot be found, or is not images in [0, 1] with labels.
        SpecError: ``resize`` or ``crop`` is no size, or ``data_cache`` names no directory.
    """
    sizes = SizeOptions(resize=resize, crop=crop)  # type: ignore[arg-type]  # checked, and made text
    config = requested(input, sizes.resize, sizes.crop)
    if split not in ("test", "train"):
        raise DataError(f"split should be 'test' or 'train', but got {split!r}")
    if limit is not None and first is not None:
        raise DataError("give either limit or first, not both")
    for name, n in (("limit", limit), ("first", first)):
        if n is not None:
            check_positive(name, n)
            check_int64(name, n)
    check_int64("seed", seed)
    if data_dir is not None:
        data_dir = user_path(data_dir, "--data-dir")
    source = data_sources.find(spec)
    cache = cache_option(data_cache)
    request = DataRequest(spec, data_dir, split, Subset(limit, first, seed), config, cache, skip_unreadable)
    with running_user_code(f"{spec} failed", DataError):
        loaded = source.load(request)
    data = replace(loaded if isinstance(loaded, ImageData) else _from_anything(loaded, spec, None, config), split=split)
    data = published_names(data, spec)
    index = None if data.subset else request.subset.index(data.labels)
    return _resized(data if index is None else data.take(index), config)
