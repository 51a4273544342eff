"""Image processors of transformers: how they resize and crop images, and their normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from freqrobust.core.errors import ModelError
from freqrobust.core.user_code import running_user_code
from freqrobust.data.input_config import InputConfig, Interpolation
from freqrobust.models.normalization import NormalizationChoice

if TYPE_CHECKING:
    from PIL.Image import Image

#: The filters of ``PIL.Image.Resampling``, by their number.
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
#: Largest difference of a normalised value from that of the processor.
_TOLERANCE = 1e-4
#: Side of the images on which a processor is tried out.
_SIDE = 96


def processor_input(processor: Any, spec: str) -> tuple[InputConfig, NormalizationChoice]:
    """What a processor does before the network: its resizing and cropping, and its normalisation of pixels in [0, 1].

    Images are resized and cropped by the processor itself, with rescaling and normalisation switched off. That the
    pixels with the normalisation are what it gives to the network is checked on an image.

    Raises:
        ModelError: it does something else, too.
    """
    name = type(processor).__name__
    plain = {"do_rescale": False, "do_normalize": False}
    if hasattr(processor, "include_top"):  # EfficientNet: a second normalisation
        plain["include_top"] = False

    def pixels(image: Image) -> torch.Tensor:
        values = torch.as_tensor(processor(images=image, **plain, return_tensors="pt")["pixel_values"])
        if values.dim() != 4 or len(values) != 1 or not torch.equal(values, values.round().clamp(0, 255)):
            raise ModelError(f"{spec}: {name} does not give the pixels of one image; give --resize and --crop")
        return values[0].to(torch.uint8)

    config = _described(processor, name, spec, pixels)
    with running_user_code(f"{spec}: {name} cannot be used", ModelError):
        known = _normalization(processor, name, spec, pixels)
    return config, known


def _described(processor: Any, name: str, spec: str, pixels: Any) -> InputConfig:
    """The values of a processor in the words of :class:`InputConfig`; the processor itself is what is applied."""
    size = _sizes(getattr(processor, "size", None)) if getattr(processor, "do_resize", False) else {}
    crop = _sizes(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", False) else {}
    share = getattr(processor, "crop_pct", None)
    resize: int | tuple[int, int] | None = None
    cropped = (crop["height"], crop["width"]) if {"height", "width"} <= crop.keys() else None
    detail = f"by {name}"
    if {"height", "width"} <= size.keys():
        resize = size["height"], size["width"]
    elif "shortest_edge" in size and "longest_edge" not in size:
        resize = size["shortest_edge"]
        if share is not None and cropped is None:  # ConvNeXt: the size of the crop is the one that is given
            side = resize
            resize, cropped = (int(side / share), (side, side)) if side < 384 else ((side, side), None)
    elif size:
        detail += f" with size {', '.join(f'{key}={value}' for key, value in size.items())}"
    number = getattr(processor, "resample", None)
    filter_ = _FILTERS[int(number)] if number is not None and 0 <= int(number) < len(_FILTERS) else "bilinear"
    return InputConfig(
        resize,
        cropped,
        cast("Interpolation", filter_),
        source=f"the image processor of {spec}",
        channels=3,
        detail=detail,
        pipeline=pixels,
    )


def _sizes(size: Any) -> dict[str, int]:
    """The sides that are given, by name, from a dictionary or an object of transformers."""
    if size is None:
        return {}
    given: Mapping[str, Any] = dict(size) if isinstance(size, Mapping) else vars(size)
    return {key: int(value) for key, value in given.items() if value is not None}


def _normalization(processor: Any, name: str, spec: str, pixels: Any) -> NormalizationChoice:
    """Mean and standard deviation for pixels in [0, 1], from its values and checked on an image.

    The processor computes ``(255 x f - mean) / std`` with the factor ``f`` for pixels ``x`` in [0, 1].
    """
    from PIL import Image

    scale = 255 * float(processor.rescale_factor) if getattr(processor, "do_rescale", False) else 255.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", False):
        mean, std = (_channels(getattr(processor, key)) for key in ("image_mean", "image_std"))
    mean, std = tuple(m / scale for m in mean), tuple(s / scale for s in std)
    ramp = torch.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE) % 256
    image = Image.fromarray(torch.stack([ramp, ramp.flip(0), ramp.T], dim=-1).to(torch.uint8).numpy())
    expected = torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"])[0].double()
    values = pixels(image).double() / 255
    if expected.shape == values.shape and len(mean) == len(values):
        if _close(values, expected, mean, std):
            return NormalizationChoice(mean, std, "checkpoint")
        mean, std = _fitted(values, expected)
        if min(std) > 0 and _close(values, expected, mean, std):
            return NormalizationChoice(mean, std, "checkpoint")
    raise ModelError(
        f"{spec}: {name} does more than resizing, cropping and a normalisation by mean and standard deviation"
    )


def _close(values: torch.Tensor, expected: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether this normalisation of pixels in [0, 1] gives the values of the processor."""
    given = torch.stack([(channel - m) / s for channel, m, s in zip(values, mean, std, strict=True)])
    return float((given - expected).abs().max()) <= _TOLERANCE * max(1.0, 1 / min(std))


def _fitted(values: torch.Tensor, expected: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel, of the line through the values at the darkest and the brightest pixel.

    EfficientNet normalises twice, and some processors rescale to [-1, 1].
    """
    mean, std = [], []
    for x, y in zip(values.flatten(1), expected.flatten(1), strict=True):
        low, high = x.argmin(), x.argmax()
        width = float((x[high] - x[low]) / (y[high] - y[low]))
        std.append(width)
        mean.append(float(x[low]) - width * float(y[low]))
    return tuple(mean), tuple(std)


def _channels(values: Any) -> tuple[float, ...]:
    numbers = values if isinstance(values, list | tuple) else [values] * 3
    return tuple(float(value) for value in numbers)
