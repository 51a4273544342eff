"""What runs on the simulated accelerator, in a process of its own: torch knows the device from then on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from support.plugins import digits, make, network, replayed, trained, training_digits  # noqa: F401
from support.simulated_device import install

DEVICE = install()


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The simulated accelerator."""
    return DEVICE


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # several would add up sums in another order
    yield
    torch.set_num_threads(before)
