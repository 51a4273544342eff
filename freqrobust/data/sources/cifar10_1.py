"""``cifar10.1:DIR``: CIFAR-10.1, a new test set for models trained on CIFAR-10.

B. Recht, R. Roelofs, L. Schmidt and V. Shankar, "Do CIFAR-10 Classifiers Generalize to CIFAR-10?", arXiv:1806.00451,
2018. The files are those of the repository ``modestyachts/CIFAR-10.1``, folder ``datasets``:
``cifar10.1_v6_data.npy``, uint8 ``(2000, 32, 32, 3)``, with ``cifar10.1_v6_labels.npy``; version 4 has 2021 images.
"""

from __future__ import annotations

import numpy as np
import torch

from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.files import user_path
from freqrobust.data.arrays import map_array
from freqrobust.data.dataset import ImageData, check
from freqrobust.data.source_table import DataRequest, DataSource
from freqrobust.plugins.specs import spec_options

_VERSIONS = ("v6", "v4")


def load(request: DataRequest) -> ImageData:
    """The images of one version; there is no training split."""
    directory, _, text = request.argument.partition(",")
    version = spec_options(text, request.spec, ("version",)).get("version", _VERSIONS[0])
    if version not in _VERSIONS:
        raise SpecError(f"{request.spec!r}: version should be {' or '.join(_VERSIONS)}, but got {version!r}")
    start = f"cifar10.1_{version}"
    folder = user_path(directory, request.name, DataError)
    images, labels = map_array(folder / f"{start}_data.npy", 4), map_array(folder / f"{start}_labels.npy", 1)
    return check(torch.from_numpy(np.array(images)), torch.from_numpy(np.array(labels)), request.spec, 10)


SOURCES = (DataSource("cifar10.1:DIR[,version=v4]", "CIFAR-10.1, a new test set for CIFAR-10 models", load),)
