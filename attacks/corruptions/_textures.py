"""Textures of frost: procedural, or cropped from photographs of the user."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.core.errors import DataError
from freqrobust.core.files import regular_file, user_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class Textures(Protocol):
    """A source of textures."""

    def pieces(self, height: int, width: int, draws: Draws) -> torch.Tensor:
        """One texture per sample, ``(N, 3, height, width)`` in [0, 1]."""


class Procedural:
    """Procedural frost, different for every sample.

    A random field with an amplitude spectrum of 1 / f gives the layer of ice, the ridges ``exp(-2 |g|)`` of a
    second such field its veins. The sum, standardised, is scaled to a tone of 90 to 215, a deviation of 15 to 45
    and a blue tint of up to 40 levels, each drawn per sample: the ranges that the six photographs of the published
    files span.
    """

    def pieces(self, height: int, width: int, draws: Draws) -> torch.Tensor:
        ice = _fractal(height, width, draws, "ice")
        veins = torch.exp(-2 * _fractal(height, width, draws, "veins").abs())
        layer = _standardised(ice + 2 * veins)
        tone = draws.uniform((3, 1, 1), "tone")
        mean, deviation, tint = 90 + 125 * tone[:, :1], 15 + 30 * tone[:, 1:2], 40 * tone[:, 2:]
        shades = tint * torch.tensor([-0.6, 0.0, 0.4], device=tone.device).view(3, 1, 1)
        return ((mean + shades + deviation * layer[:, None]) / 255).clamp_(0, 1)


def _fractal(height: int, width: int, draws: Draws, use: str) -> torch.Tensor:
    """A periodic Gaussian field with amplitudes 1 / f and variance one, ``(N, H, W)``."""
    rows = torch.fft.fftfreq(height, device=draws.ids.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=draws.ids.device)[None, :]
    distance = torch.sqrt(rows**2 + columns**2)
    amplitude = torch.where(distance > 0, 1 / distance.clamp_min(1e-6), 0.0)
    parts = draws.normal((2, *amplitude.shape), use) * amplitude
    return _standardised(torch.fft.irfft2(torch.complex(parts[:, 0], parts[:, 1]), s=(height, width)))


def _standardised(field: torch.Tensor) -> torch.Tensor:
    centred = field - field.mean(dim=(-2, -1), keepdim=True)
    return centred / centred.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-12)


class Folder:
    """Random crops of the pictures in a folder.

    Args:
        path: a folder of pictures, larger than the images.
        scale: the factor by which the pictures are resized first; 0.2 for the CIFAR-C files.
    """

    def __init__(self, path: str, scale: float) -> None:
        self.path, self.scale = user_path(path, "frost", DataError), scale

    @cached_property
    def pictures(self) -> list[torch.Tensor]:
        """Each ``(3, H, W)`` in [0, 1], by file name.

        Raises:
            DataError: there are none, or one cannot be read.
        """
        if not self.path.is_dir():
            raise DataError(f"frost={self.path} is not a folder; expected one with pictures ({', '.join(SUFFIXES)})")
        files = sorted(file for file in self.path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"frost={self.path} contains no pictures ({', '.join(SUFFIXES)})")
        return [self._read(file) for file in files]

    def _read(self, file: Path) -> torch.Tensor:
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        regular_file(file, str(file), DataError, "a picture")
        try:
            with Image.open(file) as picture:
                pixels: torch.Tensor = pil_to_tensor(picture.convert("RGB"))
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read as a picture: {error}") from error
        pixels = pixels.float() / 255
        if self.scale != 1:
            size = [max(1, round(n * self.scale)) for n in pixels.shape[1:]]
            shrunk: torch.Tensor = torch.nn.functional.interpolate(pixels[None], size=size, mode="bilinear")
            return shrunk[0]
        return pixels

    def check(self, height: int, width: int) -> None:
        """Refuse pictures that are smaller than the images.

        Raises:
            DataError: a picture is too small.
        """
        for picture in self.pictures:
            h, w = picture.shape[1:]
            if h < height or w < width:
                scaled = f" after scaling by {self.scale:g}" if self.scale != 1 else ""
                raise DataError(
                    f"frost={self.path}: a picture has {h} x {w} pixels{scaled}, but the images have {height} x {width}"
                )

    def pieces(self, height: int, width: int, draws: Draws) -> torch.Tensor:
        which = draws.integers(len(self.pictures), (), "texture").tolist()
        where = draws.uniform((2,), "piece").tolist()
        crops = []
        for number, (down, right) in zip(which, where, strict=True):
            picture = self.pictures[number]
            top, left = int(down * (picture.shape[1] - height + 1)), int(right * (picture.shape[2] - width + 1))
            crops.append(picture[:, top : top + height, left : left + width])
        return torch.stack(crops).to(draws.ids.device)


@lru_cache(maxsize=4)
def folder(path: str, scale: float) -> Folder:
    """The folder, read once for all severities."""
    return Folder(path, scale)
