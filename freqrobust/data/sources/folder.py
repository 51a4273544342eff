"""``folder:DIR``: a directory with a subdirectory of images for each class."""

from __future__ import annotations

from freqrobust.core.errors import DataError
from freqrobust.core.files import user_path
from freqrobust.data.dataset import ImageData
from freqrobust.data.folder_data import from_folder
from freqrobust.data.image_folders import image_folder
from freqrobust.data.source_table import DataRequest, DataSource


def load(request: DataRequest) -> ImageData:
    """The images ``DIR/CLASS/IMAGE``; classes are numbered in the order of their names."""
    dataset = image_folder(user_path(request.argument, "folder", DataError))
    return from_folder(dataset, request, len(dataset.classes))


SOURCES = (DataSource("folder:DIR", "images DIR/CLASS/IMAGE, classes in the order of their names", load),)
