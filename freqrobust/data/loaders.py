"""Data that is iterated over: a ``DataLoader``, and datasets without a length."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, SequentialSampler

from freqrobust.core.errors import DataError
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData, check, check_dense
from freqrobust.data.decoding import from_samples
from freqrobust.data.input_config import InputConfig
from freqrobust.data.samples import pair_of, with_class_names


def from_loader(loader: DataLoader[Any], first: int | None = None, config: InputConfig | None = None) -> ImageData:
    """The batches of a loader, concatenated in their order; ``first`` stops after so many samples.

    ``config`` says how PIL images are resized and cropped, where the loader yields single samples.

    Raises:
        DataError: the loader shuffles, has no end, or its batches are not images in [0, 1] with labels.
    """
    spec = "DataLoader"
    _refuse_shuffling(loader)
    if loader.batch_size is None and loader.batch_sampler is None:  # the loader yields samples
        return from_iterable(loader, spec, first, loader.dataset, config)
    with running_user_code(spec, DataError):
        if first is None and not _has_length(loader):
            raise DataError(_endless(spec))
    images: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    seen = 0
    with running_user_code(spec, DataError), torch.random.fork_rng(devices=[]):  # a loader draws a seed for its workers
        for batch in loader:
            x, y = pair_of(batch, spec, loader.dataset)
            for part, what in ((x, "images"), (y, "labels")):
                check_dense(part, what, spec)
            images.append(x.detach().cpu())
            labels.append(y.detach().cpu())
            if y.dim() != 1 or x.dim() < 3 or len(x) != len(y):
                check(x, y, spec)
            seen += len(y)
            if first is not None and seen >= first:
                break
    if not images:
        raise DataError(f"{spec} is empty")
    shapes = sorted({tuple(part.shape[1:]) for part in images})
    if len(shapes) > 1:
        raise DataError(f"{spec}: images differ in shape: {', '.join(map(str, shapes[:3]))}")
    data = with_class_names(check(torch.cat(images), torch.cat(labels), spec), loader.dataset)
    return data.take(torch.arange(min(first, len(data)))) if first is not None and seen >= first else data


def from_iterable(
    samples: Iterable[Any], spec: str, first: int | None, dataset: Any = None, config: InputConfig | None = None
) -> ImageData:
    """The first samples of an iterable of (image, label) pairs, or all of one with an end.

    Raises:
        DataError: it has no length and ``first`` is not given, or its samples are not images with labels.
    """
    if first is None and not _has_length(samples):
        raise DataError(_endless(spec))
    with running_user_code(spec, DataError), torch.random.fork_rng(devices=[]):
        pairs = [pair_of(sample, spec, samples if dataset is None else dataset) for sample in islice(samples, first)]
    data = with_class_names(from_samples(pairs, spec, config=config), samples if dataset is None else dataset)
    return data.take(torch.arange(len(data))) if len(data) == first else data


def _refuse_shuffling(loader: DataLoader[Any]) -> None:
    batched = getattr(loader.batch_sampler, "sampler", None)
    for sampler in (loader.sampler, batched):
        shuffled = isinstance(sampler, torch.utils.data.RandomSampler | torch.utils.data.WeightedRandomSampler)
        shuffled |= isinstance(sampler, torch.utils.data.SubsetRandomSampler) or getattr(sampler, "shuffle", False)
        if shuffled and not isinstance(sampler, SequentialSampler):
            raise DataError(
                "DataLoader: its samples are shuffled, so that results could not be repeated; "
                "make it with shuffle=False, or give its dataset"
            )


def _has_length(values: Any) -> bool:
    try:
        return len(values) >= 0
    except (TypeError, NotImplementedError):
        return False


def _endless(spec: str) -> str:
    return f"{spec} has no length and may have no end: give first=N to use its first N samples"
