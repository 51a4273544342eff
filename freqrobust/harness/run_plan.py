"""Of which pieces a run consists, and about how much work each of them is: known before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.schedule import Piece
from freqrobust.harness.cell import EOT
from freqrobust.harness.passes import passes
from freqrobust.plugins.base import Attack
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.selection import refusal
from freqrobust.plugins.specs import DefenseChain, PluginSpec

CLEAN = "clean"
#: Predictions that vote on a sample when the defense is stochastic.
VOTES = 11
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


def differentiated(
    chains: Sequence[DefenseChain], attacks: Sequence[PluginSpec[Attack]], n: int, depth: str | None
) -> dict[str, float]:
    """Images forward and backward that are expected, of each model that is neither random nor has a surrogate.

    Examples that are made on the undefended model for the defended ones are not among them: they are made for the samples
    that the defended models classify correctly, and how many these are is not known yet.

    Args:
        chains: the defenses.
        attacks: the attacks.
        n: the number of samples that attacks are made for.
        depth: of the checks; None without.
    """
    found = {}
    for chain in filter(can_be_compiled, chains):
        planned = [piece for piece in pieces([chain], attacks, n, depth=depth) if piece.most]
        found[chain.spec] = sum(piece.backwards * min(1.0, piece.work / piece.most) for piece in planned)
    return found


def differentiated_for_others(
    chains: Sequence[DefenseChain], attacks: Sequence[PluginSpec[Attack]], oblivious: bool
) -> bool:
    """Whether attacks differentiate the undefended model, so that their examples can be shown to the defended ones."""
    made = (passes(a.plugin, maximize=True).backwards for a in attacks if a.plugin.kind == "adversarial")
    return oblivious and any(chain.parts for chain in chains) and any(made)


def can_be_compiled(chain: DefenseChain) -> bool:
    """Whether a defended model may be compiled: it is not random, and has gradients of its own."""
    return not chain.stochastic and chain.gradients == "exact"


def pieces(
    chains: Sequence[DefenseChain],
    attacks: Sequence[PluginSpec[Attack]],
    n: int,
    *,
    oblivious: bool = False,
    depth: str | None = None,
    certificates: Sequence[PluginSpec[Certificate]] = (),
    expected: Callable[[DefenseChain, PluginSpec[Attack], PluginSpec[Attack] | None], float] | None = None,
) -> Iterator[Piece]:
    """The pieces of the run of one model, in about their order.

    Args:
        chains: the defenses.
        attacks: the attacks.
        n: the number of samples.
        oblivious: whether the examples of the undefended model are shown to the defended ones.
        depth: of the checks; None without.
        certificates: the certificates.
        expected: the share of its passes that an adversarial attack is expected to make on a defense, after the one
            before it in its sweep; by default a guess.
    """
    for chain in chains:
        draws, votes = (EOT, VOTES) if chain.stochastic else (1, 1)
        yield Piece(cell_label(chain, None), n * votes, (CLEAN,), n * votes)
        for group in sweeps(attacks, chain):
            for place, index in enumerate(group):
                one = attacks[index]
                shift = one.plugin.kind == "shift"
                each = passes(one.plugin, chain.stochastic)
                most = n * (votes + (each.work - 1) * (1 if shift else draws))
                guess = 1.0 if shift or chain.stochastic else _DECIDED * _FURTHER**place
                if expected is not None and not shift:
                    lower = attacks[group[place - 1]] if place else None
                    guess = expected(chain, one, lower)
                yield Piece(
                    cell_label(chain, one),
                    max(n * votes, most * guess),
                    (one.spec, one.name),
                    most,
                    backwards=n * each.backwards * draws,
                )
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
                each = passes(one.plugin, maximize=True)
                most = n * (each.work + len(defended))
                kinds = (f"oblivious {one.name}", one.name)
                yield Piece(transfer_label(one), most, kinds, most, len(defended), n * each.backwards)
    threatened = any(eps_of(one) > 0 for one in attacks)
    for chain in chains if depth is not None and threatened else []:
        work = min(n, _EXAMINED) * (_FULL if depth == "full" else _QUICK) * (EOT if chain.stochastic else 1)
        yield Piece(checks_label(chain), work, (f"checks {depth}",), work, cells=0, backwards=work / 3)
