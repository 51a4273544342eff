"""Of which pieces a run consists, and about how much work each of them is: known before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.schedule import Piece
from freqrobust.harness.cell import EOT
from freqrobust.plugins.base import Attack
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.selection import refusal
from freqrobust.plugins.specs import DefenseChain, PluginSpec

CLEAN = "clean"
#: Predictions that vote on a sample when the defense is stochastic.
VOTES = 11
#: A guess of the passes of an attack that is an ensemble of others, on a robust sample, where it does not list its parts.
_ENSEMBLE = 7000.0
#: A guess of the share of its passes that an adversarial attack makes, as a sample leaves once it is misclassified, and
#: of the part of this at each further eps of a sweep. Measured times replace it.
_DECIDED, _FURTHER = 0.4, 0.4
#: Samples that are examined by the checks, a guess of their passes with the quick checks, and with all checks.
_EXAMINED, _QUICK, _FULL = 200, 30.0, 1500.0


def cell_label(chain: DefenseChain, plugin_spec: PluginSpec[Attack] | None) -> str:
    """What progress calls a cell."""
    return f"{chain.spec} / {plugin_spec.spec if plugin_spec is not None else CLEAN}"


def transfer_label(plugin_spec: PluginSpec[Attack]) -> str:
    """What progress calls the examples of an attack on the undefended model that are shown to the defended ones."""
    return f"{plugin_spec.spec}, made on the undefended model"


def certificate_label(chain: DefenseChain, plugin_spec: PluginSpec[Certificate]) -> str:
    """What progress calls a certificate of a defense."""
    return f"{chain.spec} / {plugin_spec.spec}"


def checks_label(chain: DefenseChain) -> str:
    """What progress calls the checks of a defense; the label of each check begins with it."""
    return f"checking {chain.spec}"


def eps_of(plugin_spec: PluginSpec[Attack]) -> float:
    """The eps of an attack, 0 without a budget."""
    attack = plugin_spec.plugin
    threat = attack.threat() if isinstance(attack, Attack) else None
    return threat.eps if threat is not None else 0.0


def sweeps(attacks: Sequence[PluginSpec[Attack]], chain: DefenseChain) -> list[list[int]]:
    """Positions of the attacks, those that differ only in eps together and upwards."""
    groups: dict[str, list[int]] = {}
    for index, plugin_spec in enumerate(attacks):
        attack = plugin_spec.plugin
        threat = attack.threat()
        key = f"{index}"
        swept = attack.nested and not chain.stochastic
        if swept and threat is not None and "eps" in type(attack).model_fields:
            given = {k: v for k, v in attack.model_dump().items() if k in plugin_spec.given and k != "eps"}
            key = f"{plugin_spec.name} {plugin_spec.code} {threat.norm} {sorted(given.items())}"
        groups.setdefault(key, []).append(index)
    return [sorted(group, key=lambda i: eps_of(attacks[i])) for group in groups.values()]


def passes(attack: Attack, maximize: bool = False) -> float:
    """Passes of an attack per sample of a model that is not random, in forward passes; a backward pass counts as two.

    They follow from the fields ``steps`` or ``queries``, ``restarts`` and ``targets`` where it has them, and from the
    attacks that an ensemble consists of. One step is assumed where there are none of these. There are no runs towards
    target classes with ``maximize``, when the highest loss is wanted of every sample.
    """
    parts = getattr(attack, "parts", None)
    if callable(parts):
        try:
            return sum(passes(part, maximize) for part in parts().values())
        except Exception:  # only an estimate
            return _ENSEMBLE
    if type(attack).__name__ == "AutoAttack":
        return _ENSEMBLE
    count = _count(attack, "steps") or _count(attack, "queries") or 1
    runs = (_count(attack, "restarts") or 1) + (0 if maximize else _count(attack, "targets") or 0)
    return float(runs * count * (3 if attack.needs_gradient and attack.kind == "adversarial" else 1)) + 1


def steps_of(plugin: object) -> int:
    """The field ``steps`` of a plugin, 0 where it has none."""
    return _count(plugin, "steps") or 0


def _count(attack: object, name: str) -> int | None:
    value = getattr(attack, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def pieces(
    chains: Sequence[DefenseChain],
    attacks: Sequence[PluginSpec[Attack]],
    n: int,
    *,
    oblivious: bool = False,
    depth: str | None = None,
    certificates: Sequence[PluginSpec[Certificate]] = (),
) -> Iterator[Piece]:
    """The pieces of the run of one model, in about their order.

    Args:
        chains: the defenses.
        attacks: the attacks.
        n: the number of samples.
        oblivious: whether the examples of the undefended model are shown to the defended ones.
        depth: of the checks; None without.
        certificates: the certificates.
    """
    for chain in chains:
        draws, votes = (EOT, VOTES) if chain.stochastic else (1, 1)
        yield Piece(cell_label(chain, None), n * votes, (CLEAN,), n * votes)
        for group in sweeps(attacks, chain):
            for place, index in enumerate(group):
                one = attacks[index]
                shift = one.plugin.kind == "shift"
                most = n * (votes + (passes(one.plugin, chain.stochastic) - 1) * (1 if shift else draws))
                guess = 1.0 if shift or chain.stochastic else _DECIDED * _FURTHER**place
                yield Piece(cell_label(chain, one), max(n * votes, most * guess), (one.spec, one.name), most)
        for certificate in certificates:
            try:
                applies, count = refusal(certificate, chain) is None, certificate.plugin.passes()
            except FreqRobustError:  # its cell says what is wrong
                continue
            if applies:
                work = float(n * max(1, count))
                yield Piece(certificate_label(chain, certificate), work, (certificate.spec, certificate.name), work)
    defended = [chain for chain in chains if chain.parts]
    if oblivious and defended:
        for one in attacks:
            if one.plugin.kind == "adversarial":
                most = n * (passes(one.plugin, maximize=True) + len(defended))
                yield Piece(transfer_label(one), most, (f"oblivious {one.name}", one.name), most)
    threatened = any(eps_of(one) > 0 for one in attacks)
    for chain in chains if depth is not None and threatened else []:
        work = min(n, _EXAMINED) * (_FULL if depth == "full" else _QUICK) * (EOT if chain.stochastic else 1)
        yield Piece(checks_label(chain), work, (f"checks {depth}",), work)
