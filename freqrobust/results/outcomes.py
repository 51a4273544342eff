"""Per-sample outcomes as text."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pack(outcomes: NDArray[np.bool_]) -> str:
    """Booleans in sample order as base64 of ``numpy.packbits(bitorder="little")``."""
    return base64.b64encode(np.packbits(np.asarray(outcomes, dtype=bool), bitorder="little").tobytes()).decode()


def unpack(text: str, n: int) -> NDArray[np.bool_]:
    """The inverse of :func:`pack`.

    Raises:
        ValueError: the text does not hold ``n`` outcomes.
    """
    raw = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(raw) != (n + 7) // 8:
        raise ValueError(f"expected the outcomes of {n} samples, but got {len(raw)} bytes")
    bits = np.unpackbits(raw, bitorder="little").astype(bool)
    if bits[n:].any():
        raise ValueError(f"expected the outcomes of {n} samples, but more are set")
    return bits[:n]
