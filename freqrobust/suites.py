"""Named lists of attack specs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from freqrobust.errors import SpecError
from freqrobust.registry import near_miss

#: Radii of the frequency filters, for a side of 32 pixels.
RADII = (4, 8, 12, 16)
#: The radius of the headline's LFC accuracy, for a side of 32 pixels.
HEADLINE_RADIUS = 12
_SIDE = 32


def scaled_radius(radius: float, shape: tuple[int, ...]) -> float:
    """A radius for 32-pixel images, scaled to the shorter side of ``shape (C, H, W)``."""
    return radius * min(shape[-2:]) / _SIDE


def _filters(shape: tuple[int, ...], radii: tuple[int, ...]) -> list[str]:
    return [f"{kind}:radius={scaled_radius(r, shape):g}" for kind in ("lfc", "hfc") for r in radii]


def standard(shape: tuple[int, ...]) -> list[str]:
    """LFC and HFC at four radii, FGSM, and PGD-20 at five budgets."""
    return [
        *_filters(shape, RADII),
        "fgsm:eps=8/255",
        "pgd:eps=[0.5/255,1/255,2/255,4/255,8/255],steps=20",
    ]


def quick(shape: tuple[int, ...]) -> list[str]:
    """LFC and HFC at the headline radius, and PGD-10 at two budgets: for a first look and for CI."""
    return [*_filters(shape, (HEADLINE_RADIUS,)), "pgd:eps=[2/255,8/255],steps=10"]


def frequency(shape: tuple[int, ...]) -> list[str]:
    """LFC and HFC only, at four radii."""
    return _filters(shape, RADII)


SUITES: dict[str, Callable[[tuple[int, ...]], list[str]]] = {
    "standard": standard,
    "quick": quick,
    "frequency": frequency,
}


def resolve(name: str, shape: tuple[int, ...]) -> list[str]:
    """The attack specs of a suite, or of a text file with one spec a line (``#`` starts a comment).

    Raises:
        SpecError: no such suite or file, or an empty one.
    """
    if name in SUITES:
        return SUITES[name](shape)
    path = Path(name).expanduser()
    if not path.is_file():
        raise SpecError(f"unknown suite {name!r}{near_miss(name, SUITES)} ({', '.join(SUITES)}, or a file of specs)")
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{name} cannot be read as a suite: {error}") from error
    specs = [line for line in lines if line]
    if not specs:
        raise SpecError(f"{name} holds no attack specs; expected one a line")
    return specs
