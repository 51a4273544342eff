"""The measurements of the experiment ``spectral-bias``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from scipy import stats

from freqrobust.core.source_hash import code_hash
from freqrobust.reproductions._regression import Networks, amplitudes, descend, moments

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench

_CODE = ["freqrobust.reproductions._spectral_bias", "freqrobust.reproductions._regression"]
#: A frequency counts as learned from here on, as a share of its amplitude in the target.
LEARNED = 0.5


@dataclass(frozen=True)
class Sines:
    """Settings of the regression of a sum of sines."""

    frequencies: tuple[int, ...]
    points: int
    layers: int
    width: int
    lr: float
    steps: int
    repetitions: int
    records: int = 41
    distances: tuple[float, ...] = (0.5, 1, 2, 4)
    draws: int = 10


@dataclass(frozen=True)
class Noise:
    """Settings of the regression of a class of images plus a wave."""

    frequencies: tuple[float, ...]
    beta: float
    images: int
    layers: int
    width: int
    lr: float
    steps: int
    repetitions: int
    records: int = 41
    groups: int = 6


def sines(bench: Bench, kind: str, heights: Sequence[float], given: Sines) -> dict[str, Any]:
    """Fit ``sum_i A_i sin(2 pi k_i z + phi_i)`` with phases that differ between the repetitions.

    Args:
        bench: its seed, device and cache.
        kind: names the target in the progress.
        heights: ``A_i``.
        given: the settings.

    Returns:
        ``steps``; ``spectrum``, amplitudes relative to the target's, ``(steps, R, k)``; ``norms``, ``(steps, layers, R)``;
        ``outputs`` of the first repetition ``(steps, n)`` and its ``target`` ``(n,)``; ``perturbed``, the mean of the
        amplitudes relative to those before the perturbation, clipped at 1, ``(distances, R, k)``.
    """
    name = f"sum of sines, {kind} amplitudes"

    def make() -> dict[str, Any]:
        z = torch.arange(given.points) / given.points
        generator = torch.Generator().manual_seed(bench.seed & (1 << 63) - 1)
        phases = 2 * math.pi * torch.rand(given.repetitions, len(given.frequencies), 1, generator=generator)
        k = torch.tensor(given.frequencies)[:, None]
        waves = torch.tensor(heights)[:, None] * torch.sin(2 * math.pi * k * z + phases)
        target = waves.sum(dim=1).to(bench.device)
        widths = [1, *[given.width] * (given.layers - 1), 1]
        networks = Networks(widths, given.repetitions, "relu", bench.seed)
        networks.parameters = [p.to(bench.device) for p in networks.parameters]
        scale = torch.tensor(heights, device=bench.device)
        steps = moments(given.steps, given.records)
        x = z[:, None].to(bench.device)

        def record(output: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values = output[..., 0]
            return amplitudes(values, given.frequencies) / scale, networks.spectral_norms(), values[0].clone()

        bench.progress.begin(name, given.steps)
        found = descend(
            networks,
            x,
            target[..., None],
            lr=given.lr,
            record_at=steps,
            record=record,
            advance=bench.progress.advance,
        )
        spectrum, norms, outputs = (torch.stack(part) for part in zip(*found, strict=True))
        perturbed = _perturbed(networks, x, given, bench.seed)
        bench.progress.end(f"{name}: {given.repetitions} networks, {given.steps} steps")
        return {
            "steps": steps,
            "spectrum": spectrum.cpu(),
            "norms": norms.cpu(),
            "outputs": outputs.cpu(),
            "target": target[0].cpu(),
            "perturbed": perturbed.cpu(),
        }

    content = [name, list(heights), str(given), bench.seed, bench.device.type, torch.__version__, code_hash(_CODE)]
    return bench.kept(name, content, make)


def _perturbed(networks: Networks, x: torch.Tensor, given: Sines, seed: int) -> torch.Tensor:
    """Clipped relative amplitudes at each distance, mean over the directions, ``(distances, R, k)``."""
    before = amplitudes(networks(x)[..., 0], given.frequencies)
    rows = []
    for number, distance in enumerate(given.distances):
        changed = [
            amplitudes(networks(x, networks.perturbed(distance, seed * 1_000_003 + number * given.draws + i))[..., 0],
                       given.frequencies)
            for i in range(given.draws)
        ]  # fmt: skip
        rows.append((torch.stack(changed) / before).clamp(max=1).mean(dim=0))
    return torch.stack(rows)


def learned_at(steps: Sequence[int], spectrum: torch.Tensor) -> torch.Tensor:
    """The recorded step from which on each frequency has at least the share ``LEARNED`` of its amplitude for the first time.

    Args:
        steps: the recorded steps.
        spectrum: relative amplitudes, ``(steps, R, k)``.

    Returns:
        ``(R, k)``; twice the last step for one that is never learned.
    """
    reached = spectrum >= LEARNED
    first = torch.tensor(steps)[reached.int().argmax(dim=0)]
    return torch.where(reached.any(dim=0), first, torch.full_like(first, 2 * steps[-1]))


def rank_correlation(x: Sequence[float], y: torch.Tensor) -> float:
    """Spearman's rank correlation; 0 where all values are equal."""
    if len(set(y.tolist())) < 2:
        return 0.0
    return float(stats.spearmanr(x, y.numpy()).statistic)


def noisy_images(bench: Bench, given: Noise) -> dict[str, Any]:
    """Fit the classes 0 and 1 plus ``beta sin(2 pi k u)``, where ``u`` is the norm of the image, rescaled to [0, 1].

    Returns:
        ``steps``; ``validation``, mean squared error on the classes of other images, ``(steps, k, R)``; ``spectrum``,
        relative errors of the fit of the classes with the noise of the highest frequency, by group of eigenvectors of a
        Gaussian kernel from large eigenvalues (low frequencies) to small ones, ``(steps, R, groups)``.
    """
    name = "images with a wave as label noise"
    train, test = bench.train, bench.test

    def make() -> dict[str, Any]:
        x, classes = _two_classes(train, given.images)
        held_out, wanted = _two_classes(test, given.images)
        norms = x.norm(dim=1)
        radius = (norms - norms.min()) / (norms.max() - norms.min())
        waves = torch.stack([given.beta * torch.sin(2 * math.pi * k * radius) for k in given.frequencies])
        target = (classes + waves).repeat_interleave(given.repetitions, dim=0)  # k first, then repetitions
        total = len(given.frequencies) * given.repetitions
        widths = [x.shape[1], *[given.width] * (given.layers - 1), 1]
        networks = Networks(widths, given.repetitions, "relu", bench.seed)
        # all frequencies start from the same networks, so that they are compared in pairs
        networks.parameters = [p.repeat(len(given.frequencies), 1, 1).to(bench.device) for p in networks.parameters]
        x, held_out, wanted, target = (t.to(bench.device) for t in (x, held_out, wanted, target))
        steps = moments(given.steps, given.records)
        basis = kernel_basis(x)
        last = slice(total - given.repetitions, total)
        aim = _by_group(target[last] @ basis, given.groups)

        def record(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            errors = (networks(held_out)[..., 0] - wanted).square().mean(dim=1)
            missing = _by_group((output[last, :, 0] - target[last]) @ basis, given.groups)
            return errors.view(len(given.frequencies), given.repetitions), (missing / aim).sqrt()

        bench.progress.begin(name, given.steps)
        found = descend(
            networks, x, target[..., None], lr=given.lr, record_at=steps, record=record, advance=bench.progress.advance
        )
        validation, spectrum = (torch.stack(part).cpu() for part in zip(*found, strict=True))
        bench.progress.end(f"{name}: {total} networks, {given.steps} steps")
        return {"steps": steps, "validation": validation, "spectrum": spectrum}

    content = [name, str(given), train.sha256, test.sha256, bench.seed, bench.device.type, torch.__version__]
    return bench.kept(name, [*content, code_hash(_CODE)], make)


def _two_classes(data: Any, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(n, pixels)`` of the classes 0 and 1, at most so many, and their classes as numbers ``(n,)``."""
    which = torch.nonzero(data.labels < 2)[:most, 0]
    images, labels, _ = data.batch(which, torch.device("cpu"))
    return images.flatten(1), labels.float()


def kernel_basis(x: torch.Tensor) -> torch.Tensor:
    """Orthonormal eigenvectors of ``exp(-|x_i - x_j|^2 / (2 m))``, by decreasing eigenvalue, ``(n, n)`` in columns.

    ``m`` is the median of the squared distances. On data without a grid these are what sines are on one: the smaller the
    eigenvalue, the faster the function oscillates.
    """
    squared = torch.cdist(x.double(), x.double()).square()
    n = len(x)
    median = squared[~torch.eye(n, dtype=torch.bool, device=x.device)].median()
    vectors: torch.Tensor
    _, vectors = torch.linalg.eigh(torch.exp(-squared / (2 * median)))
    return vectors.flip(1).to(x.dtype)


def _by_group(coefficients: torch.Tensor, groups: int) -> torch.Tensor:
    """Energy in groups of consecutive eigenvectors, each of which ends at a power of ``n^(1/groups)``, ``(R, groups)``."""
    edges = [0, *(round(coefficients.shape[1] ** ((g + 1) / groups)) for g in range(groups))]
    energy = coefficients.square()
    return torch.stack([energy[:, a : max(b, a + 1)].sum(dim=1) for a, b in itertools.pairwise(edges)], 1)
