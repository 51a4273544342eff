"""Plugin specs: ``NAME[:key=value,...]``, parsed and written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar, get_args

from freqrobust.core.errors import SpecError
from freqrobust.core.source_hash import source_hash
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import running_user_code
from freqrobust.plugins.base import Defense, InputDefense
from freqrobust.plugins.plugin import Plugin

#: The name of the empty chain; the older name is still accepted where a defense is given.
UNDEFENDED = "undefended"
UNDEFENDED_NAMES = (UNDEFENDED, "none")
_KEY = re.compile(r"^[A-Za-z_]\w*$")


PluginT_co = TypeVar("PluginT_co", bound=Plugin, covariant=True)


@dataclass(frozen=True)
class PluginSpec(Generic[PluginT_co]):
    """One plugin, chosen and configured: what a spec stands for."""

    name: str
    plugin: PluginT_co
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
        return source_hash(type(self.plugin), self.plugin.code_modules())


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

    parts: tuple[PluginSpec[Defense], ...] = ()

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts) or UNDEFENDED

    @property
    def spec(self) -> str:
        return "+".join(part.spec for part in self.parts) or UNDEFENDED

    @property
    def defenses(self) -> list[Defense]:
        return [part.plugin for part in self.parts]

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


def spec_options(text: str, spec: str, known: Sequence[str]) -> dict[str, str]:
    """The parameters ``"key=value,..."`` of a data spec or a model spec.

    Raises:
        SpecError: one is unknown, or is given twice.
    """
    options: dict[str, str] = {}
    for key, value in parse_params(text, spec):
        if key not in known:
            raise SpecError(
                f"{spec!r}: unknown parameter {key!r}{near_miss(key, known)} (parameters: {', '.join(known) or 'none'})"
            )
        if key in options:
            raise SpecError(f"{spec!r}: parameter {key!r} is given twice")
        options[key] = value
    return options


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
