"""The modes of PIL images."""

from __future__ import annotations

from typing import Any

from freqrobust.core.errors import DataError


def as_eight_bit(image: Any, spec: str) -> Any:
    """A PIL image in grayscale or RGB with 8 bits; transparency is dropped, as torchvision does. Others as they are.

    Raises:
        DataError: the image has more than 8 bits, which a conversion would clip.
    """
    mode = getattr(image, "mode", None)
    if not isinstance(mode, str) or mode in ("L", "RGB"):
        return image
    if mode in ("1", "LA", "La"):
        return image.convert("L")
    check_eight_bit(image, spec)
    return image.convert("RGB")


def check_eight_bit(image: Any, spec: str) -> None:
    """Refuse a PIL image with more than 8 bits.

    Raises:
        DataError: it has more.
    """
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{spec}: expected images with 8 bits, but one has the mode {image.mode}; convert it to RGB or L first"
        )
