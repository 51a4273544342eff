"""The published corruption files: CIFAR-C arrays and ImageNet-C folders, read from a local folder.

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

from freqrobust.core.errors import DataError
from freqrobust.core.files import user_path
from freqrobust.data.arrays import map_array
from freqrobust.data.dataset import ImageData, Subset, check
from freqrobust.data.image_folders import check_folder, image_folder
from freqrobust.data.manifest import Manifest
from freqrobust.plugins.corruption_names import COMMON, SEVERITIES


class PublishedFiles(Protocol):
    """All corruptions of one test set; row ``i`` of each is image ``i`` of it."""

    def labels(self, name: str, severity: int) -> torch.Tensor:
        """Of all images, int64 ``(n,)``."""

    def images(self, name: str, severity: int, rows: torch.Tensor) -> torch.Tensor:
        """Of the images in these rows, uint8 ``(len(rows), C, H, W)``."""

    def fingerprint(self, name: str, severity: int) -> str:
        """Changes with the content and the names of the files, and with nothing else."""


def published(folder: str | os.PathLike[str]) -> PublishedFiles:
    """The files in a folder of either structure.

    Raises:
        DataError: the path is not a folder.
    """
    path = check_folder(
        user_path(folder, "the folder of corruption files", DataError),
        f"expected one with {COMMON[0]}.npy, ... and labels.npy, or with {COMMON[0]}/1/",
    )
    return _Arrays(path) if any(path.glob("*.npy")) else Folders(path)


class _Arrays:
    """CIFAR-10-C, CIFAR-100-C, and others of that form."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _open(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return open_arrays(self.folder, name, str(self.folder))

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


class Folders:
    """ImageNet-C, and others of that form."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str, severity: int) -> Path:
        """The folder of one corruption at one severity.

        Raises:
            DataError: it does not exist.
        """
        for path in (self.folder / name, *sorted(self.folder.glob(f"*/{name}"))):
            if (path / str(severity)).is_dir():
                return path / str(severity)
        raise DataError(f"{self.folder} contains neither {name}.npy nor {name}/{severity}/CLASS/IMAGE")

    def labels(self, name: str, severity: int) -> torch.Tensor:
        return torch.tensor([label for _, label in _samples(str(self.path(name, severity)))])

    def images(self, name: str, severity: int, rows: torch.Tensor) -> torch.Tensor:
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        samples, images = _samples(str(self.path(name, severity))), []
        for row in rows.tolist():
            try:
                with Image.open(samples[row][0]) as picture:
                    images.append(pil_to_tensor(picture.convert("RGB")))
            except (OSError, ValueError) as error:
                raise DataError(f"{samples[row][0]} cannot be read: {error}") from error
        return torch.stack(images)

    def fingerprint(self, name: str, severity: int) -> str:
        root = self.path(name, severity)
        names = [Path(os.path.relpath(path, root)).as_posix() for path, _ in _samples(str(root))]
        digest = hashlib.sha256()
        for file in Manifest(root, names).files.values():
            digest.update(f"{file.sha256} {file.name}\n".encode())
        return digest.hexdigest()[:16]


@lru_cache(maxsize=2)
def _samples(path: str) -> Sequence[tuple[str, int]]:
    """Files and labels, in the order of the ImageNet validation folder; cached for the last two corruptions."""
    samples: Sequence[tuple[str, int]] = image_folder(Path(path)).samples
    return samples


def open_arrays(folder: Path, name: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    """``{name}.npy``, mapped into memory, and the labels of its images, int64 ``(n,)``.

    Raises:
        DataError: a file is missing or damaged, or the lengths do not match.
    """
    stack, labels = map_array(folder / f"{name}.npy", 4), map_array(folder / "labels.npy", 1)
    severities = len(SEVERITIES)
    if len(stack) == 0 or len(stack) % severities or len(labels) not in (len(stack), len(stack) // severities):
        raise DataError(f"{what}: {name}.npy has {len(stack)} images, but labels.npy has {len(labels)} labels")
    return stack, np.array(labels[: len(stack) // severities]).astype(np.int64)


def load_arrays(
    folder: Path, corruptions: Sequence[str], severity: int, spec: str, classes: int, subset: Subset
) -> ImageData:
    """Corruptions of CIFAR-C at one severity as a dataset; the samples of several are interleaved, image by image.

    Raises:
        DataError: a file is missing or damaged.
    """
    pairs = [open_arrays(folder, name, spec) for name in corruptions]
    shortest = min((labels for _, labels in pairs), key=len)
    n = len(shortest)
    labels = torch.from_numpy(shortest).repeat_interleave(len(pairs))
    index = subset.index(labels)
    taken = torch.arange(len(labels)) if index is None else index
    images = np.empty((len(taken), *pairs[0][0].shape[1:]), dtype=np.uint8)
    which, position = taken.numpy() % len(pairs), taken.numpy() // len(pairs)
    for i, (stack, own) in enumerate(pairs):
        images[which == i] = stack[(severity - 1) * len(own) + position[which == i]]
    assert position.max() < n
    data = check(torch.from_numpy(images), labels[taken], spec, classes)
    return data if index is None else replace(data, ids=index, subset=True)
