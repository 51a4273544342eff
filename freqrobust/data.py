"""Datasets: from any spec to uint8 or float images in memory, decoded once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from freqrobust import noise
from freqrobust.arrays import read_npz
from freqrobust.bounds import check_int64
from freqrobust.errors import DataError
from freqrobust.files import cache_root, regular_file, user_path
from freqrobust.image_folders import image_folder
from freqrobust.registry import near_miss
from freqrobust.user_code import call, import_module, load_file, running_user_code

TORCHVISION_DATASETS = {
    "cifar10": ("CIFAR10", 10),
    "cifar100": ("CIFAR100", 100),
    "mnist": ("MNIST", 10),
    "fashion_mnist": ("FashionMNIST", 10),
    "svhn": ("SVHN", 10),
    "imagenet": ("ImageNet", 1000),
}
DATASETS = ["digits", *TORCHVISION_DATASETS]
#: How far behind its end a dataset is asked for a sample that cannot be there.
_FAR = 2**40
#: Prefixes of the published corruption files.
CORRUPTED = ("cifar10c", "cifar100c", "imagenetc")


@dataclass(frozen=True)
class ImageData:
    """Images and labels in memory.

    Attributes:
        images: ``(N, C, H, W)``, uint8 or float32 in [0, 1].
        labels: int64 ``(N,)``.
        classes: number of classes.
        spec: where it came from.
        split: which part of it.
        ids: dataset indices of the samples, int64 ``(N,)``.
        subset: whether samples were left out.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: int
    spec: str = "tensors"
    split: str = "test"
    ids: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    subset: bool = False

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
        """Hash of images, labels and ids; computed once, and again after a torch operation has changed one of them."""
        versions = _versions(self)
        known: tuple[Any, str] | None = vars(self).get("_hashed")
        if known is None or known[0] != versions:
            known = versions, self._hash()
            object.__setattr__(self, "_hashed", known)
        return known[1]

    def _hash(self) -> str:
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.images.dtype}".encode())
        for tensor in (self.images, self.labels, self.ids):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def batch(self, index: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (float32 in [0, 1]), labels and ids of the samples at these positions."""
        images = self.images[index].to(device)
        images = images.float().div_(255) if images.dtype == torch.uint8 else images
        return images.contiguous(), self.labels[index].to(device), self.ids[index].to(device)

    def image_batches(self, size: int, device: torch.device) -> Iterator[torch.Tensor]:
        """All images, in batches of nearly equal size, at most ``size``."""
        for chunk in torch.arange(len(self)).tensor_split(-(-len(self) // size)):
            yield self.batch(chunk, device)[0]

    def take(self, index: torch.Tensor) -> ImageData:
        """The samples at these positions, in this order."""
        return replace(self, images=self.images[index], labels=self.labels[index], ids=self.ids[index], subset=True)

    def first(self, n: int) -> ImageData:
        """The first ``n`` samples."""
        _positive("first", n)
        return self if n >= len(self) else self.take(torch.arange(n))

    def limit(self, n: int, seed: int = 0) -> ImageData:
        """``n`` samples drawn with the seed, every class in proportion, in dataset order."""
        _positive("limit", n)
        if n >= len(self):
            return self
        return self.take(stratified(self.labels, n, seed))


def stratified(labels: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """Sorted positions of ``n`` of the samples, drawn with the seed, every class in proportion."""
    order = noise.permutation(len(labels), seed=seed, stream="limit")
    labels = labels[order]
    position = torch.empty(len(labels))  # a sample's rank within its class, as a share of the class
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        position[members] = (torch.arange(len(members)) + 0.5) / len(members)
    return order[torch.argsort(position, stable=True)[:n]].sort().values


@dataclass(frozen=True)
class Choice:
    """Which samples are wanted: the first so many, a stratified draw, or all."""

    limit: int | None = None
    first: int | None = None
    seed: int = 0

    def index(self, labels: torch.Tensor) -> torch.Tensor | None:
        """Positions of the wanted samples; None stands for all."""
        if self.first is not None and self.first < len(labels):
            return torch.arange(self.first)
        if self.limit is not None and self.limit < len(labels):
            return stratified(labels, self.limit, self.seed)
        return None


def _positive(name: str, n: int) -> None:
    if n < 1:
        raise DataError(f"{name} should be at least 1, but got {n}")


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


def _versions(data: ImageData) -> tuple[object, ...]:
    """Changes when a torch operation changes the samples in place; tensors of inference mode do not tell."""
    tensors = (data.images, data.labels, data.ids)
    return tuple(object() if tensor.is_inference() else (id(tensor), tensor._version) for tensor in tensors)


def _as_checked(data: ImageData) -> ImageData:
    object.__setattr__(data, "_checked", _versions(data))
    return data


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


def _check_dense(tensor: object, what: str, spec: str) -> None:
    """Refuse what only looks like an array of numbers.

    Raises:
        DataError: it is no tensor, or one without plain values in memory.
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
    """Validate images ``(N, C, H, W)``, ``(N, H, W)`` or uint8 ``(N, H, W, C)``, and labels ``(N,)``."""
    for tensor, what in ((images, "images"), (labels, "labels")):
        _check_dense(tensor, what, spec)
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
            raise DataError(f"{spec}: the images hold NaN or infinite values")
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            hint = "; divide by 255, or give uint8" if low >= 0 and high > 2 else "; give them before normalisation"
            raise DataError(f"{spec}: float images should be in [0, 1], but are in [{low:g}, {high:g}]{hint}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"{spec}: expected integer labels, but got {labels.dtype}")
    labels = labels.to(torch.int64)
    highest = int(labels.max())
    if int(labels.min()) < 0 or (classes is not None and highest >= classes):
        bound = f" to {classes - 1}" if classes is not None else ""
        raise DataError(f"{spec}: labels should run from 0{bound}, but are in [{int(labels.min())}, {highest}]")
    return ImageData(images.contiguous(), labels, classes or highest + 1, spec)


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
        from freqrobust.robustbench_data import load_corrupted

        return load_corrupted(spec, data_dir, choice)
    if spec.partition(":")[0] in CORRUPTED and ":" in spec:
        from freqrobust.corruption_files import load_published

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
        return functional.pil_to_tensor(image)  # type: ignore[no-any-return]
    except TypeError as error:
        raise DataError(f"{spec}: expected PIL images or tensors, but got {type(image).__name__}") from error
