"""JPEG compression of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from freqrobust.plugin import InputDefense

if TYPE_CHECKING:
    import torch


class JPEG(InputDefense):
    """Compress and decompress every image. Attacks go straight through (BPDA).  (Das et al. 2017; Guo et al. 2018)"""

    differentiable: ClassVar[bool] = False

    quality: int = Field(75, ge=1, le=100, description="JPEG quality")

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

        from freqrobust.errors import PluginError

        if images.shape[1] not in (1, 3):
            raise PluginError(f"jpeg takes images of 1 or 3 channels, but got {images.shape[1]}")
        mode = ImageReadMode.GRAY if images.shape[1] == 1 else ImageReadMode.RGB
        pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        files = encode_jpeg(list(pixels), quality=self.quality)
        return torch.stack([decode_jpeg(file, mode=mode) for file in files]).to(images.device, torch.float32) / 255
