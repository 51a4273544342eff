"""The shifts that analyses look at: those given, else the common corruptions, else the frequency filters."""

from __future__ import annotations

from collections.abc import Sequence

from freqrobust.core.errors import SpecError
from freqrobust.plugins.base import Attack
from freqrobust.plugins.selection import parse_attacks
from freqrobust.plugins.specs import PluginSpec
from freqrobust.plugins.suites import SUITES


def shift_groups(
    specs: Sequence[str], shape: tuple[int, ...], severities: Sequence[int] = ()
) -> dict[str, list[PluginSpec[Attack]]]:
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
    groups: dict[str, list[PluginSpec[Attack]]] = {}
    for plugin_spec in parse_attacks(listed):
        attack, params = plugin_spec.plugin, plugin_spec.params
        if attack.kind != "shift":
            raise SpecError(
                f"{plugin_spec.spec} is adversarial; expected a shift, such as a corruption or lfc:radius=8"
            )
        severity = params.get("severity")
        if severity is None:
            groups.setdefault(plugin_spec.spec, []).append(plugin_spec)
        elif not severities or severity in severities:
            groups.setdefault(_name(plugin_spec), []).append(plugin_spec)
    if not groups:
        raise SpecError(f"no shift is left of {', '.join(wanted)} at severities {', '.join(map(str, severities))}")
    return groups


def _name(plugin_spec: PluginSpec[Attack]) -> str:
    """A shift without its severity: ``fog`` for ``corruption:name=fog,severity=3``."""
    given = {key: value for key, value in plugin_spec.given.items() if key != "severity"}
    name = given.pop("name", plugin_spec.name)
    rest = ",".join(f"{key}={value}" for key, value in given.items())
    return f"{name}:{rest}" if rest else name
