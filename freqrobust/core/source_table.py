"""Tables of sources: which forms a data spec or a model spec can have, and what loads each of them.

A built-in source is a module of a package: it defines ``SOURCES``, a tuple of :class:`Source`. Other packages declare
theirs in an entry-point group, where the name of the entry point is the name of the source. Everything that is said
about sources (lists, near misses, messages) is taken from the table.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any, Generic, TypeVar

from freqrobust.core.entry_points import declared
from freqrobust.core.errors import FreqRobustError, PluginError
from freqrobust.core.text import near_miss, one_line
from freqrobust.core.user_code import running_user_code

RequestT = TypeVar("RequestT")


@dataclass(frozen=True)
class Source(Generic[RequestT]):
    """One form of a spec, and the function that loads what it names.

    Attributes:
        form: how the spec is written: ``digits``, ``folder:DIR``, ``FILE.npz``. It begins with the name of the source
            unless ``matches`` is set.
        about: one line for ``freqrobust list``.
        load: from a request to what is loaded.
        matches: whether a spec has this form, where that is not decided by the name.
    """

    form: str
    about: str
    load: Callable[[RequestT], Any]
    matches: Callable[[str], bool] | None = None

    @property
    def name(self) -> str:
        """What a spec of this form is, or begins with."""
        return self.form.partition(":")[0]

    @property
    def start(self) -> str:
        """The name, with the colon where an argument follows."""
        return self.name + (":" if ":" in self.form else "")


class SourceTable(Generic[RequestT]):
    """The sources of one kind: those of a package, and those that are declared as entry points.

    Args:
        kind: what the sources load, for messages: ``data`` or ``model``.
        package: the package with a module for each built-in source.
        error_class: the class of the error about an unknown spec.
    """

    def __init__(self, kind: str, package: str, error_class: type[FreqRobustError]) -> None:
        self.kind, self.package, self.error_class = kind, package, error_class
        self.group = f"freqrobust.{kind}_sources"

    @cached_property
    def _builtin(self) -> list[Source[RequestT]]:
        path = importlib.import_module(self.package).__path__
        modules = [importlib.import_module(f"{self.package}.{info.name}") for info in pkgutil.iter_modules(path)]
        return [source for module in modules for source in module.SOURCES]

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        entries = declared(self.group, f"{self.kind} sources")
        for source in self._builtin:
            if source.name in entries and source.matches is None:
                raise PluginError(
                    f"{entries[source.name].value}: the {self.kind} source {source.name!r} is built in; "
                    f"uninstall the package that declares another one"
                )
        return entries

    def _declared(self, name: str) -> Source[RequestT]:
        """The source of an entry point.

        Raises:
            PluginError: it cannot be imported, or is not a source of that name.
        """
        entry = self._entries[name]
        with running_user_code(f"the {self.kind} source {name!r} ({entry.value}) cannot be loaded"):
            source = entry.load()
        if not isinstance(source, Source) or source.name != name or source.matches is not None:
            raise PluginError(
                f"{entry.value} is not a {self.kind} source: expected a freqrobust.core.source_table.Source whose form "
                f"is {name!r} or begins with '{name}:'"
            )
        return source

    def _all(self) -> list[Source[RequestT]]:
        """Every source: built in, declared, and those that match a pattern; a broken one with the reason as its line."""
        declared_sources = []
        for name in sorted(self._entries):
            try:
                declared_sources.append(self._declared(name))
            except PluginError as error:
                declared_sources.append(Source(name, one_line(error), lambda request: None))
        builtin = sorted(self._builtin, key=lambda source: (source.matches is not None, source.form))
        named = sum(source.matches is None for source in builtin)
        return builtin[:named] + declared_sources + builtin[named:]

    def names(self) -> list[str]:
        """What specs are, or begin with: ``digits``, ``folder:``."""
        return [source.start for source in self._all() if source.matches is None]

    def rows(self) -> list[tuple[str, str]]:
        """The form of every source with its line; of a declared source that cannot be loaded, the reason."""
        return [(source.form, source.about) for source in self._all()]

    def find(self, spec: str) -> Source[RequestT]:
        """The source that loads a spec: by its name, else by a form that matches.

        Raises:
            FreqRobustError: there is none, or the part after the colon is missing.
            PluginError: its entry point is broken.
        """
        name, colon, argument = spec.partition(":")
        named = [self._declared(name)] if name in self._entries else [s for s in self._builtin if s.name == name]
        for source in named:
            if source.matches is None and spec == source.start + argument:
                if source.start.endswith(":") and not argument:
                    break
                return source
        for source in self._builtin:
            if source.matches is not None and source.matches(spec):
                return source
        if named and not argument:
            raise self.error_class(f"{self.kind} {spec!r}: expected {named[0].form}")
        forms = ", ".join(form for form, _ in self.rows())
        raise self.error_class(f"unknown {self.kind} {spec!r}{near_miss(name + colon, self.names())} ({forms})")
