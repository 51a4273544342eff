"""How images of any size become the input of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch

from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.image_size import parse_size, size_text
from freqrobust.results.records import PreprocessingRecord

if TYPE_CHECKING:
    from PIL.Image import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
_FILTERS = get_args(Interpolation)
#: The filters that torchvision has for tensors of floating-point numbers.
_TENSOR_FILTERS = ("nearest", "bilinear", "bicubic")
#: What to give where nothing says how images are to be resized.
ADVICE = "give the size, for example --resize 256 --crop 224 (in Python resize=256, crop=224)"


@dataclass(frozen=True)
class InputConfig:
    """How images of any size become the input of a model: resized first, then cropped at the centre.

    The pixels stay 8 bits; the normalisation is the first layer of the model.

    Attributes:
        resize: the length of the shorter side, or (height, width); None where images are not resized.
        crop: (height, width); None where images are not cropped.
        interpolation: the filter of the resizing.
        antialias: whether it is widened when images become smaller, as PIL does; always for PIL images.
        source: where these values come from, such as ``timm's configuration of resnet50.a1_in1k``.
        channels: 1 or 3, to which images in files are converted; None where they stay as they are.
        given: whether the user gave a size: it applies to arrays, too, and not only to images in files.
        detail: what the other values do not say.
        pipeline: the library's own function from a PIL image to uint8 ``(C, H, W)``, where there is one; it is what is
            applied then.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    source: str = "given"
    channels: int | None = None
    given: bool = False
    detail: str | None = None
    pipeline: Callable[[Image], Any] | None = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of all images; None where it depends on the image."""
        if self.crop is not None:
            return self.crop
        return self.resize if isinstance(self.resize, tuple) else None

    def __str__(self) -> str:
        steps = []
        if self.resize is not None:
            side = "the shorter side " if isinstance(self.resize, int) else ""
            steps.append(f"resized to {side}{size_text(self.resize)} ({self.interpolation})")
        if self.crop is not None:
            steps.append(f"cropped to {size_text(self.crop)} at the centre")
        if self.detail is not None:
            steps.append(self.detail)
        return ", ".join(steps) or "neither resized nor cropped"

    def same_pixels(self, other: InputConfig) -> bool:
        """Whether another configuration gives the same pixels, wherever both come from."""
        return replace(self, source="", given=False) == replace(other, source="", given=False)

    def record(self) -> PreprocessingRecord:
        """How a report names it."""
        return PreprocessingRecord(
            resize=list(self.resize) if isinstance(self.resize, tuple) else self.resize,
            crop=list(self.crop) if self.crop is not None else None,
            interpolation=self.interpolation,
            detail=self.detail,
            source=self.source,
        )

    def saved(self) -> dict[str, Any]:
        """Plain values for the metadata of a checkpoint, which :func:`from_saved` reads."""
        record = self.record().model_dump()
        return {**record, "channels": self.channels}

    def decoded(self, image: Image) -> torch.Tensor:
        """The pixels of a PIL image, uint8 ``(C, H, W)``.

        Raises:
            DataError: the crop is larger than the image.
        """
        from torchvision.transforms.functional import pil_to_tensor

        image = with_channels(image, self.channels)
        return torch.as_tensor(self.pipeline(image)) if self.pipeline is not None else pil_to_tensor(self._fit(image))

    def applied(self, images: torch.Tensor) -> torch.Tensor:
        """Images of one size, uint8 or float in [0, 1] ``(N, C, H, W)``, resized and cropped.

        Raises:
            DataError: the crop is larger than the images, or there is no such filter for these numbers.
        """
        from torchvision.transforms.functional import pil_to_tensor, to_pil_image

        if images.dtype == torch.uint8 and images.shape[1] in (1, 3):  # as if they were read from files
            return torch.stack([pil_to_tensor(self._fit(to_pil_image(image))) for image in images])
        if self.resize is not None and self.interpolation not in _TENSOR_FILTERS:
            raise DataError(f"{self.interpolation} resizes only uint8 images of 1 or 3 channels, not {images.dtype}")
        fitted: torch.Tensor = self._fit(images)
        return fitted.clamp(0, 1) if fitted.is_floating_point() else fitted

    def _fit(self, image: Any) -> Any:
        from torchvision.transforms import InterpolationMode, functional

        if self.resize is not None:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            image = functional.resize(image, size, InterpolationMode(self.interpolation), antialias=self.antialias)
        if self.crop is None:
            return image
        _, height, width = functional.get_dimensions(image)
        self._check_crop(height, width)
        return functional.center_crop(image, list(self.crop))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image of this size after it was resized and cropped; nothing is decoded.

        Raises:
            DataError: the crop is larger than the image.
        """
        if self.pipeline is not None:
            if self.size is not None:
                return self.size
            from PIL import Image

            _, *sides = self.decoded(Image.new("RGB", (width, height))).shape
            return sides[0], sides[1]
        if isinstance(self.resize, int):  # as torchvision rounds
            long = int(self.resize * max(height, width) / min(height, width))
            height, width = (self.resize, long) if height <= width else (long, self.resize)
        elif self.resize is not None:
            height, width = self.resize
        self._check_crop(height, width)
        return self.crop if self.crop is not None else (height, width)

    def _check_crop(self, height: int, width: int) -> None:
        """Refuse an image that was resized to this size where it is smaller than the crop.

        Raises:
            DataError: the crop is larger than the image.
        """
        if self.crop is not None and (height < self.crop[0] or width < self.crop[1]):
            resized = " after resizing" if self.resize is not None else ""
            raise DataError(
                f"crop {size_text(self.crop)} is larger than the image of {height}x{width} pixels{resized}; "
                f"give a larger --resize, or a smaller --crop"
            )


def requested(base: InputConfig | None, resize: str | None, crop: str | None) -> InputConfig | None:
    """What is applied to images: the configuration of a model, and in its place what the user gave.

    Args:
        base: that of the model.
        resize: ``256``, ``256x320``, ``none``, or None where it is not given.
        crop: likewise.

    Raises:
        SpecError: a size is not one.
    """
    if resize is None and crop is None:
        return base
    origin = base if base is not None else InputConfig(None, None)
    sizes: dict[str, Any] = {}
    for name, text in (("resize", resize), ("crop", crop)):
        if text is not None:
            try:
                sizes[name] = parse_size(text)
            except ValueError as error:
                raise SpecError(f"{name} {error}, but got {text!r}") from error
    if isinstance(sizes.get("crop"), int):
        sizes["crop"] = (sizes["crop"], sizes["crop"])
    source = " and ".join(f"--{name}" for name in sizes)
    if base is not None:
        source += f", otherwise {base.source}"
    return replace(origin, **sizes, source=source, given=True, detail=None, pipeline=None)


def from_saved(values: Any) -> InputConfig:
    """The configuration whose :meth:`InputConfig.saved` gave these values.

    Raises:
        ValueError: they are something else.
    """
    values = dict(values)
    channels = values.pop("channels", None)
    record = PreprocessingRecord.model_validate(values)
    resize, crop = record.resize, record.crop
    sides = [*(resize if isinstance(resize, list) else [1 if resize is None else resize]), *(crop or [1, 1])]
    two = [len(size) == 2 for size in (resize, crop) if isinstance(size, list)]
    if min(sides) < 1 or not all(two) or channels not in (None, 1, 3) or record.interpolation not in _FILTERS:
        raise ValueError("the preprocessing is damaged")
    return InputConfig(
        (resize[0], resize[1]) if isinstance(resize, list) else resize,
        (crop[0], crop[1]) if crop is not None else None,
        cast("Interpolation", record.interpolation),
        source=record.source,
        channels=channels,
        detail=record.detail,
    )


def with_channels(image: Any, channels: int | None) -> Any:
    """A PIL image as RGB or grayscale; other modes of 8 bits, such as palettes, become RGB in any case."""
    mode = getattr(image, "mode", None)
    if not isinstance(mode, str) or mode.startswith(("I", "F")):
        return image
    if channels in (1, 3):
        wanted = "L" if channels == 1 else "RGB"
    else:
        wanted = "L" if mode in ("L", "1", "LA", "La") else "RGB"
    return image if mode == wanted else image.convert(wanted)
