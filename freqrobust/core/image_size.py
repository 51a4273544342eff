"""Image sizes as users write them: ``256``, ``256x320`` or ``none``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

#: What stands for "leave the images as they are".
NONE = "none"
#: Longest side in pixels.
LONGEST = 16_384
_SIZE = re.compile(r"([0-9]{1,6})(?:x([0-9]{1,6}))?")


def parse_size(value: str) -> int | tuple[int, int] | None:
    """The number of pixels, or (height, width); None for ``none``.

    Example:
        >>> parse_size("256"), parse_size("224x288"), parse_size("none")
        (256, (224, 288), None)

    Raises:
        ValueError: it is something else, or not from 1 to :data:`LONGEST`.
    """
    if value == NONE:
        return None
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError("should be a number of pixels, HEIGHTxWIDTH such as 224x288, or none")
    sides = [int(side) for side in found.groups() if side is not None]
    if not all(1 <= side <= LONGEST for side in sides):
        raise ValueError(f"should be from 1 to {LONGEST} pixels")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def size_text(size: int | tuple[int, int] | list[int] | None) -> str:
    """The text that :func:`parse_size` reads.

    Example:
        >>> size_text(256), size_text((224, 288)), size_text(None)
        ('256', '224x288', 'none')
    """
    if size is None:
        return NONE
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def _checked(value: Any) -> Any:
    """A size as text; numbers and pairs of numbers, as in TOML and Python, are taken too."""
    if value is None:
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    pair = isinstance(value, tuple | list) and len(value) == 2 and all(type(side) is int for side in value)
    if not (whole or pair or isinstance(value, str)):
        raise ValueError("should be a number of pixels, HEIGHTxWIDTH such as 224x288, or none")
    text = value if isinstance(value, str) else size_text(value)
    parse_size(text)
    return text


ImageSize = Annotated[str, BeforeValidator(_checked)]
