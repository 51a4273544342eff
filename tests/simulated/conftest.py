"""What runs on the simulated accelerator, in a process of its own: torch knows the device from then on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from support.plugins import digits, make, network, replayed, trained, training_digits  # noqa: F401
from support.simulated_device import install

#: A batch of a network with several threads may be summed in another order.
THREADS = 1


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The simulated accelerator."""
    return install()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)
