"""A small trained network with batch norm, the digits it knows, and plugins with sensible parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from freqrobust import ImageData
from support.networks import tiny
from support.plugins import digits, make, network, replayed, setting, trained, training_digits  # noqa: F401
from support.reports import all_hostile, browser, decorate, hostile, measured, show, shown  # noqa: F401


@pytest.fixture
def small() -> Callable[[int, int], tuple[nn.Module, ImageData]]:
    """``small(classes, n)``: a tiny network and ``n`` images that it has right."""
    return tiny
