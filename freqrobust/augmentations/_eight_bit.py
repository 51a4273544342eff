"""Transforms of torchvision on images of 8 bits, one image at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from freqrobust.core.errors import SpecError


def pil_images(images: torch.Tensor, name: str) -> list[Any]:
    """The images ``(N, C, H, W)``, rounded to 8 bits, as objects of Pillow.

    Raises:
        SpecError: the images have neither 1 nor 3 channels.
    """
    if images.shape[1] not in (1, 3):
        raise SpecError(f"{name} needs images of 1 or 3 channels, but these have {images.shape[1]}")
    pixels = (images.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return [Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array) for array in pixels.numpy()]


def pixels_of(image: Any) -> np.ndarray[Any, Any]:
    """The pixels of an image of Pillow, float32 ``(C, H, W)`` in [0, 1]."""
    array = np.asarray(image, dtype=np.float32) / np.float32(255)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def transformed(images: torch.Tensor, draws: torch.Tensor, transform: Callable[[Any], Any], name: str) -> torch.Tensor:
    """Each image after ``transform``, whose global generator is seeded for every image and restored afterwards.

    Args:
        images: float32 ``(N, C, H, W)`` in [0, 1].
        draws: uniform noise ``(N, 2)``, seeded by sample.
        transform: from an image of Pillow to one of the same size; draws from the global generator of torch.
        name: of the augmentation, for errors.
    """
    bits = (draws.detach().cpu().double() * 2**24).long()
    seeds = (bits[:, 0] * 2**24 + bits[:, 1]).tolist()
    changed = torch.empty_like(images, device="cpu")
    with torch.random.fork_rng(devices=[]):
        for position, (image, seed) in enumerate(zip(pil_images(images, name), seeds, strict=True)):
            torch.default_generator.manual_seed(seed)
            changed[position] = torch.from_numpy(pixels_of(transform(image)))
    return changed.to(images.device)
