"""The options of the commands, made from the classes in :mod:`freqrobust.core.command_config`."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freqrobust.cli.completion import VALUES
from freqrobust.core.text import print_error

if TYPE_CHECKING:
    from freqrobust.core.options import Options

EXIT_INTERNAL, EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_CLOSED_OUTPUT = 1, 2, 130, 141
#: Longest error line without ``--debug``. Ours list what exists; longer ones are texts of others.
LONGEST_ERROR = 1200


def fail(message: str, longest: int | None = LONGEST_ERROR) -> None:
    """One line on standard error."""
    print_error(message, longest)


def escape(text: str) -> str:
    """Text whose square brackets are not markup of rich."""
    return text.replace("[", "\\[")


def command(
    cls: type[Options],
    execute: Callable[..., int],
    fields: dict[str, Any] | None = None,
    interrupted: str = "interrupted",
) -> Callable[..., int]:
    """The function behind a command, for typer: its parameters are the options of ``cls``.

    Args:
        cls: the options.
        execute: gets an object of ``cls`` and, where there are ``fields``, the values of these; returns the exit code.
        fields: the parameters of the plugins that are named on the command line, by :func:`plugin_fields`.
        interrupted: what is printed when the user interrupts it.
    """

    def run(context: typer.Context, **values: Any) -> int:
        from freqrobust.core.errors import SpecError
        from freqrobust.core.options import OptionError

        typed = {name for name in values if getattr(context.get_parameter_source(name), "name", None) != "DEFAULT"}
        plugin = {key: values.pop(f"option_{key}") for key in fields or {}}
        extra = (_unambiguous(fields, {key: value for key, value in plugin.items() if value}),) if fields else ()
        try:
            given = _given(cls, {name: values[name] for name in values if name in typed})
            if "config" in cls.model_fields:
                given = _over_file(cls, given)
            return execute(cls(**given), *extra)
        except OptionError as error:
            raise SpecError(error.spelled(cls.flag)) from error
        except KeyboardInterrupt:  # the command line library would end without a message
            fail(f"{interrupted} (exit code {EXIT_INTERRUPTED})")
            return EXIT_INTERRUPTED

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *_parameters(cls), *field_parameters(fields or {})]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _over_file(cls: type[Options], given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, over those of the file that ``--config`` names.

    Raises:
        SpecError: the file is wrong, or an argument is neither given nor in the file.
    """
    from freqrobust.core.config_file import over_file
    from freqrobust.core.errors import SpecError

    given = over_file(cls, given)
    for name, field in cls.model_fields.items():
        if field.is_required() and name not in given:
            raise SpecError(
                f"missing argument {cls.shown(name)['metavar']!r}, which can also be in a file for --config"
            )
    return given


def _given(cls: type[Options], values: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, from the values that were typed."""
    given: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        value, former = values.get(name), values.get(f"former_{name}", False)
        if field.default is True:
            if value or former:
                given[name] = False
        elif value not in (None, False, []):
            given[name] = cls.shown(name)["flag_value"] or value
    return given


def _parameters(cls: type[Options]) -> list[inspect.Parameter]:
    """A parameter for each option, in the order of the headings of the help."""
    from freqrobust.core.options import PANELS

    keyword = inspect.Parameter.KEYWORD_ONLY
    panels = [None, *PANELS]
    parameters = []
    for name, field in sorted(cls.model_fields.items(), key=lambda item: panels.index(cls.shown(item[0])["panel"])):
        shown, flag = cls.shown(name), cls.flag(name)
        looks: dict[str, Any] = {"rich_help_panel": shown["panel"], "metavar": shown["metavar"]}
        looks["help"] = escape(shown["off"] or field.description or "")
        looks["autocompletion"] = VALUES.get(name)
        if shown["argument"]:
            parameter: tuple[Any, Any] = (
                str,
                typer.Argument(help=looks["help"], metavar=looks["metavar"], autocompletion=looks["autocompletion"]),
            )
            in_file = "config" in cls.model_fields
            default: Any = inspect.Parameter.empty if field.is_required() and not in_file else None
        elif flag in cls.switches():
            parameter, default = (
                (bool, typer.Option(flag, *cls.short(name), **{**looks, "metavar": "", "autocompletion": None})),
                False,
            )
        elif shown["many"]:
            parameter, default = (list[str] | None, typer.Option(flag, **looks)), None
        else:
            has_default = isinstance(field.default, str | int)
            parameter = (str | None, typer.Option(flag, show_default=has_default, **looks))
            default = str(field.default) if has_default else None
        parameters.append(inspect.Parameter(name, keyword, default=default, annotation=Annotated[parameter]))
        if shown["formerly"]:
            former = typer.Option(f"--no-{shown['formerly']}", hidden=True)
            parameters.append(
                inspect.Parameter(f"former_{name}", keyword, default=False, annotation=Annotated[bool, former])
            )
    return parameters


# The parameters of plugins as options


def given_defenses(arguments: list[str]) -> list[str]:
    """The values of ``--defense X`` and ``--defense=X``."""
    values = [b for a, b in itertools.pairwise(arguments) if a == "--defense" and not b.startswith("--")]
    return values + [a.partition("=")[2] for a in arguments if a.startswith("--defense=")]


def given_analysis(arguments: list[str], switches: set[str]) -> str | None:
    """The analysis that is named: the first argument that is no option and no value of an option.

    Args:
        arguments: of the command.
        switches: the options without a value.
    """
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if not argument.startswith("-"):
            return argument
        position += 1 if "=" in argument or argument in switches else 2
    return None


def parts_of(chains: list[str]) -> list[str]:
    """The specs that the specs of defenses are composed of."""
    if not chains:
        return []
    from freqrobust.plugins.specs import UNDEFENDED_NAMES, split_chain

    return [part.strip() for chain in chains for part in split_chain(chain) if part.strip() not in UNDEFENDED_NAMES]


def plugin_fields(kind: str, specs: list[str]) -> dict[str, Any]:
    """``{field: (names of its plugins, class)}`` of all plugins; with several plugins it is ambiguous."""
    fields: dict[str, Any] = {}
    if not specs:
        return fields
    from freqrobust.harness.analysis import analyses
    from freqrobust.plugins.registry import defenses

    for spec in specs:
        name, cls, _, _ = (analyses if kind == "analysis" else defenses).find(spec)
        for key in cls.model_fields:
            owners = [*fields[key][0], name] if key in fields else [name]
            fields[key] = (owners, cls)
    return fields


def owners_of(flag: str, kind: str) -> list[str]:
    """The plugins of a kind that have a parameter of this name; those that cannot be loaded are left out."""
    from freqrobust.core.errors import FreqRobustError
    from freqrobust.harness.analysis import analyses
    from freqrobust.plugins.registry import defenses

    registry, found = analyses if kind == "analysis" else defenses, []
    for name in registry.names():
        try:
            if flag in map(_flag, registry.get(name).model_fields):
                found.append(name)
        except FreqRobustError:
            continue
    return found


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def spell_out_flags(arguments: list[str], fields: dict[str, Any]) -> list[str]:
    """``--rescale`` alone becomes ``--rescale true`` for fields that are true or false."""
    booleans = {_flag(key) for key, (_, cls) in fields.items() if cls.model_fields[key].annotation is bool}
    result: list[str] = []
    for i, argument in enumerate(arguments):
        result.append(argument)
        last = i + 1 == len(arguments)
        if argument in booleans and (last or arguments[i + 1].startswith("-")):
            result.append("true")
    return result


def _unambiguous(fields: dict[str, Any] | None, given: dict[str, list[str]]) -> dict[str, list[str]]:
    """The parameters that were given.

    Raises:
        SpecError: several of the plugins have one of them.
    """
    for key, values in given.items():
        owners = (fields or {})[key][0]
        if len(owners) > 1:
            from freqrobust.core.errors import SpecError

            raise SpecError(
                f"{_flag(key)}: several of the given defenses have it ({', '.join(owners)}); "
                f"write it into the spec, for example --defense {owners[0]}:{key}={values[0]}"
            )
    return given


def field_parameters(fields: dict[str, Any]) -> list[inspect.Parameter]:
    """One option per field of the plugins."""
    if not fields:
        return []
    from freqrobust.plugins.help import field_help

    return [
        inspect.Parameter(
            f"option_{key}",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None,
                typer.Option(
                    _flag(key),
                    help=escape(field_help(cls, key)),
                    rich_help_panel=f"Parameters of {owners[-1]}",
                    show_default=False,
                    metavar="VALUE",
                ),
            ],
        )
        for key, (owners, cls) in fields.items()
    ]
