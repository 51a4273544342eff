"""JPEG compression."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition


def jpeg_compression(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """JPEG at quality ``c``, by libjpeg on the CPU."""
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

    mode = ImageReadMode.GRAY if images.shape[1] == 1 else ImageReadMode.RGB
    pixels = (images.clamp(0, 1) * 255).round_().to(torch.uint8).cpu()
    files = encode_jpeg(list(pixels), quality=int(c[0]))
    return torch.stack(decode_jpeg(files, mode=mode)).to(images.device).float().div_(255)


CORRUPTION = Definition(
    jpeg_compression,
    meaning="quality",
    cifar=((80,), (65,), (58,), (50,), (40,)),
    imagenet=((25,), (18,), (15,), (10,), (7,)),
    channels=(1, 3),
    why="JPEG files are colour or grayscale",
)
