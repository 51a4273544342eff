"""Finding plugins and reading specs.

A spec is ``NAME[:key=value,...]``, ``module:attr[:key=value,...]`` or ``file.py:attr[:key=value,...]``;
a list value (``eps=[1/255,2/255]``) is a sweep; defenses compose with ``+``, left first.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, version
from types import ModuleType
from typing import Any, Generic, TypeVar, get_args

from freqrobust.core.commands import reserved_names
from freqrobust.core.entry_points import declared
from freqrobust.core.errors import PluginError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import _attribute, import_module, load_file, running_user_code
from freqrobust.numerics.threat import Norm
from freqrobust.plugins.base import Attack, AttackFamily, Defense, InputDefense
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.criterion import Criterion
from freqrobust.plugins.plugin import Plugin, takes_list, value_text
from freqrobust.plugins.specs import UNDEFENDED_NAMES, PluginSpec, _list_text, _typed, list_items, parse_params
from freqrobust.plugins.training import Augmentation, Optimizer, Regularizer, Schedule, TrainingMethod

RESERVED_NAMES = {"attack": {"clean"}, "defense": set(UNDEFENDED_NAMES), "experiment": {"all"}}
_FILE = re.compile(r"^(?P<where>.+?\.py):(?P<attr>[A-Za-z_]\w*)(?::(?P<params>.*))?$", re.DOTALL)
_MODULE = re.compile(r"^(?P<where>[A-Za-z_][\w.]*):(?P<attr>[A-Za-z_]\w*)(?::(?P<params>.*))?$", re.DOTALL)


def _check_budget(found: type[Attack], where: str) -> None:
    """Refuse an adversarial attack whose ``eps`` would be no budget: nothing would check it.

    Raises:
        PluginError: it has a field ``eps``, and neither a norm nor a ``threat()`` of its own.
    """
    if found.kind != "adversarial" or "eps" not in found.model_fields or found.threat is not Attack.threat:
        return
    norms = ", ".join(get_args(Norm))
    norm = getattr(found, "norm", None)
    if norm is None and "norm" not in found.model_fields:
        raise PluginError(
            f"{where} has a field 'eps', but no norm that it is measured in: add a field 'norm', or the class attribute "
            f'norm: ClassVar[str] = "linf" (one of {norms}), or override threat()'
        )
    if isinstance(norm, str) and norm not in get_args(Norm):
        raise PluginError(f"{where}: norm should be one of {norms}, but is {norm!r}")


PluginT = TypeVar("PluginT", bound=Plugin)


class Registry(Generic[PluginT]):
    """The plugins of one kind, found by entry point on first use.

    Args:
        kind: what messages call one of them.
        group: the entry-point group.
        base: the class that each extends.
        method: what each has to implement.
    """

    def __init__(self, kind: str, group: str, base: type[PluginT], method: str) -> None:
        self.kind, self.group, self.base, self.method = kind, group, base, method
        self.plural = group.partition(".")[2]

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        return self._declared(self.group)

    @cached_property
    def _families(self) -> dict[str, EntryPoint]:
        families = self._declared(f"freqrobust.{self.kind}_families")
        for name in sorted(set(families) & set(self._entries)):
            raise PluginError(f"one of the {self.plural} and a family of {self.plural} are both named {name!r}")
        return families

    def _declared(self, group: str) -> dict[str, EntryPoint]:
        entries = declared(group, f"{self.kind} plugins")
        for name in RESERVED_NAMES.get(self.kind, set()) & entries.keys():
            raise PluginError(f"{entries[name].value}: the {self.kind} name {name!r} is reserved")
        return entries

    def names(self) -> list[str]:
        return sorted(self._entries)

    def families(self) -> list[str]:
        """Prefixes that stand for many plugins of a library: ``FAMILY:MEMBER``."""
        return sorted(self._families)

    def origin(self, name: str) -> str:
        """Where a registered plugin, or a family of them, comes from: ``package version``."""
        entry = self._entries[name] if name in self._entries else self._families[name]
        return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value

    def family(self, name: str) -> AttackFamily:
        """A registered family.

        Raises:
            PluginError: the entry point is broken or is not a family.
        """
        entry = self._families[name]
        with running_user_code(f"the family {name!r} ({entry.value}) cannot be loaded"):
            found = entry.load()
        if not (inspect.isclass(found) and issubclass(found, AttackFamily)):
            raise PluginError(
                f"{entry.value} is not a family: expected a subclass of freqrobust.plugins.base.AttackFamily"
            )
        with running_user_code(f"the family {name!r} ({entry.value}) failed"):
            return found()

    def _member(self, family: str, spec: str) -> tuple[str, type[PluginT], str, str]:
        """Resolve ``MEMBER[:params]`` of a family, as :meth:`find` does."""
        name, _, rest = spec.partition(":")
        name = name.strip()
        found = self.family(family)
        with running_user_code(f"the family {family!r} failed"):
            members = found.members()
        if name not in members:
            listed = f"({self.plural}: {', '.join(members)})"
            if not name:
                raise SpecError(
                    f"{family} is a family of {self.plural}: name one, for example {family}:{members[0]} {listed}"
                )
            same = next((m for m in members if m.lower() == name.lower()), None)
            hint = f"; did you mean {same!r}?" if same else near_miss(name, members)
            raise SpecError(f"{family} has no {self.kind} {name!r}{hint} {listed}")
        full = f"{family}:{name}"
        with running_user_code(f"{full} failed"):
            member = found.member(name)
        cls = self.check(member, full)
        libraries = [f"{library} {version(library)}" for library in getattr(cls, "libraries", ())]
        return full, cls, rest, ", ".join(libraries) or self.origin(family)

    def get(self, name: str) -> type[PluginT]:
        """The registered class.

        Raises:
            SpecError: the name is unknown; the message lists what exists.
            PluginError: the entry point is broken or is not a plugin of this kind.
        """
        if name not in self._entries:
            families = [f"{family}:NAME" for family in self.families()]
            raise SpecError(
                f"unknown {self.kind} {name!r}{near_miss(name, [*self.names(), *self.families()])} "
                f"({self.plural}: {', '.join([*self.names(), *families])}; or module:attr, or file.py:attr)"
            )
        entry = self._entries[name]
        with running_user_code(f"the {self.kind} {name!r} ({entry.value}) cannot be loaded"):
            found = entry.load()
        return self.check(found, entry.value)

    def check(self, found: Any, where: str) -> type[PluginT]:
        """``found`` itself, once it is known to be a usable plugin class of this kind."""
        if not (inspect.isclass(found) and issubclass(found, self.base)):
            raise PluginError(f"{where} is not a plugin: expected a subclass of freqrobust.{self.base.__name__}")
        reserved = found.reserved_fields | (reserved_names(found.command) if found.command else set())
        clash = sorted(reserved & set(found.model_fields))
        if clash:
            raise PluginError(
                f"{where}: the parameter {clash[0]!r} has the name of an option of freqrobust {found.command or 'eval'}; rename it"
            )
        method = "transform" if issubclass(found, InputDefense) else self.method
        if getattr(found, method) is getattr(InputDefense if method == "transform" else self.base, method):
            raise PluginError(f"{where} does not implement {method}()")
        if issubclass(found, Attack):
            _check_budget(found, where)
        if (
            issubclass(found, Defense)
            and not found.differentiable
            and not issubclass(found, InputDefense)
            and found.surrogate is Defense.surrogate
        ):
            raise PluginError(f"{where} says differentiable = False and so has to implement surrogate(model)")
        return found

    def find(self, spec: str) -> tuple[str, type[PluginT], str, str]:
        """Resolve the head of a spec to ``(name, class, parameter text, origin)``."""
        head, _, rest = (part.strip() for part in spec.partition(":"))
        if not head:
            raise SpecError(f"empty {self.kind} spec (for example {', '.join(self.names()[:3])})")
        if head in self._entries:
            return head, self.get(head), rest, self.origin(head)
        if head in self._families:
            return self._member(head, rest)
        in_file = _FILE.match(spec)
        if in_file:
            return self._found(load_file(in_file["where"]), in_file)
        in_module = _MODULE.match(spec)
        if in_module:
            return self._found(
                import_module(in_module["where"], f"{self.kind} {spec!r}", [*self.names(), *self.families()]), in_module
            )
        if head.endswith(".py"):
            raise SpecError(f"{spec!r}: name the class in the file as well, for example {head}:MyPlugin")
        self.get(head)
        raise AssertionError("unreachable")  # get() raised: the name is unknown

    def _found(self, module: ModuleType, match: re.Match[str]) -> tuple[str, type[PluginT], str, str]:
        where = f"{match['where']}:{match['attr']}"
        cls = self.check(_attribute(module, match["attr"], match["where"]), where)
        return cls.__name__, cls, match["params"] or "", match["where"]

    def parse(self, spec: str, options: Mapping[str, Sequence[str]] | None = None) -> list[PluginSpec[PluginT]]:
        """All plugin_specs a spec stands for: one, or several where it sweeps.

        Args:
            spec: the text.
            options: further parameters with their values, used where the plugin has them; several values or a list
                are a sweep.
        """
        name, cls, text, origin = self.find(spec.strip())
        keys: list[str] = []
        choices: list[list[str]] = []
        for key, value in parse_params(text, spec, cls.positional, cls.model_fields):
            if key in keys:
                raise SpecError(f"{spec!r}: parameter {key!r} is given twice")
            keys.append(key)
            items = list_items(value)
            choices.append(items if items is not None and not takes_list(cls, key) else [value])
        for key, values in (options or {}).items():
            if key not in cls.model_fields:
                continue
            if key in keys:
                raise SpecError(f"{spec!r}: parameter {key!r} is given twice, in the spec and as an option")
            keys.append(key)
            swept = [item for value in values for item in list_items(value) or [value]]
            choices.append([_list_text(cls, key, values)] if takes_list(cls, key) else swept)
        plugin_specs = []
        for values in itertools.product(*choices):
            given = dict(zip(keys, values, strict=True))
            typed = {k: _typed(v) if takes_list(cls, k) else v for k, v in given.items()}
            plugin = cls.build(name, typed)
            plugin_specs.append(PluginSpec(name, plugin, {key: value_text(plugin, key) for key in keys}, origin))
        return plugin_specs

    def name_of(self, plugin: Plugin) -> str:
        """The registered name of a plugin object, or its class name."""
        spec_name = getattr(type(plugin), "spec_name", None)  # of a member of a family
        if isinstance(spec_name, str) and spec_name.partition(":")[0] in self._families:
            return spec_name
        where = f"{type(plugin).__module__}:{type(plugin).__qualname__}"
        return next((n for n, entry in self._entries.items() if entry.value == where), type(plugin).__name__)

    def select(self, plugin: PluginT) -> PluginSpec[PluginT]:
        """The plugin_spec for a plugin object that was made in Python."""
        self.check(type(plugin), type(plugin).__qualname__)
        given = {
            key: value_text(plugin, key)
            for key, field in type(plugin).model_fields.items()
            if key in plugin.model_fields_set and (getattr(plugin, key) is not None or field.default is not None)
        }
        return PluginSpec(self.name_of(plugin), plugin, given)


attacks = Registry("attack", "freqrobust.attacks", Attack, "perturb")
defenses = Registry("defense", "freqrobust.defenses", Defense, "apply")
criteria = Registry("criterion", "freqrobust.criteria", Criterion, "is_adversarial")
certificates = Registry("certificate", "freqrobust.certificates", Certificate, "certify")
methods = Registry("training method", "freqrobust.methods", TrainingMethod, "losses")
augmentations = Registry("augmentation", "freqrobust.augmentations", Augmentation, "augment")
regularizers = Registry("regularizer", "freqrobust.regularizers", Regularizer, "penalty")
optimizers = Registry("optimizer", "freqrobust.optimizers", Optimizer, "make")
schedules = Registry("schedule", "freqrobust.schedules", Schedule, "factor")
