"""References to what a run will measure, so that a gate can be checked before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from freqrobust.results.cell_reference import CellReference

if TYPE_CHECKING:
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import DefenseChain, PluginSpec


def reference_to_pair(chain: DefenseChain, attack: PluginSpec[Attack] | None) -> CellReference:
    """The reference to the cell of an attack on a defense; without an attack, to the clean images."""
    clean = CellReference("cell", chain.name, chain.spec, "clean", "clean", chain.params)
    if attack is None:
        return clean
    threat = attack.plugin.threat()
    return replace(clean, attack=attack.name, attack_spec=attack.spec, attack_params=attack.params, threat=threat)


def is_adversarial(attack: PluginSpec[Attack]) -> bool:
    """Whether an attack searches for adversarial examples, rather than applying a shift."""
    return attack.plugin.kind == "adversarial"


def planned(
    chains: Iterable[DefenseChain], attacks: Sequence[PluginSpec[Attack]], oblivious: bool
) -> list[CellReference]:
    """References to everything that a run will measure, without sweeps: no threshold applies to them."""
    references: list[CellReference] = []
    for chain in chains:
        clean = reference_to_pair(chain, None)
        cells = [reference_to_pair(chain, attack) for attack in attacks]
        references += [clean, *cells]
        if oblivious and chain.parts:
            adversarial = [cell for cell, attack in zip(cells, attacks, strict=True) if is_adversarial(attack)]
            references += [replace(cell, knowledge="oblivious") for cell in adversarial]
        threats = dict.fromkeys(cell.threat for cell in cells if cell.threat is not None)
        references += [replace(clean, what="worst", attack="", attack_spec="", threat=threat) for threat in threats]
    return references
