"""Numbers as users write them: fractions such as ``8/255``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from freqrobust.core.errors import SpecError
from freqrobust.core.text import excerpt

if TYPE_CHECKING:
    pass

#: Steps, restarts, queries, images per batch: more than anyone waits for.
MOST = 1_000_000
INT64 = 2**63 - 1


def check_int64(name: str, value: int, lowest: int = -INT64 - 1) -> None:
    """Refuse a whole number that does not fit into 64 bits, or is too small.

    Raises:
        SpecError: it does not.
    """
    if not lowest <= value <= INT64:
        bound = f"at least {lowest}" if value < lowest else f"at most {INT64}"
        shown = excerpt(value) if abs(value).bit_length() < 10_000 else "a number of thousands of digits"
        raise SpecError(f"{name} should be {bound}, but got {shown}")


def number_text(value: float) -> str:
    """The shortest text that is read back as the same number.

    Example:
        >>> number_text(12.0), number_text(0.1), number_text(20)
        ('12', '0.1', '20')
    """
    return repr(int(value)) if isinstance(value, int) else repr(float(value)).removesuffix(".0")


def pixel_text(value: float) -> str:
    """A pixel quantity in the shorter spelling: a decimal number, or a whole or half number of 255ths.

    The 255ths have to be the number to nine digits, as two ways to compute 8/255 may differ in the last bits.

    Example:
        >>> pixel_text(0.1), pixel_text(8 / 255), pixel_text(0.00392156862745), pixel_text(0.5 / 255)
        ('0.1', '8/255', '1/255', '0.5/255')
    """
    decimal = number_text(value)
    halves = round(value * 510)
    if abs(value * 510 - halves) <= 1e-9 * halves:
        return min(decimal, f"{number_text(halves / 2)}/255", key=len)
    return decimal


def fraction(value: Any) -> Any:
    """Read ``"8/255"`` as a number; leave everything else to the next validator."""
    if isinstance(value, str) and value.count("/") == 1:
        above, below = value.split("/")
        try:
            return float(above) / float(below)
        except ZeroDivisionError:
            raise ValueError(f"cannot divide by zero in {value!r}") from None
        except ValueError:
            return value
    return value


#: A number that may be written as a fraction, such as ``8/255``.
Number = Annotated[float, BeforeValidator(fraction)]
#: How often something is done or how many of something there are: 1 to a million.
Count = Annotated[int, Field(ge=1, le=MOST)]
#: A pixel quantity in [0, 1]; ``8/255`` is accepted.
Pixel = Annotated[float, BeforeValidator(fraction), Field(ge=0, le=1)]
