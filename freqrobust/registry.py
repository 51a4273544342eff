"""Finding plugins and reading specs.

A spec is ``NAME[:key=value,...]``, ``module:attr[:key=value,...]`` or ``file.py:attr[:key=value,...]``;
a list value (``eps=[1/255,2/255]``) is a sweep; defenses compose with ``+``, left first.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import inspect
import itertools
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from freqrobust.errors import PluginError, SpecError
from freqrobust.plugin import (
    Analysis,
    Attack,
    AttackFamily,
    Defense,
    InputDefense,
    Norm,
    Plugin,
    Reporter,
    takes_list,
    value_text,
)
from freqrobust.user_code import FILE_MODULE, import_module, load_file, running_user_code

RESERVED_NAMES = {"attack": {"clean"}, "defense": {"none"}}
#: What a plugin of each kind has to implement.
_METHODS: dict[type[Plugin], str] = {Attack: "perturb", Defense: "apply", Reporter: "render", Analysis: "run"}
_FILE = re.compile(r"^(?P<where>.+?\.py):(?P<attr>[A-Za-z_]\w*)(?::(?P<params>.*))?$", re.DOTALL)
_MODULE = re.compile(r"^(?P<where>[A-Za-z_][\w.]*):(?P<attr>[A-Za-z_]\w*)(?::(?P<params>.*))?$", re.DOTALL)
_KEY = re.compile(r"^[A-Za-z_]\w*$")


def near_miss(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when something known is close, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Selection:
    """One plugin, chosen and configured: what a spec stands for."""

    name: str
    plugin: Plugin
    given: Mapping[str, str] = field(default_factory=dict)
    origin: str = "object"

    @property
    def spec(self) -> str:
        """The spec in normal form: the name, and the parameters that were given with their values, in the given order."""
        params = ",".join(f"{key}={value}" for key, value in self.given.items())
        return f"{self.name}:{params}" if params else self.name

    @property
    def params(self) -> dict[str, Any]:
        """Every parameter, defaults resolved."""
        return {**self.plugin.model_dump(mode="json"), **resolved(self.plugin)}

    @cached_property
    def code(self) -> str:
        """Hash of the plugin's source, so that an edited file is never served from a journal."""
        return source_hash(type(self.plugin))


def resolved(plugin: Plugin) -> dict[str, Any]:
    """Parameters whose default depends on others, as the plugin resolves them."""
    extra = getattr(plugin, "resolved_params", None)
    if not callable(extra):
        return {}
    with running_user_code(f"{type(plugin).__name__}.resolved_params() failed"):
        return dict(extra())


@dataclass(frozen=True)
class DefenseChain:
    """Defenses applied one after the other, left first; the empty chain is the undefended model."""

    parts: tuple[Selection, ...] = ()

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts) or "none"

    @property
    def spec(self) -> str:
        return "+".join(part.spec for part in self.parts) or "none"

    @property
    def defenses(self) -> list[Defense]:
        return [part.plugin for part in self.parts if isinstance(part.plugin, Defense)]

    @property
    def params(self) -> dict[str, Any]:
        if len(self.parts) == 1:
            return self.parts[0].params
        names = [part.name for part in self.parts]
        labels = [n if names.count(n) == 1 else f"{n}{names[:i].count(n) + 1}" for i, n in enumerate(names)]
        return {
            f"{label}.{key}": value
            for label, part in zip(labels, self.parts, strict=True)
            for key, value in part.params.items()
        }

    @property
    def stochastic(self) -> bool:
        return any(defense.stochastic for defense in self.defenses)

    @property
    def gradients(self) -> Literal["exact", "straight-through", "surrogate"]:
        """How attacks differentiate the defended model."""
        hard = [defense for defense in self.defenses if not defense.differentiable]
        if not hard:
            return "exact"
        plain = all(isinstance(d, InputDefense) and type(d).surrogate is InputDefense.surrogate for d in hard)
        return "straight-through" if plain else "surrogate"

    @property
    def code(self) -> list[str]:
        return [part.code for part in self.parts]


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


class Registry:
    """The plugins of one kind, found by entry point on first use."""

    def __init__(self, kind: str, group: str, base: type[Plugin]) -> None:
        self.kind, self.group, self.base = kind, group, base
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
        entries: dict[str, EntryPoint] = {}
        for entry in entry_points(group=group):
            known = entries.get(entry.name)
            if known is not None and known.value != entry.value:
                raise PluginError(
                    f"two {self.kind} plugins are named {entry.name!r}: {known.value} and {entry.value}; "
                    f"uninstall one of the packages that bring them"
                )
            if entry.name in RESERVED_NAMES.get(self.kind, ()):
                raise PluginError(f"{entry.value}: the {self.kind} name {entry.name!r} is reserved")
            entries[entry.name] = entry
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
            raise PluginError(f"{entry.value} is not a family: expected a subclass of freqrobust.plugin.AttackFamily")
        with running_user_code(f"the family {name!r} ({entry.value}) failed"):
            return found()

    def _member(self, family: str, spec: str) -> tuple[str, type[Plugin], str, str]:
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

    def get(self, name: str) -> type[Plugin]:
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

    def check(self, found: Any, where: str) -> type[Plugin]:
        """``found`` itself, once it is known to be a usable plugin class of this kind."""
        if not (inspect.isclass(found) and issubclass(found, self.base)):
            raise PluginError(f"{where} is not a plugin: expected a subclass of freqrobust.{self.base.__name__}")
        clash = sorted(found.reserved_fields & set(found.model_fields))
        if clash:
            raise PluginError(
                f"{where}: the parameter {clash[0]!r} has the name of an option of freqrobust {found.command}; rename it"
            )
        method = "transform" if issubclass(found, InputDefense) else _METHODS[self.base]
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

    def find(self, spec: str) -> tuple[str, type[Plugin], str, str]:
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

    def _found(self, module: ModuleType, match: re.Match[str]) -> tuple[str, type[Plugin], str, str]:
        where = f"{match['where']}:{match['attr']}"
        cls = self.check(_attribute(module, match["attr"], match["where"]), where)
        return cls.__name__, cls, match["params"] or "", match["where"]

    def parse(self, spec: str, options: Mapping[str, Sequence[str]] | None = None) -> list[Selection]:
        """All selections a spec stands for: one, or several where it sweeps.

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
        selections = []
        for values in itertools.product(*choices):
            given = dict(zip(keys, values, strict=True))
            typed = {k: _typed(v) if takes_list(cls, k) else v for k, v in given.items()}
            plugin = cls.build(name, typed)
            selections.append(Selection(name, plugin, {key: value_text(plugin, key) for key in keys}, origin))
        return selections

    def name_of(self, plugin: Plugin) -> str:
        """The registered name of a plugin object, or its class name."""
        spec_name = getattr(type(plugin), "spec_name", None)  # of a member of a family
        if isinstance(spec_name, str) and spec_name.partition(":")[0] in self._families:
            return spec_name
        where = f"{type(plugin).__module__}:{type(plugin).__qualname__}"
        return next((n for n, entry in self._entries.items() if entry.value == where), type(plugin).__name__)

    def select(self, plugin: Plugin) -> Selection:
        """The selection for a plugin object that was made in Python."""
        self.check(type(plugin), type(plugin).__qualname__)
        given = {
            key: value_text(plugin, key)
            for key, field in type(plugin).model_fields.items()
            if key in plugin.model_fields_set and (getattr(plugin, key) is not None or field.default is not None)
        }
        return Selection(self.name_of(plugin), plugin, given)


attacks = Registry("attack", "freqrobust.attacks", Attack)
defenses = Registry("defense", "freqrobust.defenses", Defense)
reports = Registry("report", "freqrobust.reports", Reporter)
analyses = Registry("analysis", "freqrobust.analyses", Analysis)


def parse_attacks(specs: Iterable[str | Attack | Selection]) -> list[Selection]:
    """Selections of all attack specs, sweeps expanded, duplicates and ``clean`` left out."""
    found: dict[str, Selection] = {}
    for spec in specs:
        if isinstance(spec, str) and spec.strip() == "clean":
            continue
        if isinstance(spec, Selection):
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
    """Chains of all defense specs, sweeps expanded; ``none`` is the empty chain.

    ``options`` are parameters given apart from the specs, as on the command line.
    """
    chains: dict[str, DefenseChain] = {}
    for spec in specs:
        if isinstance(spec, str):
            parts_of = [[] if part.strip() == "none" else [defenses.parse(part, options)] for part in split_chain(spec)]
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


def _refuse_same_names(selections: Iterable[Selection]) -> None:
    """Two plugins of one name could not be told apart in a report."""
    codes: dict[str, Selection] = {}
    for one in selections:
        known = codes.setdefault(one.name, one)
        if (known.code, type(known.plugin).__qualname__) != (one.code, type(one.plugin).__qualname__):
            raise SpecError(
                f"two different plugins are named {one.name!r} ({known.origin} and {one.origin}); rename one"
            )


def split_chain(spec: str) -> list[str]:
    """``"a:x=1+b"`` to ``["a:x=1", "b"]``; a plus inside brackets or an exponent does not split."""
    return _split(spec, "+", lambda rest: bool(re.match(r"\s*[A-Za-z_./~]", rest)))


def parse_params(
    text: str, spec: str, positional: str | None = None, known: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """``"eps=8/255,steps=20"`` to pairs of text; the first may be a bare value, that of ``positional``.

    A bare value may hold ``=``, as long as it does not begin with the name of a ``known`` parameter.
    """
    pairs = []
    for number, item in enumerate(_split(text, ",") if text.strip() else []):
        if positional is not None and number == 0 and item.partition("=")[0].strip() not in known:
            pairs.append((positional, item.strip()))
            continue
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not _KEY.match(key) or not value:
            raise SpecError(f"{spec!r}: expected key=value, but got {item.strip()!r}")
        pairs.append((key, value))
    return pairs


def list_items(text: str) -> list[str] | None:
    """The items of ``"[a,b]"``, or None when the text is not a list."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    items = [item.strip() for item in _split(text[1:-1], ",")]
    if not all(items):
        raise SpecError(f"{text!r} is not a list: expected [value,value,...]")
    return items


def _list_text(cls: type[Plugin], key: str, values: Sequence[str]) -> str:
    """A list parameter given as options, each a value, or several with commas: as text of a spec."""
    if len(values) == 1 and list_items(values[0]) is not None:
        return values[0]
    if str in get_args(cls.model_fields[key].annotation):  # specs hold commas of their own
        return f"[{','.join(f'[{value}]' if ',' in value else value for value in values)}]"
    return f"[{','.join(values)}]"


def _typed(text: str) -> Any:
    """The value of a list parameter; an item in brackets of its own may hold commas."""
    items = list_items(text)
    return text if items is None else [i[1:-1] if i.startswith("[") and i.endswith("]") else i for i in items]


def _split(text: str, at: str, also: Any = lambda rest: True) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == at and depth == 0 and also(text[i + 1 :]):
            parts.append(text[start:i])
            start = i + 1
    if depth != 0:
        raise SpecError(f"{text!r}: the brackets do not match")
    return [*parts, text[start:]]


def _attribute(module: ModuleType, attr: str, where: str) -> Any:
    with running_user_code(f"{where} failed", SpecError):  # a module can have a __getattr__ of its own
        if hasattr(module, attr):
            return getattr(module, attr)
    names = [n for n, v in vars(module).items() if inspect.isclass(v) or inspect.isfunction(v)]
    raise SpecError(f"{where} has no {attr!r}{near_miss(attr, names)}")


def source_hash(cls: type) -> str:
    """Hash of the source of a class, its bases, and the modules of the same package that these import."""
    files: dict[str, Path | None] = {}
    for base in cls.__mro__:
        _collect(base.__module__, files)
    digest = hashlib.sha256(cls.__qualname__.encode())
    for name in sorted(files):
        file = files[name]
        digest.update(name.encode())  # of a single file the name holds the hash of what was executed
        if file is not None and not name.startswith(FILE_MODULE):
            digest.update(file.read_bytes())
    if all(file is None for file in files.values()):  # a notebook, or a session at the prompt
        digest.update(_code_of(cls))
    return digest.hexdigest()[:16]


def _code_of(cls: type) -> bytes:
    """What can be hashed of a class that has no file: its source, else its compiled methods."""
    try:
        return inspect.getsource(cls).encode()
    except (OSError, TypeError):
        codes = [v.__code__ for v in vars(cls).values() if inspect.isfunction(v)]
        return repr(
            [(c.co_name, c.co_code, [k for k in c.co_consts if not inspect.iscode(k)], c.co_names) for c in codes]
        ).encode()


_NOT_OURS = {"freqrobust", "torch", "torchvision", "numpy", "pydantic", "builtins", "abc", "typing"}
_PLUGINS = ("freqrobust.attacks", "freqrobust.defenses", "freqrobust.reports", "freqrobust.analyses")


def _collect(name: str, found: dict[str, Path | None], importer: tuple[str, Path] | None = None) -> None:
    """Add a module and, from there on, what it imports of its own package or, for a lone file, of its own folder."""
    if name in found or (name.split(".")[0] in _NOT_OURS and not name.startswith(_PLUGINS)):
        return
    file = _file_of(name)
    if importer is not None and (file is None or not _near(name, file, *importer)):
        return
    found[name] = file
    if file is None:
        return
    package = getattr(sys.modules.get(name), "__package__", None) or name.rpartition(".")[0]
    for imported in _imported(file, package):
        _collect(imported, found, (name, file))


def _file_of(name: str) -> Path | None:
    """The source file of a module, imported or not."""
    module = sys.modules.get(name)
    try:
        origin = getattr(module, "__file__", None) if module is not None else _origin(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(origin).resolve() if origin and origin.endswith(".py") and Path(origin).is_file() else None


def _origin(name: str) -> str | None:
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return None  # asking for it would import the parent
    spec = importlib.util.find_spec(name)
    return spec.origin if spec is not None else None


def _near(name: str, file: Path, importer: str, importer_file: Path) -> bool:
    top = name.split(".")[0]
    if top == importer.split(".")[0]:
        return True
    folder = importer_file.parent
    return folder in file.parents and folder.name not in ("site-packages", "dist-packages")


def _imported(file: Path, package: str) -> list[str]:
    """Full names of the modules that a source file names in its import statements, also inside of functions."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            start = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (start, node.module or "") if part)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names
