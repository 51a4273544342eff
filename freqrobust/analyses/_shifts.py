"""The shifts of an analysis: those given, by default the common corruptions."""

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
    """Shift attacks by name; grouped where they differ only in severity.

    Args:
        specs: attack specs, or names of suites; an empty sequence means the suite ``corruptions``.
        shape: ``(C, H, W)`` of the images.
        severities: of attacks that have one, only these; an empty sequence means all.

    Raises:
        SpecError: an attack is unknown or not a shift, or none has a given severity.
    """
    wanted = list(specs) or ["corruptions"]
    attack_specs = [attack for spec in wanted for attack in (SUITES[spec](shape) if spec in SUITES else [spec])]
    groups: dict[str, list[PluginSpec[Attack]]] = {}
    for plugin_spec in parse_attacks(attack_specs):
        attack, params = plugin_spec.plugin, plugin_spec.params
        if attack.kind != "shift":
            raise SpecError(
                f"expected a shift, such as a corruption or lfc:radius=8, but {plugin_spec.spec} is an adversarial attack"
            )
        severity = params.get("severity")
        if severity is None:
            groups.setdefault(plugin_spec.spec, []).append(plugin_spec)
        elif not severities or severity in severities:
            groups.setdefault(_name(plugin_spec), []).append(plugin_spec)
    if not groups:
        raise SpecError(f"none of {', '.join(wanted)} has a severity of {', '.join(map(str, severities))}")
    return groups


def _name(plugin_spec: PluginSpec[Attack]) -> str:
    """A shift without its severity: ``fog`` for ``corruption:name=fog,severity=3``."""
    params = {key: value for key, value in plugin_spec.given.items() if key != "severity"}
    name = params.pop("name", plugin_spec.name)
    rest = ",".join(f"{key}={value}" for key, value in params.items())
    return f"{name}:{rest}" if rest else name
