"""Fourier transform of a function of images along the first principal component, and the networks that are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from freqrobust.data.dataset import ImageData


def first_component(images: torch.Tensor) -> torch.Tensor:
    """The coordinate of each image on the first principal component, rescaled to [0, 1].

    Args:
        images: ``(n, ...)``.

    Returns:
        ``(n,)``; the sign, which a principal component leaves open, is such that the entry of largest size is positive.
    """
    centred = images.flatten(1).double()
    centred = centred - centred.mean(dim=0)
    direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    direction = direction * direction[direction.abs().argmax()].sign()
    coordinates: torch.Tensor = centred @ direction
    return (coordinates - coordinates.min()) / (coordinates.max() - coordinates.min())


def transform(x: torch.Tensor, values: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """The non-uniform discrete Fourier transform ``1/n sum_j v_j exp(-2 pi i x_j k)``.

    Args:
        x: coordinates, ``(n,)``.
        values: ``(n, c)``.
        frequencies: ``k``, in cycles per unit of ``x``, ``(f,)``.

    Returns:
        complex128 ``(f, c)``.
    """
    angles = -2 * math.pi * frequencies.double()[:, None] * x.double()[None, :]
    waves: torch.Tensor = torch.polar(torch.ones_like(angles), angles)
    return waves @ values.to(torch.complex128) / len(x)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """``|found - wanted| / |wanted|`` at every frequency, with the norm over the components, ``(f,)``."""
    missing = torch.linalg.vector_norm(found - wanted, dim=1)
    error: torch.Tensor = missing / torch.linalg.vector_norm(wanted, dim=1)
    return error


class Projection:
    """The labels of a data set, transformed along its first principal component.

    Args:
        data: the images on which networks are trained.
        frequencies: in cycles over the range of the coordinate.

    Attributes:
        shares: ``p_c``, the share of each class. It is subtracted from labels and predictions, or else the frequency zero
            would be in all others, as the coordinates are not on a uniform grid.
        amplitude: norm of the transform of the one-hot labels at each frequency, ``(f,)``.
        floor: root mean square of that norm for labels in random order, ``sqrt((1 - sum_c p_c^2) / n)``: the labels have a frequency where their energy is more than twice that, which random
            labels of ten classes have at fewer than 1 % of the frequencies.
    """

    def __init__(self, data: ImageData, frequencies: Sequence[float]) -> None:
        images, labels, _ = data.batch(torch.arange(len(data)), torch.device("cpu"))
        self.data = data
        self.x = first_component(images)
        self.frequencies = torch.tensor(frequencies, dtype=torch.float64)
        one_hot = nn.functional.one_hot(labels, data.classes).double()
        self.shares = one_hot.mean(dim=0)
        self.wanted = transform(self.x, one_hot - self.shares, self.frequencies)
        self.amplitude = torch.linalg.vector_norm(self.wanted, dim=1)
        self.floor = math.sqrt(float(1 - self.shares.square().sum()) / len(data))

    @property
    def present(self) -> list[int]:
        """Positions of the frequencies that the labels have."""
        return torch.nonzero(self.amplitude.square() > 2 * self.floor**2)[:, 0].tolist()

    def errors(self, model: nn.Module) -> dict[str, Any]:
        """Relative errors of the network's probabilities at these frequencies; what a training records."""
        device = next(model.parameters()).device
        with torch.no_grad():
            logits = [model(batch).double() for batch in self.data.image_batches(500, device)]
        probabilities = torch.cat(logits).softmax(dim=1).cpu()
        return {
            "errors": relative_error(
                transform(self.x, probabilities - self.shares, self.frequencies), self.wanted
            ).tolist()
        }


def fully_connected(data: ImageData, width: int) -> Callable[[], nn.Module]:
    """A builder of a network with two hidden layers of ReLUs."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(data.shape), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, data.classes),
        )

    return build
