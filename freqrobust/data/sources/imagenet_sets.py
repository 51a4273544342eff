"""``imageneta:DIR``, ``imagenetr:DIR``, ``imagenetsketch:DIR`` and ``imagenetv2:DIR``: other test sets for ImageNet models.

ImageNet-A: D. Hendrycks, K. Zhao, S. Basart, J. Steinhardt and D. Song, "Natural Adversarial Examples", CVPR 2021.
ImageNet-R: D. Hendrycks et al., "The Many Faces of Robustness", ICCV 2021. Both have 200 of the 1000 classes, in folders
named by WordNet ids, and predictions are restricted to these.
ImageNet-Sketch: H. Wang, S. Ge, E. P. Xing and Z. C. Lipton, "Learning Robust Global Representations by Penalizing Local
Predictive Power", NeurIPS 2019: all classes, in folders named by WordNet ids.
ImageNetV2: B. Recht, R. Roelofs, L. Schmidt and V. Shankar, "Do ImageNet Classifiers Generalize to ImageNet?", ICML 2019:
all classes, in folders named by the class index, ``0`` to ``999``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from freqrobust.core.errors import DataError
from freqrobust.core.files import user_path
from freqrobust.data.dataset import ImageData
from freqrobust.data.folder_data import from_folder
from freqrobust.data.image_folders import check_folder, image_folder
from freqrobust.data.source_table import DataRequest, DataSource
from freqrobust.data.wordnet_ids import CLASSES, class_indices
from freqrobust.plugins.specs import spec_options

#: Number of classes, and title, by name.
_SETS = {
    "imageneta": (200, "ImageNet-A"),
    "imagenetr": (200, "ImageNet-R"),
    "imagenetsketch": (CLASSES, "ImageNet-Sketch"),
    "imagenetv2": (CLASSES, "ImageNetV2"),
}


def load_by_wordnet_id(request: DataRequest) -> ImageData:
    """The images ``DIR/WORDNET_ID/IMAGE``.

    Labels are numbered within the classes of the set, in the order of ImageNet. ``class_subset`` has their indices among
    the 1000 classes where the set has fewer.
    """
    path, classes = _folder(request, ("classes",))
    indices = class_indices(classes, request.spec)

    def index(name: str) -> int:
        if name not in indices:
            raise DataError(f"{request.spec}: the folder {name!r} is not named by a WordNet id of an ImageNet class")
        return indices[name]

    return _dataset(path, request, index)


def load_by_index(request: DataRequest) -> ImageData:
    """The images ``DIR/INDEX/IMAGE``."""
    path, _ = _folder(request, ())

    def index(name: str) -> int:
        if not (name.isascii() and name.isdecimal() and int(name) < CLASSES and name == str(int(name))):
            raise DataError(f"{request.spec}: the folder {name!r} is not named by a class index of 0 to {CLASSES - 1}")
        return int(name)

    return _dataset(path, request, index)


def _folder(request: DataRequest, known: tuple[str, ...]) -> tuple[Path, str | None]:
    """The folder of a spec, and the file with the classes."""
    directory, _, text = request.argument.partition(",")
    options = spec_options(text, request.spec, known)
    path = check_folder(user_path(directory, request.name, DataError), f"expected {request.name}:DIR")
    return path, options.get("classes")


def _dataset(path: Path, request: DataRequest, index: Callable[[str], int]) -> ImageData:
    """The images of all class folders, with labels by the index of their class.

    Raises:
        DataError: the number of classes is not that of the set, or a folder is not one of a class.
    """
    count, title = _SETS[request.name]
    folders = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    if not folders:
        raise DataError(f"{request.spec}: {path} has no class folders; expected {path / 'CLASS' / 'IMAGE'}")
    model_classes = sorted(index(name) for name in folders)
    if len(folders) != count:
        raise DataError(f"{request.spec}: {len(folders)} class folders, but {title} has {count}")
    dataset: Any = image_folder(path)
    position = {model_class: label for label, model_class in enumerate(model_classes)}
    label_of = [position[index(name)] for name in dataset.classes]
    data = from_folder(dataset, request, count, labels=[label_of[target] for target in dataset.targets])
    return data if count == CLASSES else replace(data, class_subset=tuple(model_classes))


SOURCES = (
    DataSource(
        "imageneta:DIR[,classes=FILE]",
        "ImageNet-A, 200 classes; predictions are restricted to them",
        load_by_wordnet_id,
    ),
    DataSource(
        "imagenetr:DIR[,classes=FILE]",
        "ImageNet-R, 200 classes; predictions are restricted to them",
        load_by_wordnet_id,
    ),
    DataSource("imagenetsketch:DIR[,classes=FILE]", "ImageNet-Sketch, 1000 classes", load_by_wordnet_id),
    DataSource("imagenetv2:DIR", "ImageNetV2, 1000 classes in folders 0 to 999", load_by_index),
)
