"""The shifts that analyses look at: those given, else the common corruptions, else the frequency filters."""

from __future__ import annotations

from collections.abc import Sequence

from freqrobust.core.errors import SpecError
from freqrobust.plugins.base import Attack
from freqrobust.plugins.selection import parse_attacks
from freqrobust.plugins.specs import Selection
from freqrobust.plugins.suites import SUITES


def shift_groups(
    specs: Sequence[str], shape: tuple[int, ...], severities: Sequence[int] = ()
) -> dict[str, list[Selection]]:
    """Shift attacks by name; those that differ only in severity together.

    Args:
        specs: attack specs, or names of suites; none stands for the suite ``corruptions``, or ``frequency`` where
            there is no such suite.
        shape: ``(C, H, W)`` of the images.
        severities: of attacks that have one, only these; none stands for all.

    Raises:
        SpecError: an attack is unknown or is no shift, or nothing is left.
    """
    wanted = list(specs) or ["corruptions" if "corruptions" in SUITES else "frequency"]
    listed = [one for spec in wanted for one in (SUITES[spec](shape) if spec in SUITES else [spec])]
    groups: dict[str, list[Selection]] = {}
    for selection in parse_attacks(listed):
        attack, params = selection.plugin, selection.params
        if not isinstance(attack, Attack) or attack.kind != "shift":
            raise SpecError(f"{selection.spec} is adversarial; expected a shift, such as a corruption or lfc:radius=8")
        severity = params.get("severity")
        if severity is None:
            groups.setdefault(selection.spec, []).append(selection)
        elif not severities or severity in severities:
            groups.setdefault(_name(selection), []).append(selection)
    if not groups:
        raise SpecError(f"no shift is left of {', '.join(wanted)} at severities {', '.join(map(str, severities))}")
    return groups


def _name(selection: Selection) -> str:
    """A shift without its severity: ``fog`` for ``corruption:name=fog,severity=3``."""
    given = {key: value for key, value in selection.given.items() if key != "severity"}
    name = given.pop("name", selection.name)
    rest = ",".join(f"{key}={value}" for key, value in given.items())
    return f"{name}:{rest}" if rest else name
