"""Suites: named lists of attack specs."""

from __future__ import annotations

from collections.abc import Callable

from freqrobust.core.errors import SpecError
from freqrobust.core.files import user_path
from freqrobust.core.text import near_miss
from freqrobust.plugins.corruption_names import ATTACK, COMMON, EXTRA, SEVERITIES

#: Radii of the frequency filters, for a side of 32 pixels.
RADII = (4, 8, 12, 16)
#: The radius of the LFC accuracy in the headline, for a side of 32 pixels.
HEADLINE_RADIUS = 12
_SIDE = 32


def scaled_radius(radius: float, shape: tuple[int, ...]) -> float:
    """A radius for 32-pixel images, scaled to the shorter side of ``shape (C, H, W)``."""
    return radius * min(shape[-2:]) / _SIDE


def _filters(shape: tuple[int, ...], radii: tuple[int, ...]) -> list[str]:
    return [f"{kind}:radius={scaled_radius(r, shape):g}" for kind in ("lfc", "hfc") for r in radii]


def standard(shape: tuple[int, ...]) -> list[str]:
    """LFC and HFC at four radii, FGSM, and Auto-PGD at five budgets."""
    return [
        *_filters(shape, RADII),
        "fgsm:eps=8/255",
        "apgd:eps=[0.5/255,1/255,2/255,4/255,8/255]",
    ]


def quick(shape: tuple[int, ...]) -> list[str]:
    """LFC and HFC at the headline radius, and PGD-10 at two budgets: for a first look and for CI."""
    return [*_filters(shape, (HEADLINE_RADIUS,)), "pgd:eps=[2/255,8/255],steps=10"]


def frequency(shape: tuple[int, ...]) -> list[str]:
    """LFC and HFC only, at four radii."""
    return _filters(shape, RADII)


def corruptions(shape: tuple[int, ...]) -> list[str]:
    """The 15 common corruptions at 5 severities; corruptions:files=DIR reads the published files."""
    return _corruptions(COMMON)


def corruptions_extra(shape: tuple[int, ...]) -> list[str]:
    """The 4 validation corruptions at 5 severities; takes parameters as corruptions does."""
    return _corruptions(EXTRA)


def _corruptions(names: tuple[str, ...]) -> list[str]:
    return [f"{ATTACK}:name={name},severity={severity}" for name in names for severity in SEVERITIES]


SUITES: dict[str, Callable[[tuple[int, ...]], list[str]]] = {
    "standard": standard,
    "quick": quick,
    "frequency": frequency,
    "corruptions": corruptions,
    "corruptions-extra": corruptions_extra,
}
#: Suites of one attack, which take its parameters: ``corruptions:files=DIR``.
_WITH_PARAMETERS = ("corruptions", "corruptions-extra")


def resolve(name: str, shape: tuple[int, ...]) -> list[str]:
    """The attack specs of a suite, or of a text file with one spec per line (``#`` starts a comment).

    A suite of one attack takes its parameters: ``corruptions:constants=imagenet`` adds them to every spec.

    Raises:
        SpecError: the suite is unknown, or the file is missing or empty.
    """
    if name in SUITES:
        return SUITES[name](shape)
    head, _, params = name.partition(":")
    if head in _WITH_PARAMETERS and params:
        return [f"{spec},{params}" for spec in SUITES[head](shape)]
    path = user_path(name, "--suite")
    if not path.is_file():
        raise SpecError(f"unknown suite {name!r}{near_miss(name, SUITES)} ({', '.join(SUITES)}, or a file of specs)")
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{name} cannot be read as a suite: {error}") from error
    specs = [line for line in lines if line]
    if not specs:
        raise SpecError(f"{name} contains no attack specs; expected one per line")
    return specs
