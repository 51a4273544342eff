"""The attacks and defenses of a run, from specs or objects."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from freqrobust.core.errors import SpecError
from freqrobust.core.source_hash import source_hash
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.plugins.base import Attack, Defense
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.criterion import Criterion, Misclassification
from freqrobust.plugins.plugin import Plugin
from freqrobust.plugins.registry import attacks, certificates, criteria, defenses
from freqrobust.plugins.specs import UNDEFENDED, UNDEFENDED_NAMES, DefenseChain, PluginSpec, split_chain


def parse_attacks(specs: Iterable[str | Attack | PluginSpec[Attack]]) -> list[PluginSpec[Attack]]:
    """Selections of all attack specs, sweeps expanded, duplicates and ``clean`` left out."""
    found: dict[str, PluginSpec[Attack]] = {}
    for spec in specs:
        if isinstance(spec, str) and spec.strip() == "clean":
            continue
        if isinstance(spec, PluginSpec):
            several = [spec]
        else:
            several = attacks.parse(spec) if isinstance(spec, str) else [attacks.select(spec)]
        for one in several:
            found.setdefault(f"{one.name} {sorted(one.params.items())} {one.code}", one)
    _refuse_same_names(found.values())
    return list(found.values())


def parse_defenses(
    specs: Iterable[str | Defense | DefenseChain | Sequence[Defense]],
    options: Mapping[str, Sequence[str]] | None = None,
) -> list[DefenseChain]:
    """Chains of all defense specs, sweeps expanded; ``undefended`` or ``none`` is the empty chain.

    ``options`` are parameters given apart from the specs, as on the command line.
    """
    chains: dict[str, DefenseChain] = {}
    for spec in specs:
        if isinstance(spec, str):
            parts_of = [
                [] if part.strip() in UNDEFENDED_NAMES else [defenses.parse(part, options)]
                for part in split_chain(spec)
            ]
            found = [DefenseChain(tuple(parts)) for parts in itertools.product(*itertools.chain(*parts_of))]
        elif isinstance(spec, DefenseChain):
            found = [spec]
        else:
            plugins = [spec] if isinstance(spec, Defense) else list(spec)
            found = [DefenseChain(tuple(defenses.select(plugin) for plugin in plugins))]
        for chain in found:
            chains.setdefault(f"{chain.name} {sorted(chain.params.items())} {chain.code}", chain)
    _refuse_same_names([part for chain in chains.values() for part in chain.parts])
    return list(chains.values())


def _refuse_same_names(plugin_specs: Iterable[PluginSpec[Any]]) -> None:
    """Two plugins of one name could not be told apart in a report."""
    codes: dict[str, PluginSpec[Any]] = {}
    for one in plugin_specs:
        known = codes.setdefault(one.name, one)
        classes = type(known.plugin), type(one.plugin)
        if classes[0] is not classes[1] and len({(source_hash(cls), cls.__qualname__) for cls in classes}) > 1:
            raise SpecError(
                f"two different plugins are named {one.name!r} ({known.origin} and {one.origin}); rename one"
            )


def source_spec(chosen: DefenseChain | PluginSpec[Any]) -> str:
    """A spec of a defense or of another plugin that can be read again: of a plugin from a file or a module with that."""
    plugin_specs = [chosen] if isinstance(chosen, PluginSpec) else chosen.parts
    return "+".join(map(_source_spec, plugin_specs)) or UNDEFENDED


def _source_spec(plugin_spec: PluginSpec[Any]) -> str:
    origin = plugin_spec.origin
    registered = origin == "object" or " " in origin or ":" in origin  # made in Python, or of a package and its version
    return f"{origin}:{plugin_spec.spec}" if origin.endswith(".py") or not registered else plugin_spec.spec


def listed(given: Any, what: str, base: type[Plugin]) -> list[Any]:
    """Specs or objects, given alone or several in an iterable, as a list.

    Args:
        given: what the caller gave; None stands for nothing.
        what: the parameter's name, for the message.
        base: of the objects.

    Raises:
        SpecError: it is something else.
    """
    if given is None:
        return []
    if isinstance(given, str | Plugin | PluginSpec | DefenseChain):
        given = [given]
    if not isinstance(given, Iterable) or isinstance(given, Mapping | bytes):
        raise SpecError(f"{what} should be a list of specs or {base.__name__} objects, but got {_shown(given)}")
    items = list(given)
    for item in items:
        parts = item if base is Defense and isinstance(item, list | tuple) else [item]
        if not all(isinstance(part, str | base | PluginSpec | DefenseChain) for part in parts):
            raise SpecError(
                f"each of the {what} should be a spec or an object of {base.__name__}, but got {_shown(item)}"
            )
    return items


def _shown(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}; make an object of it: {value.__name__}(...)"
    return f"{type(value).__name__} {' '.join(repr(value).split())[:60]}"


def parse_selections(attacks: Any) -> list[PluginSpec[Attack]]:
    """The attacks of specs or objects; at least ``clean`` has to be named.

    Raises:
        SpecError: a spec is wrong, or there is none.
    """
    items = listed(attacks, "attacks", Attack)
    if not items:
        raise SpecError("attacks is empty; leave it out for the suite 'standard', or give ['clean'] for no attack")
    return parse_attacks(items)


def parse_chains(
    defenses: Iterable[str | Defense | DefenseChain | Sequence[Defense]] | None,
    undefended: bool,
    has_train_data: bool,
) -> list[DefenseChain]:
    """The chains of defense specs or objects, the undefended model first.

    Raises:
        SpecError: a spec is wrong, nothing is left, or training data is missing.
    """
    chains = with_undefended(parse_defenses(listed(defenses, "defenses", Defense)), undefended)
    if not chains:
        raise SpecError("without the undefended model there has to be a defense")
    for chain in chains:
        for part in chain.parts:
            if part.plugin.needs_train_data and not has_train_data:
                raise SpecError(f"{part.spec} needs training data: give --train-data (in Python: train_data=...)")
    return chains


def parse_criterion(criterion: str | Criterion | PluginSpec[Criterion]) -> PluginSpec[Criterion]:
    """The criterion of a spec or an object.

    Raises:
        SpecError: the spec is wrong, or a sweep.
    """
    if isinstance(criterion, PluginSpec):
        return criterion
    if isinstance(criterion, Criterion):
        return criteria.select(criterion)
    if not isinstance(criterion, str):
        raise SpecError(f"criterion should be a spec or a Criterion object, but got {_shown(criterion)}")
    plugin_specs = criteria.parse(criterion)
    if len(plugin_specs) > 1:
        raise SpecError(f"expected one criterion, but {criterion!r} is a sweep of {len(plugin_specs)}")
    return plugin_specs[0]


def check_criterion(criterion: PluginSpec[Criterion], attacks: Iterable[PluginSpec[Attack]]) -> None:
    """Refuse attacks that would stop too early, or pursue another goal, under this criterion.

    Raises:
        SpecError: an adversarial attack supports misclassification only.
    """
    if isinstance(criterion.plugin, Misclassification):
        return
    for plugin_spec in attacks:
        if plugin_spec.plugin.kind == "adversarial" and not plugin_spec.plugin.any_criterion:
            raise SpecError(
                f"{plugin_spec.spec} supports only the criterion misclassification, not {criterion.spec}; "
                f"attacks such as pgd support every criterion"
            )


def parse_certificates(specs: Any) -> list[PluginSpec[Certificate]]:
    """The certificates of specs or objects, sweeps expanded, each once.

    Raises:
        SpecError: a spec is wrong.
    """
    found: dict[str, PluginSpec[Certificate]] = {}
    for spec in listed(specs, "certificates", Certificate):
        if isinstance(spec, PluginSpec):
            several = [spec]
        else:
            several = certificates.parse(spec) if isinstance(spec, str) else [certificates.select(spec)]
        for one in several:
            with running_user_code(f"{one.spec} failed"):
                one.plugin.threat()
            found.setdefault(f"{one.name} {sorted(one.params.items())} {one.code}", one)
    _refuse_same_names(found.values())
    return list(found.values())


def check_certificates(
    chosen: Iterable[PluginSpec[Certificate]], chains: Sequence[DefenseChain], criterion: PluginSpec[Criterion]
) -> None:
    """Refuse a certificate that says nothing about any of the models that are measured.

    Raises:
        SpecError: one of them certifies none of the defenses, or the criterion is not misclassification.
    """
    for plugin_spec in chosen:
        if not isinstance(criterion.plugin, Misclassification):
            raise SpecError(
                f"{plugin_spec.spec} certifies under the criterion misclassification only, not {criterion.spec}"
            )
        reasons = [refusal(plugin_spec, chain) for chain in chains]
        if None not in reasons:
            raise SpecError(f"{plugin_spec.spec} certifies none of the models: {reasons[-1]}")


def refusal(plugin_spec: PluginSpec[Certificate], chain: DefenseChain) -> str | None:
    """Why a certificate says nothing about a model with these defenses; None where it does.

    Raises:
        PluginError: the certificate failed.
    """
    try:
        with running_user_code(f"{plugin_spec.spec} failed"):
            plugin_spec.plugin.check_defenses(chain.defenses)
    except SpecError as error:
        return one_line(error)
    return None


def check_stochastic(chains: Iterable[DefenseChain], attacks: Iterable[PluginSpec[Attack]]) -> None:
    """Refuse attacks that need the same prediction at every call, where a defense is stochastic.

    Raises:
        SpecError: one of the attacks does, and one of the defenses is.
    """
    stochastic = next((chain for chain in chains if chain.stochastic), None)
    for plugin_spec in attacks if stochastic is not None else ():
        if isinstance(plugin_spec.plugin, Attack) and plugin_spec.plugin.deterministic_only:
            assert stochastic is not None
            raise SpecError(
                f"{plugin_spec.spec} needs a deterministic model, but {stochastic.spec} is stochastic; "
                f"use an attack with a budget, such as pgd:eps=8/255"
            )


def with_undefended(chains: Sequence[DefenseChain], undefended: bool) -> list[DefenseChain]:
    """What is measured: the undefended model first, where it is wanted, and the rest as given."""
    chains = list(chains)
    if undefended and all(chain.parts for chain in chains):
        chains.insert(0, DefenseChain())
    return sorted(chains, key=lambda chain: len(chain.parts) > 0)
