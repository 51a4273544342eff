"""Folders of images, ``DIR/CLASS/IMAGE``, checked before torchvision walks them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from freqrobust.core.errors import DataError
from freqrobust.core.files import reason

#: So many entries that are not images are accepted in any folder of classes.
_OTHERS = 10_000
#: Largest number of entries; the largest published dataset has 14 million images.
_ENTRIES = 50_000_000
#: Largest depth of nested folders; symbolic links can lead back to a parent.
_DEPTH = 16


def image_folder(path: Path) -> Any:
    """torchvision's ``ImageFolder`` of ``path/CLASS/IMAGE``, not decoded yet.

    Raises:
        DataError: there are no images in such a structure.
    """
    import torchvision

    check_image_folder(path)
    try:
        return torchvision.datasets.ImageFolder(str(path))
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from error


def check_folder(path: Path, expected: str) -> Path:
    """The path of a folder that exists.

    Raises:
        DataError: it is something else, or does not exist.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; {expected}")
    return path


def check_image_folder(path: Path) -> None:
    """Refuse a folder without class folders, such as the root of a file system, and named pipes among the images.

    Raises:
        DataError: the folder has another structure, or a path that is named like an image is not a file.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    check_folder(path, f"expected {path / 'CLASS' / 'IMAGE'}")
    entries = images = 0
    waiting: list[tuple[str, int]] = [(str(path), 0)]
    while waiting:
        folder, depth = waiting.pop()
        if depth > _DEPTH:
            raise DataError(
                f"{path}: expected {path / 'CLASS' / 'IMAGE'}, but folders go more than {_DEPTH} deep: {folder}"
            )
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    entries += 1
                    if entry.is_dir():
                        waiting.append((entry.path, depth + 1))
                    elif depth > 0 and entry.name.lower().endswith(IMG_EXTENSIONS):
                        if not entry.is_file():
                            raise DataError(f"{path}: {entry.path} is named like an image, but is not a file")
                        images += 1
                    if entries > _ENTRIES or (entries - images > _OTHERS and entries - images > images):
                        raise DataError(
                            f"{path} is not a folder of classes: expected {path / 'CLASS' / 'IMAGE'}, "
                            f"but of {entries} entries {images} are images"
                        )
        except OSError as error:
            raise DataError(f"{path}: {folder}: {reason(error)}") from error
