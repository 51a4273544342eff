"""What a run will measure, as targets that a gate can judge, before it is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from freqrobust.plugins.base import Attack
from freqrobust.results.cell_reference import Target, find, in_report, of_cell, of_worst, sweep_of, sweeps

if TYPE_CHECKING:
    from freqrobust.plugins.specs import DefenseChain, PluginSpec

__all__ = [
    "Target",
    "find",
    "in_report",
    "is_adversarial",
    "of_cell",
    "of_pair",
    "of_worst",
    "planned",
    "sweep_of",
    "sweeps",
]


def of_pair(chain: DefenseChain, attack: PluginSpec[Attack] | None) -> Target:
    """The target that an attack on a defense is; without an attack, the clean images."""
    clean = Target("cell", chain.name, chain.spec, "clean", "clean", chain.params)
    if attack is None:
        return clean
    assert isinstance(attack.plugin, Attack)
    threat = attack.plugin.threat()
    named = None if threat is None else (threat.norm, threat.eps)
    return replace(clean, attack=attack.name, attack_spec=attack.spec, attack_params=attack.params, threat=named)


def is_adversarial(attack: PluginSpec[Attack]) -> bool:
    """Whether an attack is one, and not a shift."""
    return isinstance(attack.plugin, Attack) and attack.plugin.kind == "adversarial"


def planned(chains: Iterable[DefenseChain], attacks: Sequence[PluginSpec[Attack]], oblivious: bool) -> list[Target]:
    """Everything that a run will measure, before it is measured. Sweeps are left out: no threshold is on them."""
    found: list[Target] = []
    for chain in chains:
        clean = of_pair(chain, None)
        cells = [of_pair(chain, one) for one in attacks]
        found += [clean, *cells]
        if oblivious and chain.parts:
            adversarial = [t for t, one in zip(cells, attacks, strict=True) if is_adversarial(one)]
            found += [replace(target, knowledge="oblivious") for target in adversarial]
        threats = dict.fromkeys(target.threat for target in cells if target.threat is not None)
        found += [replace(clean, what="worst", attack="", attack_spec="", threat=threat) for threat in threats]
    return found
