"""Shares in percent, as every output shows them."""

from __future__ import annotations


def percent(share: float) -> str:
    """A share in percent, without a negative zero.

    Example:
        >>> percent(0.452), percent(-0.0001)
        ('45.2', '0.0')
    """
    return _positive_zero(f"{100 * share:.1f}")


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign.

    Example:
        >>> points(-0.0004), points(-0.012)
        ('+0.0', '-1.2')
    """
    text = f"{100 * share:+.1f}"
    return "+0.0" if text == "-0.0" else text


def interval(ends: tuple[float, float], decimals: int) -> str:
    """``[41, 50]``, in percent or percentage points."""
    low, high = (_positive_zero(f"{100 * end:.{decimals}f}") for end in ends)
    return f"[{low}, {high}]"


def _positive_zero(text: str) -> str:
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text
