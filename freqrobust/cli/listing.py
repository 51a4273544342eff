"""``freqrobust list``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from freqrobust.cli import completion
from freqrobust.cli.plugin_page import print_plugin_page
from freqrobust.core.errors import SpecError
from freqrobust.core.text import near_miss, one_line
from freqrobust.experiments.experiment import experiments
from freqrobust.harness.analysis import analyses
from freqrobust.plugins.help import field_default, field_type
from freqrobust.plugins.plugin import Plugin
from freqrobust.plugins.registry import (
    Registry,
    attacks,
    augmentations,
    certificates,
    criteria,
    defenses,
    methods,
    optimizers,
    regularizers,
    schedules,
)
from freqrobust.plugins.suites import SUITES
from freqrobust.results.reporter import reports
from freqrobust.training.recipes import FOLDER, recipe_about, recipe_names

EVALUATION = (attacks, certificates, criteria, defenses, reports, analyses)
TRAINING = (methods, augmentations, regularizers, optimizers, schedules, experiments)
KINDS: dict[str, Registry[Any]] = {registry.plural: registry for registry in (*EVALUATION, *TRAINING)}
#: The lists that are not of plugins, and what messages call one of their entries.
SINGULAR = {
    "recipes": "recipe",
    "suites": "suite",
    "models": "model source",
    "archs": "architecture",
    "datasets": "dataset",
}
LISTS = [*KINDS, *SINGULAR]
#: The images for which the attacks of a suite are shown; their radii depend on the size.
SHAPE = (3, 32, 32)


def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="What to list: attacks, certificates, criteria, defenses, reports, analyses, methods, augmentations, "
            "regularizers, optimizers, schedules, experiments, recipes, suites, models, archs or datasets. "
            "Default: all of them.",
            metavar="[WHAT]",
            autocompletion=completion.lists,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(
            help="One entry of that list, such as 'list attacks pgd': what it does, its source, its parameters and an "
            "example.",
            metavar="[NAME]",
            autocompletion=completion.list_entries,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")] = False,
) -> int:
    """List the plugins of all kinds, the recipes, suites, models, architectures and datasets, or explain one of them."""
    if what is not None and name is not None:
        print_entry(what, name)
    else:
        print_lists(what)
    return 0


def print_entry(what: str, name: str) -> None:
    """Print everything about one entry of a list.

    Raises:
        SpecError: the name of the list or of the entry is unknown.
    """
    _check_list(what)
    console = _console()
    if what in KINDS:
        print_plugin_page(console, what, KINDS[what], name)
        return
    rows = list(_simple(what))
    words = {word: row for row in rows for word in _words(row[0])}
    row = words.get(name) or words.get(name.partition(":")[0])
    if row is None:
        known = [word for word in words if word.islower() or what == "archs"]
        raise SpecError(f"unknown {SINGULAR[what]} {name!r}{near_miss(name, known)} ({', '.join(known)})")
    console.print(Text.assemble((row[0], "bold"), f"  ({SINGULAR[what]})"))
    console.print()
    console.print(Padding(Text(row[1]), (0, 0, 1, 2)))
    for line in _details(what, row[0]):
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def _words(form: str) -> list[str]:
    """The names by which the form of a row is found: ``timm:NAME`` by ``timm``, ``FILE.npz`` by itself."""
    return list(dict.fromkeys([form, re.split(r"[:\[ ]", form)[0]]))


def _details(what: str, name: str) -> list[str]:
    """What there is to say about an entry besides its line: contents, and how it is used."""
    if what == "suites":
        specs = SUITES[name](SHAPE)
        shape = "x".join(map(str, SHAPE))
        if len(specs) > 20:
            specs = [*specs[:5], f"... and {len(specs) - 5} more"]
        shown = [f"attacks, for images of {shape}:", *(f"  {spec}" for spec in specs)]
        return [*shown, "", f"example        freqrobust eval --suite {name}{' --data cifar10' if ':' in name else ''}"]
    if what == "recipes":
        text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        use = [f"example        freqrobust train --recipe {name} --data cifar10", "documentation  docs/training.md"]
        return ["values:", *(f"  {line}" for line in lines), "", *use]
    name = name.partition("|")[0]  # of several forms the first
    forms = {
        "models": f"use            freqrobust eval --model {shlex.quote(name)} --data DATA",
        "datasets": f"use            freqrobust eval --model MODEL --data {shlex.quote(name)}",
        "archs": f"use            freqrobust eval --model WEIGHTS.pt --arch {shlex.quote(name)} --data DATA",
    }
    return [forms[what]]


def _check_list(what: str) -> None:
    if what not in LISTS:
        raise SpecError(f"unknown list {what!r}{near_miss(what, LISTS)} ({', '.join(LISTS)})")


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)


def print_lists(what: str | None) -> None:
    """Print one list, or all of them.

    Raises:
        SpecError: the name of the list is unknown.
    """
    if what is not None:
        _check_list(what)
    console = _console()
    for name in [what] if what is not None else LISTS:
        console.print(name, style="bold")
        if name in KINDS:
            for plugin in KINDS[name].names():
                _print_plugin(console, KINDS[name], plugin)
            for family in KINDS[name].families():
                _print_family(console, KINDS[name], family, what is not None)
        else:
            _print_pairs(console, _simple(name))
        console.print()


def _print_family(console: Any, registry: Registry[Any], name: str, complete: bool) -> None:
    """The members of a family, with their parameters or by name only, or why they cannot be loaded."""
    family = registry.family(name)
    try:
        members = family.members()
    except SpecError as error:
        console.print(Padding(Text.assemble((name, "bold"), f"  {one_line(error)}"), (0, 0, 0, 2)))
        return
    about = one_line(type(family).__doc__ or "")
    console.print(Padding(Text.assemble((name, "bold"), f"  {about} {name}:NAME[:parameters]"), (0, 0, 0, 2)))
    if complete:
        for member in members:
            _print_class(console, *registry.find(f"{name}:{member}"))
    else:
        console.print(Padding(Text(", ".join(members)), (0, 0, 0, 6)))


def _print_plugin(console: Any, registry: Registry[Any], name: str) -> None:
    _print_class(console, name, registry.get(name), "", registry.origin(name))


def _print_class(console: Any, name: str, cls: type[Plugin], _: str, origin: str) -> None:
    about = one_line((cls.__doc__ or "").strip().split("\n\n")[0])
    source = getattr(cls, "source", "")  # of an experiment
    about = f"{about}  ({source})" if source else about
    console.print(Padding(Text.assemble((name, "bold"), f"  {about}  ", (origin, "dim")), (0, 0, 0, 2)))
    if not cls.model_fields:
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "type", "default", "about"):
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for key in cls.model_fields:
        table.add_row(
            Text(key),
            Text(field_type(cls, key)),
            Text(field_default(cls, key)),
            Text(one_line(cls.model_fields[key].description or "")),
        )
    console.print(Padding(table, (0, 0, 0, 6)))


def _simple(name: str) -> Iterable[tuple[str, str]]:
    if name == "suites":
        return [(suite, (make.__doc__ or "").strip()) for suite, make in SUITES.items()]
    if name == "recipes":
        return [(recipe, recipe_about(recipe)) for recipe in recipe_names()]
    if name == "archs":
        from freqrobust.models.architectures import ARCHITECTURES, TORCHVISION

        ours = [(a.name, a.about) for a in ARCHITECTURES.values()]
        return [*ours, ("torchvision:NAME", f"recognised automatically: {', '.join(TORCHVISION)}")]
    if name == "models":
        from freqrobust.models.source_table import model_sources

        return model_sources.rows()
    from freqrobust.data.source_table import data_sources

    return data_sources.rows()


def _print_pairs(console: Any, pairs: Iterable[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("about", overflow="fold")
    for name, about in pairs:
        table.add_row(Text(name, style="bold"), Text(about))
    console.print(Padding(table, (0, 0, 0, 2)))
