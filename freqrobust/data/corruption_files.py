"""The published corruption files: CIFAR-C arrays and ImageNet-C folders, read from where a user keeps them.

CIFAR-10-C and CIFAR-100-C hold ``{name}.npy``, uint8 ``(5 n, H, W, 3)``, severity ``s`` in rows ``(s - 1) n ...``, and
``labels.npy``, ``(5 n,)`` or ``(n,)``. ImageNet-C holds ``{name}/{severity}/CLASS/IMAGE``, as published below folders
such as ``blur`` and ``noise``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.files import reason, regular_file, user_path
from freqrobust.core.text import near_miss
from freqrobust.data.dataset import Choice, ImageData, check
from freqrobust.data.decoding import from_samples
from freqrobust.data.image_folders import image_folder
from freqrobust.plugins.corruption_names import COMMON, EXTRA, SEVERITIES
from freqrobust.plugins.specs import list_items, parse_params

#: Prefixes of data specs, with their number of classes.
CIFAR = {"cifar10c": 10, "cifar100c": 100}
IMAGENET, IMAGENET_CLASSES = "imagenetc", 1000
_NAMES = (*COMMON, *EXTRA)


class PublishedFiles(Protocol):
    """All corruptions of one test set; row ``i`` of each is image ``i`` of it."""

    def labels(self, name: str, severity: int) -> torch.Tensor:
        """Of all images, int64 ``(n,)``."""

    def images(self, name: str, severity: int, rows: torch.Tensor) -> torch.Tensor:
        """Of the images in these rows, uint8 ``(len(rows), C, H, W)``."""

    def fingerprint(self, name: str, severity: int) -> str:
        """Changes with the content."""


def published(folder: str | os.PathLike[str]) -> PublishedFiles:
    """The files in a folder, whichever of the two layouts it has.

    Raises:
        DataError: it is not a folder.
    """
    path = user_path(folder, "the folder of corruption files", DataError)
    if not path.is_dir():
        raise DataError(
            f"{path} is not a folder; expected one with {COMMON[0]}.npy, ... and labels.npy, or {COMMON[0]}/1/"
        )
    return _Arrays(path) if any(path.glob("*.npy")) else _Folders(path)


class _Arrays:
    """CIFAR-10-C, CIFAR-100-C, and others of that form."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _open(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return opened(self.folder, name, str(self.folder))

    def labels(self, name: str, severity: int) -> torch.Tensor:
        return torch.from_numpy(self._open(name)[1])

    def images(self, name: str, severity: int, rows: torch.Tensor) -> torch.Tensor:
        stack, labels = self._open(name)
        taken = stack[(severity - 1) * len(labels) + rows.numpy()]
        return torch.from_numpy(taken).permute(0, 3, 1, 2).contiguous()

    def fingerprint(self, name: str, severity: int) -> str:
        stack, labels = self._open(name)
        digest = hashlib.sha256(f"{stack.shape}".encode())
        digest.update(np.ascontiguousarray(stack[(severity - 1) * len(labels) :][: len(labels)]).data)
        digest.update(labels.tobytes())
        return digest.hexdigest()[:16]


class _Folders:
    """ImageNet-C, and others of that form."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str, severity: int) -> Path:
        """The folder of one corruption at one severity.

        Raises:
            DataError: it is not there.
        """
        for found in (self.folder / name, *sorted(self.folder.glob(f"*/{name}"))):
            if (found / str(severity)).is_dir():
                return found / str(severity)
        raise DataError(f"{self.folder} holds neither {name}.npy nor {name}/{severity}/CLASS/IMAGE")

    def labels(self, name: str, severity: int) -> torch.Tensor:
        return torch.tensor([label for _, label in _samples(str(self.path(name, severity)))])

    def images(self, name: str, severity: int, rows: torch.Tensor) -> torch.Tensor:
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        samples, found = _samples(str(self.path(name, severity))), []
        for row in rows.tolist():
            try:
                with Image.open(samples[row][0]) as picture:
                    found.append(pil_to_tensor(picture.convert("RGB")))
            except (OSError, ValueError) as error:
                raise DataError(f"{samples[row][0]} cannot be read: {error}") from error
        return torch.stack(found)

    def fingerprint(self, name: str, severity: int) -> str:
        digest = hashlib.sha256()
        for entry in sorted(self.path(name, severity).iterdir()):
            digest.update(f"{entry.name} {entry.stat().st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


@lru_cache(maxsize=2)
def _samples(path: str) -> Sequence[tuple[str, int]]:
    """Files and labels, in the order of the ImageNet validation folder; the last two corruptions are kept."""
    samples: Sequence[tuple[str, int]] = image_folder(Path(path)).samples
    return samples


def opened(folder: Path, name: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    """``{name}.npy``, mapped, and the labels of its images, int64 ``(n,)``.

    Raises:
        DataError: a file is missing, damaged, or of another length than the other.
    """
    stack, labels = array(folder / f"{name}.npy", 4), array(folder / "labels.npy", 1)
    severities = len(SEVERITIES)
    if len(stack) == 0 or len(stack) % severities or len(labels) not in (len(stack), len(stack) // severities):
        raise DataError(f"{what}: {name}.npy holds {len(stack)} images, but labels.npy {len(labels)} labels")
    return stack, np.array(labels[: len(stack) // severities]).astype(np.int64)


def array(path: Path, dims: int) -> np.ndarray:
    """An array file, mapped into memory.

    Raises:
        DataError: it is missing, damaged, or of another form.
    """
    if path.exists():
        regular_file(path, str(path), DataError)
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header can break the reader anywhere
        raise DataError(f"{path} cannot be read: {reason(error)}") from error
    if found.ndim != dims or (dims == 4 and found.dtype != np.uint8):
        raise DataError(f"{path}: expected {dims} dimensions, images as uint8, but got {found.dtype} {found.shape}")
    return found


def load_arrays(
    folder: Path, corruptions: Sequence[str], severity: int, spec: str, classes: int, choice: Choice
) -> ImageData:
    """Corruptions of CIFAR-C at one severity as a data set; of several, the samples are interleaved, image by image.

    Raises:
        DataError: a file is missing or not what it should be.
    """
    pairs = [opened(folder, name, spec) for name in corruptions]
    shortest = min((labels for _, labels in pairs), key=len)
    n = len(shortest)
    labels = torch.from_numpy(shortest).repeat_interleave(len(pairs))
    index = choice.index(labels)
    taken = torch.arange(len(labels)) if index is None else index
    images = np.empty((len(taken), *pairs[0][0].shape[1:]), dtype=np.uint8)
    which, position = taken.numpy() % len(pairs), taken.numpy() // len(pairs)
    for i, (stack, own) in enumerate(pairs):
        images[which == i] = stack[(severity - 1) * len(own) + position[which == i]]
    assert position.max() < n
    data = check(torch.from_numpy(images), labels[taken], spec, classes)
    return data if index is None else replace(data, ids=index, subset=True)


def load_published(spec: str, choice: Choice) -> ImageData:
    """``cifar10c:DIR,name=fog,severity=3``, ``cifar100c:...`` and ``imagenetc:...``.

    Raises:
        SpecError: an unknown corruption, severity or parameter.
        DataError: the files are not there, or not what they should be.
    """
    prefix, _, rest = spec.partition(":")
    directory, _, text = rest.partition(",")
    if not directory:
        raise DataError(f"{spec}: the folder is missing; expected {prefix}:DIR,name=fog,severity=3")
    folder = user_path(directory, prefix, DataError)
    given = dict(parse_params(text, spec))
    if unknown := [key for key in given if key not in ("name", "severity")]:
        raise SpecError(f"{spec!r}: unknown parameter {unknown[0]!r} (parameters: name, severity)")
    severity = given.get("severity", "")
    if "name" not in given or severity not in map(str, SEVERITIES):
        raise SpecError(f"{spec!r}: name a corruption and a severity of 1 to 5: {prefix}:DIR,name=fog,severity=3")
    names = list_items(given["name"]) or [given["name"]]
    for name in names:
        if name not in _NAMES:
            raise SpecError(f"{spec!r}: unknown corruption {name!r}{near_miss(name, _NAMES)} ({', '.join(_NAMES)})")
    if not folder.is_dir():
        raise DataError(f"{spec}: {directory} is not a folder; expected {prefix}:DIR,name=fog,severity=3")
    if prefix in CIFAR:
        return load_arrays(folder, names, int(severity), spec, CIFAR[prefix], choice)
    if len(names) != 1:
        raise SpecError(f"{spec!r}: name one corruption; to measure several, give the attack corruption:files=DIR")
    dataset = image_folder(_Folders(folder).path(names[0], int(severity)))
    if len(dataset.classes) != IMAGENET_CLASSES:
        raise DataError(f"{spec}: {len(dataset.classes)} class folders, but ImageNet-C has {IMAGENET_CLASSES}")
    return from_samples(dataset, spec, IMAGENET_CLASSES, choice)
