"""Folders of images, ``DIR/CLASS/IMAGE``, looked through with bounds before torchvision walks them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from freqrobust.core.errors import DataError
from freqrobust.core.files import reason

#: Entries that are no images, below which a folder may still be one of classes.
_OTHERS = 10_000
#: Entries at all; the largest published set of images has 14 million.
_ENTRIES = 50_000_000
#: Folders inside of each other; links that lead back up would go on for ever.
_DEPTH = 16


def image_folder(path: Path) -> Any:
    """torchvision's ``ImageFolder`` of ``path/CLASS/IMAGE``, undecoded.

    Raises:
        DataError: there are no images of that form.
    """
    import torchvision

    if not path.is_dir():
        raise DataError(f"{path} is not a folder (expected {path / 'CLASS' / 'IMAGE'})")
    check_image_folder(path)
    try:
        return torchvision.datasets.ImageFolder(str(path))
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from error


def check_image_folder(path: Path) -> None:
    """Refuse a folder that is not one of classes: the root of a file system, a home; and pipes among the images.

    Raises:
        DataError: it is not, or something that is named like an image is no file.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    entries = images = 0
    waiting: list[tuple[str, int]] = [(str(path), 0)]
    while waiting:
        folder, depth = waiting.pop()
        if depth > _DEPTH:
            raise DataError(
                f"{path}: expected {path / 'CLASS' / 'IMAGE'}, but folders go more than {_DEPTH} deep: {folder}"
            )
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    entries += 1
                    if entry.is_dir():
                        waiting.append((entry.path, depth + 1))
                    elif depth > 0 and entry.name.lower().endswith(IMG_EXTENSIONS):
                        if not entry.is_file():
                            raise DataError(f"{path}: {entry.path} is named like an image, but is no file")
                        images += 1
                    if entries > _ENTRIES or (entries - images > _OTHERS and entries - images > images):
                        raise DataError(
                            f"{path} is not a folder of classes: expected {path / 'CLASS' / 'IMAGE'}, "
                            f"but of {entries} entries {images} are images"
                        )
        except OSError as error:
            raise DataError(f"{path}: {folder}: {reason(error)}") from error
