"""``digits``: the handwritten digits of scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import torch

from freqrobust.data.dataset import ImageData, check
from freqrobust.data.source_table import DataRequest, DataSource

#: The first so many images are the training split.
_TRAINING = 1297


def load(request: DataRequest) -> ImageData:
    """The 1797 images, 1 x 8 x 8: the first 1297 for training, the last 500 for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    part = slice(_TRAINING) if request.split == "train" else slice(_TRAINING, None)
    pixels = torch.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)[part]
    data = check(pixels, torch.tensor(labels, dtype=torch.int64)[part], "digits", 10)
    return replace(data, ids=torch.arange(len(images))[part])


SOURCES = (DataSource("digits", "1797 handwritten digits of scikit-learn, 8 x 8, embedded", load),)
