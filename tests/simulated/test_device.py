"""The simulated accelerator itself: what raises, and what is counted."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freqrobust.models.architectures import SmallCNN
from support.simulated_device import Simulated, synchronisations

MIXED = {
    "added": lambda here, there: here + there,
    "added in place": lambda here, there: there.add_(here),
    "concatenated": lambda here, there: torch.cat([there, here]),
    "chosen by a mask": lambda here, there: torch.where(here > 0, there, there),
    "multiplied": lambda here, there: here @ there.T,
    "gathered": lambda here, there: there.gather(1, torch.zeros(3, 1, dtype=torch.int64)),
    "a convolution": lambda here, there: F.conv2d(there[None, None], here[None, None]),
    "indices of the device": lambda here, there: here[there[:, 0].long()],
    "a number of the CPU that is written to": lambda here, there: torch.zeros(()).add_(there.sum()),
    "no number of the CPU": lambda here, there: here + there.sum(),
}
COUNTS = {
    "a number": (lambda here, there: float(there.sum()), 1),
    "a condition": (lambda here, there: bool((there > 0).any()), 1),
    "a list": (lambda here, there: there.tolist(), 1),
    "equality": (lambda here, there: torch.equal(there, there), 1),
    "positions": (lambda here, there: (there > 0).nonzero(), 1),
    "read with a mask": (lambda here, there: there[there > 0.5], 1),
    "read rows with a mask": (lambda here, there: there[there[:, 0] > 0.5], 1),
    "written with a mask": (lambda here, there: there.__setitem__(there[:, 0] > -1, there + 1), 1),
    "a number written with a mask": (lambda here, there: there.__setitem__(there > 0.5, 0.0), 0),
    "filled": (lambda here, there: there.masked_fill(there > 0.5, 0.0), 0),
    "chosen": (lambda here, there: torch.where(there > 0.5, 1.0, there), 0),
    "read with indices": (lambda here, there: there[torch.arange(2, device=there.device)], 0),
    "indices of the CPU": (lambda here, there: there[torch.arange(2)], 1),
    "to the CPU": (lambda here, there: there.cpu(), 1),
    "from the CPU": (lambda here, there: here.to(there.device), 1),
    "from the CPU, later": (lambda here, there: here.to(there.device, non_blocking=True), 0),
    "made of numbers": (lambda here, there: torch.tensor([1.0, 2.0], device=there.device), 1),
    "made on the device": (lambda here, there: torch.full((2, 3), 0.5, device=there.device) + 1, 0),
    "copied to a tensor of the CPU": (lambda here, there: here.copy_(there), 1),
    "different values": (lambda here, there: there.unique(), 1),
    "a slice": (lambda here, there: there[1:, 0] * 2 + there.sum(), 0),
}


@pytest.fixture
def both(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    return values, values.to(device)


@pytest.mark.parametrize("operation", MIXED.values(), ids=MIXED)
def test_mixed_devices_raise(both, operation) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        operation(*both)


@pytest.mark.parametrize(
    "read", [lambda there: there.numpy(), np.asarray, torch.from_numpy], ids=["numpy", "asarray", "from_numpy"]
)
def test_its_values_are_not_read_by_numpy(both, read) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        read(both[1])


def test_a_number_of_the_cpu_is_taken_as_a_number(both) -> None:
    here, there = both
    found = torch.tensor(2.0) * there + torch.tensor(1.0)
    assert isinstance(found, Simulated)
    assert torch.equal(found.cpu(), 2 * here + 1)


@pytest.mark.parametrize(("operation", "expected"), COUNTS.values(), ids=COUNTS)
def test_synchronisations_are_counted(both, operation, expected) -> None:
    with synchronisations() as counted:
        operation(*both)
    assert counted().total() == expected, counted()


@pytest.mark.parametrize(
    "make",
    [
        lambda device: torch.arange(5, device=device),
        lambda device: torch.arange(2, 5, dtype=torch.float32, device=device),
        lambda device: torch.linspace(0, 1, 7, device=device),
        lambda device: torch.eye(3, device=device),
        lambda device: torch.fft.rfftfreq(8, device=device),
    ],
)
def test_what_is_made_on_the_device_has_its_shape(device, make) -> None:
    found, expected = make(device), make("cpu")
    assert found.shape == expected.shape
    assert torch.equal(found.cpu(), expected)


def test_a_network_is_differentiated_trained_and_copied(device) -> None:
    torch.manual_seed(0)
    here, images, labels = SmallCNN(), torch.rand(6, 1, 8, 8), torch.arange(6)
    there = copy.deepcopy(here).to(device)
    for model, where in ((here, "cpu"), (there, device)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(images.to(where)), labels.to(where)).backward()
            optimizer.step()
    copied = copy.deepcopy(there)
    assert copied.eval().double()(images.to(device).double()).cpu().dtype == torch.float64
    copied.float()
    assert all(isinstance(value, nn.Parameter) for value in copied.parameters())
    for one, other in zip(here.state_dict().values(), copied.to("cpu").state_dict().values(), strict=True):
        assert torch.equal(one, other)
