"""How large whole numbers may be: counts that a run can finish, and numbers that fit into 64 bits."""

from __future__ import annotations

from freqrobust.errors import SpecError
from freqrobust.printable import excerpt

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


def check_batch_size(value: object) -> None:
    """Refuse anything but ``auto`` and 1 to a million.

    Raises:
        SpecError: it is something else.
    """
    if value == "auto":
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(f"batch_size should be 'auto' or at least 1, but got {value!r}")
    if value > MOST:
        raise SpecError(f"batch_size should be 'auto' or at most {MOST}")
