"""Folders of images as a dataset whose images are decoded when they are used."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from freqrobust.core.errors import DataError, FreqRobustError, ImageFileError
from freqrobust.core.files import identity
from freqrobust.core.text import one_line
from freqrobust.data import pixel_cache
from freqrobust.data.dataset import ImageData, check_labels
from freqrobust.data.decoders import decoders
from freqrobust.data.decoding import different
from freqrobust.data.image_store import ImageFiles, ImageStore
from freqrobust.data.input_config import InputConfig, with_channels
from freqrobust.data.manifest import FOLDER, ImageFile, Manifest, UnreadableImageError, decoded
from freqrobust.data.samples import with_class_names
from freqrobust.data.source_table import DataRequest


def from_folder(
    dataset: Any, request: DataRequest, classes: int, *, labels: Sequence[int] | None = None, sized: bool = False
) -> ImageData:
    """The images of torchvision's ``ImageFolder``, which are not decoded yet.

    The size of every image is known from its header. With ``request.skip_unreadable``, all images are decoded once, so that
    it is known before anything is measured which samples there are; what was found is remembered.

    Args:
        dataset: has ``root``, ``samples`` and ``targets``.
        request: what was asked for.
        classes: number of classes.
        labels: of all samples, in the place of its own.
        sized: the images were resized and cropped when they were published: those of the size that the preprocessing leads
            to are taken as they are, unless the user gave the sizes.

    Raises:
        DataError: an image cannot be read, or the images differ in size and nothing says how to resize them.
    """
    spec, root = request.spec, Path(dataset.root).absolute()  # also for images that are used in another directory
    every = check_labels(torch.as_tensor(dataset.targets if labels is None else labels), spec, classes)
    index = request.subset.index(every)
    chosen = torch.arange(len(every)) if index is None else index
    names = [Path(os.path.relpath(dataset.samples[i][0], dataset.root)).as_posix() for i in chosen.tolist()]
    classes_in = Path(
        getattr(dataset, "split_folder", root)
    )  # torchvision's ImageNet has the folder of each split in root
    manifest = Manifest(root, names, _folder_of_manifests(classes_in, str(request.data_cache)))
    prepare = _Preparation(request.input, sized)
    opened = _opened(manifest, names, request, prepare)
    if request.skip_unreadable:
        _decode_all(manifest, opened)
    left = [i for i, name in enumerate(names) if manifest.files[name].problem is None]
    missing = tuple(name for name in names if manifest.files[name].problem is not None)
    if not left:
        raise DataError(f"{spec}: none of the {len(names)} images can be read")
    position = {file.name: row for row, file in enumerate(opened.files)}
    rows = [position[names[i]] for i in left]
    applied = prepare.changes_any([opened.files[row] for row in rows])
    store = ImageStore(opened, torch.tensor(rows), prepare.text if applied else AS_THEY_ARE)
    ids = chosen[left]
    data = with_class_names(
        ImageData(store, every[ids], classes, spec, ids=ids, subset=index is not None or bool(missing)), dataset
    )
    return replace(data, preprocessing=request.input if applied else None, unreadable=missing)


def _folder_of_manifests(images: Path, data_cache: str) -> Path | None:
    """Where manifests are kept; None stands for the cache.

    Raises:
        DataError: the directory of decoded images is one of the folders of the images.
    """
    if data_cache in pixel_cache.WORDS:
        return None
    if Path(data_cache).resolve().is_relative_to(images.resolve()):
        raise DataError(
            f"--data-cache {data_cache} is in the folder of images {images}, whose folders are classes; give a directory outside"
        )
    return Path(data_cache) / FOLDER


AS_THEY_ARE = "as they are"


class _Preparation:
    """From a file to pixels."""

    def __init__(self, config: InputConfig | None, sized: bool) -> None:
        self.config = config
        self.sized = sized and config is not None and not config.given

    @property
    def text(self) -> str:
        """Equal for equal pixels of equal files."""
        if self.config is None:
            return AS_THEY_ARE
        record = self.config.record()
        return json.dumps([record.resize, record.crop, record.interpolation, record.detail, self.sized])

    def changes(self, height: int, width: int) -> bool:
        """Whether images of this size are resized or cropped."""
        return self.config is not None and not (self.sized and self.config.size == (height, width))

    def changes_any(self, files: Sequence[ImageFile]) -> bool:
        return any(self.changes(file.height, file.width) for file in files)

    def size(self, file: ImageFile) -> tuple[int, int]:
        """(height, width) of the pixels of a file, from its header."""
        config, (height, width) = self.config, (file.height, file.width)
        return (
            config.output_size(height, width) if config is not None and self.changes(height, width) else (height, width)
        )

    def __call__(self, file: ImageFile) -> np.ndarray:
        """The pixels uint8 ``(C, H, W)``.

        Raises:
            UnreadableImageError: the file cannot be decoded.
            ImageFileError: it has changed, or cannot be resized and cropped.
        """
        from torchvision.transforms.functional import pil_to_tensor

        image, config = decoded(file.content(), file.path), self.config
        try:
            if config is not None and self.changes(image.height, image.width):
                pixels = config.decoded(image)
            else:
                pixels = pil_to_tensor(with_channels(image, config.channels if config is not None else None))
        except FreqRobustError:
            raise
        except Exception as error:  # the function of a library can raise any exception
            raise ImageFileError(f"{file.path} cannot be resized and cropped: {one_line(error)}") from error
        return np.ascontiguousarray(pixels.numpy())


def _opened(manifest: Manifest, names: Sequence[str], request: DataRequest, prepare: _Preparation) -> ImageFiles:
    """The files with a header that can be read, with their cache; their shape is that of the first one.

    Raises:
        DataError: a file cannot be read and is not to be left out, or the images differ in size.
    """
    files = [manifest.files[name] for name in names]
    if not request.skip_unreadable:
        for file in files:
            if file.problem is not None:
                raise UnreadableImageError(file.path, file.problem)
    files = [file for file in files if file.height]
    first, shape = _first(files, request, prepare)
    sizes = [prepare.size(file) for file in files]
    if sizes[files.index(first)] == shape[1:]:  # else only the library knows the sizes
        other = next((size for size in sizes if size != shape[1:]), None)
        if other is not None:
            raise DataError(different(request.spec, shape, (shape[0], *other), request.input))
    return ImageFiles(files, shape, prepare, _cache(files, shape, request, prepare))


def _first(
    files: Sequence[ImageFile], request: DataRequest, prepare: _Preparation
) -> tuple[ImageFile, tuple[int, int, int]]:
    """The first file that can be decoded, and the shape of its pixels."""
    for file in files:
        try:
            channels, height, width = prepare(file).shape
            return file, (channels, height, width)
        except UnreadableImageError:
            if not request.skip_unreadable:
                raise
    raise DataError(f"{request.spec}: none of the images can be read")


def _cache(
    files: Sequence[ImageFile], shape: tuple[int, int, int], request: DataRequest, prepare: _Preparation
) -> pixel_cache.PixelCache:
    import PIL
    import torchvision

    preprocessing = prepare.text if prepare.changes_any(files) else AS_THEY_ARE
    versions = [PIL.__version__, torchvision.__version__]
    key = identity([preprocessing, shape, versions, [file.sha256 for file in files]])
    about = {
        "spec": request.spec,
        "shape": [len(files), *shape],
        "preprocessing": str(request.input) if preprocessing != AS_THEY_ARE else AS_THEY_ARE,
        "pillow": versions[0],
        "torchvision": versions[1],
    }
    return pixel_cache.open_cache(str(request.data_cache), (len(files), *shape), key, about)


def _decode_all(manifest: Manifest, opened: ImageFiles) -> None:
    """Find out which files cannot be decoded, of those for which it is not known; the pixels go into the cache."""

    def problem(row: int) -> tuple[str, str | None]:
        file = opened.files[row]
        try:
            if isinstance(opened.cache, pixel_cache.NoCache):
                decoded(file.content(), file.path)
            else:
                opened.load(row)
        except UnreadableImageError as error:
            return file.name, error.problem
        return file.name, None

    unknown = [row for row, file in enumerate(opened.files) if not file.decoded]
    manifest.decoded(dict(decoders().map(problem, unknown)))
