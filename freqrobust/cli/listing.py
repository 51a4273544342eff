"""``freqrobust list``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

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
from freqrobust.results.reporter import reports

EVALUATION = (attacks, certificates, criteria, defenses, reports, analyses)
TRAINING = (methods, augmentations, regularizers, optimizers, schedules, experiments)
KINDS: dict[str, Registry[Any]] = {registry.plural: registry for registry in (*EVALUATION, *TRAINING)}


def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="What to list: attacks, certificates, criteria, defenses, reports, analyses, methods, augmentations, "
            "regularizers, optimizers, schedules, experiments, recipes, suites, models, archs or datasets. "
            "Default: all of them.",
            metavar="[WHAT]",
        ),
    ] = None,
) -> int:
    """List the plugins of all kinds with their parameters, the recipes, suites, models, architectures and datasets."""
    print_lists(what)
    return 0


def print_lists(what: str | None) -> None:
    """Print one list, or all of them.

    Raises:
        SpecError: the name of the list is unknown.
    """
    names = [*KINDS, "recipes", "suites", "models", "archs", "datasets"]
    if what is not None and what not in names:
        raise SpecError(f"unknown list {what!r}{near_miss(what, names)} ({', '.join(names)})")
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for name in [what] if what is not None else names:
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
    from rich.padding import Padding
    from rich.text import Text

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
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

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
        from freqrobust.plugins.suites import SUITES

        return [(suite, (make.__doc__ or "").strip()) for suite, make in SUITES.items()]
    if name == "recipes":
        from freqrobust.training.recipes import recipe_about, recipe_names

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
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("about", overflow="fold")
    for name, about in pairs:
        table.add_row(Text(name, style="bold"), Text(about))
    console.print(Padding(table, (0, 0, 0, 2)))
