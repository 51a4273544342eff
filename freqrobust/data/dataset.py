"""Images and labels, and their checks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from freqrobust.core.errors import DataError
from freqrobust.data.input_config import InputConfig
from freqrobust.data.lazy_images import LazyImages
from freqrobust.numerics import noise

#: Values of an image of CIFAR's size.
_SMALL = 3 * 32 * 32


@dataclass(frozen=True)
class ImageData:
    """Images and labels. Images in files are decoded when they are used.

    Attributes:
        images: ``(N, C, H, W)``, uint8 or float32 in [0, 1]: a tensor, or :class:`LazyImages` of images in files, which
            have a shape and are indexed as a tensor. :meth:`batch` reads both, and :meth:`in_memory` makes a tensor.
        labels: int64 ``(N,)``.
        classes: number of classes.
        spec: the data spec.
        split: the part of the dataset.
        ids: dataset indices of the samples, int64 ``(N,)``.
        subset: whether samples were left out.
        class_subset: the model's classes that the labels number, where the data has some of them; predictions are
            restricted to these. Empty where labels are the model's classes.
        class_names: the name of each class, where they are known.
        preprocessing: how the images are resized and cropped; None where they are as they were stored.
        unreadable: names of files that were left out, because they cannot be decoded.
    """

    images: torch.Tensor | LazyImages
    labels: torch.Tensor
    classes: int
    spec: str = "tensors"
    split: str = "test"
    ids: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    subset: bool = False
    class_subset: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    preprocessing: InputConfig | None = None
    unreadable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.labels):
            object.__setattr__(self, "ids", torch.arange(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def sha256(self) -> str:
        """Hash of images, labels and ids; cached until a torch operation changes one of them in place.

        Of images in files, the names and the content of the files and the preprocessing are hashed, and not the pixels.
        """
        current = versions(self)
        known: tuple[Any, str] | None = vars(self).get("_hashed")
        if known is None or known[0] != current:
            known = current, self._hash()
            object.__setattr__(self, "_hashed", known)
        return known[1]

    def _hash(self) -> str:
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.images.dtype}".encode())
        if isinstance(self.images, LazyImages):
            digest.update(self.images.identity.encode())
        for tensor in (self.images, self.labels, self.ids):
            if isinstance(tensor, torch.Tensor):
                digest.update(tensor.contiguous().numpy().tobytes())
        if self.class_subset:
            digest.update(f"{self.class_subset}".encode())
        return digest.hexdigest()

    def batch(self, index: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (float32 in [0, 1]), labels and ids of the samples at these positions."""
        images = self.images[index].to(device)
        images = images.float().div_(255) if images.dtype == torch.uint8 else images
        return images.contiguous(), self.labels[index].to(device), self.ids[index].to(device)

    def image_batches(self, size: int, device: torch.device) -> Iterator[torch.Tensor]:
        """All images, in batches of nearly equal size, at most ``size``."""
        chunks = torch.arange(len(self)).tensor_split(-(-len(self) // size))
        for number, chunk in enumerate(chunks):
            self.prefetch(torch.cat(chunks[number : number + 2]))
            yield self.batch(chunk, device)[0]

    def prefetch(self, index: torch.Tensor, count: int = 0) -> None:
        """Say which samples are used next: images in files are decoded meanwhile.

        What was announced before and is not among them is given up, so that few samples are in memory.

        Args:
            index: their positions.
            count: of a part of a dataset, so many: where there are fewer, those behind the part are added.
        """
        if isinstance(self.images, LazyImages):
            self.images.prefetch(index, count)

    def in_memory(self) -> ImageData:
        """The same samples with ``images`` as a tensor.

        Raises:
            DataError: the images do not fit into memory, or a file cannot be decoded.
        """
        return replace(self, images=self.images.all()) if isinstance(self.images, LazyImages) else self

    def part(self, start: int, stop: int) -> ImageData:
        """The samples at consecutive positions, in the same memory."""
        images = self.images.part(start, stop) if isinstance(self.images, LazyImages) else self.images[start:stop]
        return replace(self, images=images, labels=self.labels[start:stop], ids=self.ids[start:stop], subset=True)

    def take(self, index: torch.Tensor) -> ImageData:
        """The samples at these positions, in this order."""
        images = self.images.take(index) if isinstance(self.images, LazyImages) else self.images[index]
        return replace(self, images=images, labels=self.labels[index], ids=self.ids[index], subset=True)

    def first(self, n: int) -> ImageData:
        """The first ``n`` samples."""
        check_positive("first", n)
        return self if n >= len(self) else self.take(torch.arange(n))

    def limit(self, n: int, seed: int = 0) -> ImageData:
        """A class-stratified random subset of ``n`` samples, in the order of the dataset."""
        check_positive("limit", n)
        if n >= len(self):
            return self
        return self.take(stratified(self.labels, n, seed))


def stratified(labels: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """Sorted positions of a class-stratified random subset of ``n`` samples."""
    order = noise.permutation(len(labels), seed=seed, stream="limit")
    labels = labels[order]
    position = torch.empty(len(labels))  # a sample's rank within its class, as a share of the class
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        position[members] = (torch.arange(len(members)) + 0.5) / len(members)
    return order[torch.argsort(position, stable=True)[:n]].sort().values


@dataclass(frozen=True)
class Subset:
    """Which samples of a dataset are used: the first ones, a class-stratified random subset, or all."""

    limit: int | None = None
    first: int | None = None
    seed: int = 0

    def index(self, labels: torch.Tensor) -> torch.Tensor | None:
        """Positions of the samples; None stands for all."""
        if self.first is not None and self.first < len(labels):
            return torch.arange(self.first)
        if self.limit is not None and self.limit < len(labels):
            return stratified(labels, self.limit, self.seed)
        return None


def check_positive(name: str, n: int) -> None:
    """Raise a DataError unless a number of samples is at least 1."""
    if n < 1:
        raise DataError(f"{name} should be at least 1, but got {n}")


def versions(data: ImageData) -> tuple[object, ...]:
    """A value that changes when a torch operation changes the samples in place; always for tensors of inference mode."""
    store = isinstance(data.images, LazyImages)
    tensors = [part for part in (data.images, data.labels, data.ids) if isinstance(part, torch.Tensor)]
    changes = (object() if tensor.is_inference() else (id(tensor), tensor._version) for tensor in tensors)
    return (id(data.images) if store else None, *changes)


def as_checked(data: ImageData) -> ImageData:
    """Record that the samples were checked in their present version."""
    object.__setattr__(data, "_checked", versions(data))
    return data


def check_dense(tensor: object, what: str, spec: str) -> None:
    """Refuse a tensor that is not a dense array of numbers.

    Raises:
        DataError: it is not a tensor, or its values are not stored as a dense array.
    """
    if not isinstance(tensor, torch.Tensor):
        raise DataError(f"{spec}: the {what} should be a tensor, but are of type {type(tensor).__name__}")
    kind = (
        "nested"
        if tensor.is_nested
        else "meta"
        if tensor.is_meta
        else "quantized"
        if tensor.is_quantized
        else "sparse"
        if tensor.layout != torch.strided
        else None
    )
    if kind is not None:
        raise DataError(f"{spec}: the {what} should be a dense tensor of values, but are a {kind} tensor")


def check(images: torch.Tensor, labels: torch.Tensor, spec: str, classes: int | None = None) -> ImageData:
    """Validate images ``(N, C, H, W)``, ``(N, H, W)`` or uint8 ``(N, H, W, C)``, and labels ``(N,)``.

    Raises:
        DataError: a shape, type or range is wrong, or there are no samples.
    """
    for tensor, what in ((images, "images"), (labels, "labels")):
        check_dense(tensor, what, spec)
    images, labels = images.detach().cpu(), labels.detach().cpu()
    if images.dim() == 3:
        images = images[:, None]
    elif (
        images.dim() == 4
        and images.dtype == torch.uint8
        and images.shape[-1] in (1, 3)
        and images.shape[1] not in (1, 3)
    ):
        images = images.permute(0, 3, 1, 2)
    if images.dim() != 4:
        raise DataError(f"{spec}: expected images (N, C, H, W) or (N, H, W), but got shape {tuple(images.shape)}")
    if labels.dim() != 1:
        raise DataError(f"{spec}: expected labels (N,), but got shape {tuple(labels.shape)}")
    if len(images) != len(labels):
        raise DataError(f"{spec}: {len(images)} images, but {len(labels)} labels")
    if len(labels) == 0 or images.numel() == 0:
        raise DataError(f"{spec} is empty")
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise DataError(f"{spec}: expected uint8 images, or float images in [0, 1], but got {images.dtype}")
        if images.shape[-1] in (1, 3) and images.shape[1] not in (1, 3):
            raise DataError(f"{spec}: float images should be (N, C, H, W), but the shape is {tuple(images.shape)}")
        images = images.float()
        if not bool(torch.isfinite(images).all()):
            raise DataError(f"{spec}: the images contain NaN or infinite values")
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            hint = "; divide by 255, or give uint8" if low >= 0 and high > 2 else "; give them before normalisation"
            raise DataError(f"{spec}: float images should be in [0, 1], but are in [{low:g}, {high:g}]{hint}")
    labels = check_labels(labels, spec, classes)
    return ImageData(images.contiguous(), labels, classes or int(labels.max()) + 1, spec)


def check_labels(labels: torch.Tensor, spec: str, classes: int | None) -> torch.Tensor:
    """The labels as int64.

    Raises:
        DataError: they are no integers, or not from 0 to ``classes - 1``.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"{spec}: expected integer labels, but got {labels.dtype}")
    labels = labels.to(torch.int64)
    highest = int(labels.max())
    if int(labels.min()) < 0 or (classes is not None and highest >= classes):
        bound = f" to {classes - 1}" if classes is not None else ""
        raise DataError(f"{spec}: labels should run from 0{bound}, but are in [{int(labels.min())}, {highest}]")
    return labels


def portion(shape: tuple[int, int, int], most: int) -> int:
    """Images that are read together in a pass over all of them: ``most``, and fewer of images larger than 3 x 32 x 32."""
    return max(1, min(most, most * _SMALL // math.prod(shape)))


def small_batches(data: ImageData, most: int) -> Iterator[torch.Tensor]:
    """All images in small batches, for sums in float64: blocks of memory stay so small that they are used again."""
    size = portion(data.shape, most)
    for images in data.image_batches(size, torch.device("cpu")):
        yield from images.split(size if math.prod(data.shape) <= _SMALL else max(1, size // 8))
