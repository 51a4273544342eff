"""``FILE.npz``: images and labels in a NumPy archive."""

from __future__ import annotations

import torch

from freqrobust.core.errors import DataError
from freqrobust.core.files import regular_file
from freqrobust.data.arrays import read_npz
from freqrobust.data.dataset import ImageData, check
from freqrobust.data.source_table import DataRequest, DataSource


def load(request: DataRequest) -> ImageData:
    """The arrays ``images`` and ``labels``."""
    spec = request.spec
    path = regular_file(spec, spec, DataError, "an .npz file")
    arrays = read_npz(
        path, ("images", "labels"), "{path}: expected the arrays 'images' and 'labels', but found {found}"
    )
    try:
        return check(torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]), spec)
    except (TypeError, ValueError) as error:
        raise DataError(f"{spec}: {error}") from error


SOURCES = (
    DataSource(
        "FILE.npz",
        "images (uint8 NHWC or NHW, or float NCHW in [0, 1]) and labels",
        load,
        matches=lambda spec: spec.endswith(".npz"),
    ),
)
