"""JPEG compression of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from freqrobust.plugins.base import InputDefense

if TYPE_CHECKING:
    import torch

#: Standard deviation of the noise in the gradient of rounding, in quantisation steps.
SOFTNESS = 0.1
#: Quantisation of the 8 x 8 frequencies at quality 50, rows downwards (ITU-T T.81, tables K.1 and K.2).
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
#: From R, G, B to Y, Cb, Cr (ITU-T T.871, sec. 7).
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class JPEG(InputDefense):
    """Compress and decompress every image.  (Das et al. 2017; Guo et al. 2018)

    Attacks differentiate a codec written in torch (BPDA, Athalye et al. 2018), in which the gradient of
    rounding is that of its mean under Gaussian noise: it is large near a rounding threshold and zero elsewhere.
    """

    differentiable: ClassVar[bool] = False

    quality: int = Field(75, ge=1, le=100, description="JPEG quality")

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

        from freqrobust.core.errors import PluginError

        if images.shape[1] not in (1, 3):
            raise PluginError(f"jpeg expected images with 1 or 3 channels, but got {images.shape[1]}")
        mode = ImageReadMode.GRAY if images.shape[1] == 1 else ImageReadMode.RGB
        pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        files = encode_jpeg(list(pixels), quality=self.quality)
        return torch.stack([decode_jpeg(file, mode=mode) for file in files]).to(images.device, torch.float32) / 255

    def surrogate(self, model: Any) -> Any:
        """The codec with soft rounding, on images ``(N, C, H, W)``."""
        import torch
        from torch.nn.functional import avg_pool2d, interpolate, pad

        images: torch.Tensor = model
        height, width = images.shape[-2:]
        unit = 8 if images.shape[1] == 1 else 16
        padded = pad(images * 255, (0, -width % unit, 0, -height % unit), mode="replicate")
        if images.shape[1] == 1:
            decoded = self._coded(padded, LUMINANCE)
        else:
            to_ycc = torch.tensor(TO_YCC, device=images.device, dtype=images.dtype)
            ycc = torch.einsum("ij,njhw->nihw", to_ycc, padded)
            luminance = self._coded(ycc[:, :1], LUMINANCE)
            coded = self._coded(avg_pool2d(ycc[:, 1:], 2) + 128, CHROMINANCE) - 128
            chrominance = interpolate(coded, scale_factor=2, mode="bilinear")
            ycc = torch.cat([luminance, chrominance], dim=1)
            decoded = torch.einsum("ij,njhw->nihw", torch.linalg.inv(to_ycc), ycc)
        return decoded[..., :height, :width] / 255

    def _coded(self, planes: torch.Tensor, table: tuple[tuple[int, ...], ...]) -> torch.Tensor:
        """Planes of levels 0 to 255, sides multiples of 8, after quantisation of the DCT of their 8 x 8 blocks."""
        import torch

        scale = 5000 / self.quality if self.quality < 50 else 200 - 2 * self.quality
        steps = torch.tensor(table, device=planes.device, dtype=planes.dtype)
        steps = ((steps * int(scale) + 50) / 100).floor().clamp(1, 255)
        k = torch.arange(8, device=planes.device, dtype=planes.dtype)
        dct = torch.cos((2 * k[None, :] + 1) * k[:, None] * (torch.pi / 16)) / 2
        dct[0] /= 2**0.5
        n, c, h, w = planes.shape
        blocks = planes.view(n, c, h // 8, 8, w // 8, 8).transpose(3, 4) - 128
        quantised = _soft_round(dct @ blocks @ dct.T / steps) * steps
        return (dct.T @ quantised @ dct + 128).transpose(3, 4).reshape(n, c, h, w)


def _soft_round(x: torch.Tensor) -> torch.Tensor:
    """Rounded, with the gradient of ``E[round(x + SOFTNESS * z)]`` for standard normal ``z``."""
    import torch

    distance = x.detach() - x.detach().round()
    slope = torch.zeros_like(distance)
    for threshold in (-1.5, -0.5, 0.5, 1.5):
        slope += torch.exp(-(((distance - threshold) / SOFTNESS) ** 2) / 2)
    slope /= SOFTNESS * (2 * torch.pi) ** 0.5
    return x.detach().round() + slope * (x - x.detach())
