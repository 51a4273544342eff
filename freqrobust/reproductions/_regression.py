"""Regression with fully connected networks: several repetitions of a small one at once, on all samples in every step.

The training loop of classifiers draws batches of images; functions of the line need neither batches nor images, but many
steps. The repetitions are one tensor operation each, and independent: a loss that sums over them has separate gradients,
and Adam treats every weight for itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


class Networks:
    """``R`` fully connected networks of one shape.

    Args:
        widths: of the input, of the hidden layers, and of the output.
        repetitions: ``R``.
        activation: of the hidden layers.
        seed: the initial weights of the repetition ``r`` depend on ``(seed, r)`` only.
        std: standard deviation of normal initial weights and biases; None for uniform ones in
            ``+-1/sqrt(inputs of the layer)``, torch's default.

    Attributes:
        parameters: weights ``(R, in, out)`` and biases ``(R, 1, out)`` of every layer.
    """

    def __init__(
        self, widths: Sequence[int], repetitions: int, activation: str, seed: int, std: float | None = None
    ) -> None:
        self.activation = ACTIVATIONS[activation]
        generators = [torch.Generator().manual_seed((seed * 1_000_003 + r) & (1 << 63) - 1) for r in range(repetitions)]

        def initial(fan_in: int, shape: tuple[int, int]) -> torch.Tensor:
            if std is not None:
                return torch.stack([std * torch.randn(shape, generator=g) for g in generators])
            bound = 1 / math.sqrt(fan_in)
            return torch.stack([(2 * torch.rand(shape, generator=g) - 1) * bound for g in generators])

        self.parameters: list[torch.Tensor] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            self.parameters += [initial(fan_in, (fan_in, fan_out)), initial(fan_in, (1, fan_out))]

    def __call__(self, x: torch.Tensor, parameters: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Outputs ``(R, n, out)`` for inputs ``(n, in)``, by default with the networks' own parameters."""
        given = parameters if parameters is not None else self.parameters
        hidden = x.expand(len(given[0]), *x.shape)
        for layer in range(0, len(given), 2):
            hidden = torch.baddbmm(given[layer + 1], hidden, given[layer])
            if layer + 2 < len(given):
                hidden = self.activation(hidden)
        return hidden

    def spectral_norms(self) -> torch.Tensor:
        """The largest singular value of the weights of every layer, ``(layers, R)``."""
        return torch.stack([torch.linalg.matrix_norm(weight.detach(), ord=2) for weight in self.parameters[::2]])

    def perturbed(self, distance: float, seed: int) -> list[torch.Tensor]:
        """Parameters at a Euclidean distance in a random direction, uniform on the sphere, another one for each network."""
        generator = torch.Generator().manual_seed(seed & (1 << 63) - 1)
        directions = [torch.randn(p.shape, generator=generator).to(p.device) for p in self.parameters]
        norms = torch.stack([d.flatten(1).square().sum(dim=1) for d in directions]).sum(dim=0).sqrt()[:, None, None]
        return [p.detach() + distance * d / norms for p, d in zip(self.parameters, directions, strict=True)]


def descend(
    networks: Networks,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    lr: float,
    record_at: Sequence[int],
    record: Callable[[torch.Tensor], Any],
    advance: Callable[[int], None] = lambda _: None,
) -> list[Any]:
    """Minimise the mean squared error by Adam on all samples, in place.

    Args:
        networks: what is trained.
        x: inputs, ``(n, in)``.
        y: targets, ``(R, n, out)``.
        lr: learning rate.
        record_at: numbers of steps, increasing; 0 is before the first one. The last one ends the training.
        record: gets the outputs ``(R, n, out)`` there, without gradients.
        advance: is called with the number of steps that were made since the last call.

    Returns:
        What was recorded.
    """
    for parameter in networks.parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(networks.parameters, lr=lr)
    found, position, made = [], 0, 0
    for step in range(record_at[-1] + 1):
        output = networks(x)
        if step == record_at[position]:
            with torch.no_grad():
                found.append(record(output.detach()))
            advance(step - made)
            position, made = position + 1, step
            if position == len(record_at):
                break
        loss = (output - y).square().mean(dim=(1, 2)).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    for parameter in networks.parameters:
        parameter.requires_grad_(False)
    return found


def moments(steps: int, count: int) -> list[int]:
    """At most ``count`` numbers of steps from 0 to ``steps``, evenly spaced."""
    return sorted({round(steps * i / (count - 1)) for i in range(count)})


def amplitudes(values: torch.Tensor, frequencies: Sequence[int]) -> torch.Tensor:
    """Amplitude of each frequency in values at evenly spaced points of one period.

    ``2/n |sum_j v_j exp(-2 pi i k j/n)|``, so that ``A sin(2 pi k x + phi)`` has amplitude ``A``.

    Args:
        values: ``(..., n)``.
        frequencies: ``0 < k < n/2``.

    Returns:
        ``(..., len(frequencies))``.
    """
    size: torch.Tensor = torch.fft.rfft(values).abs()
    return 2 / values.shape[-1] * size[..., list(frequencies)]


def relative_errors(values: torch.Tensor, target: torch.Tensor, frequencies: Sequence[int]) -> torch.Tensor:
    """``|F[v](k) - F[t](k)| / |F[t](k)|`` at evenly spaced points of one period.

    Args:
        values: ``(..., n)``.
        target: ``(n,)`` or ``(..., n)``.
        frequencies: ``0 < k < n/2``.

    Returns:
        ``(..., len(frequencies))``.
    """
    which = list(frequencies)
    wanted: torch.Tensor = torch.fft.rfft(target)[..., which]
    missing: torch.Tensor = torch.fft.rfft(values)[..., which] - wanted
    return missing.abs() / wanted.abs()
