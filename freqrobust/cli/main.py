"""The command line: parse, call the API, choose the exit code.

Torch, pydantic and the engine are imported inside the commands, so that help texts come at once.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from freqrobust.cli import gate
from freqrobust.cli.options import (
    EVAL_HELP,
    EXIT_BAD_INPUT,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    LONGEST_ERROR,
    RUN,
    _flag,
    _parts,
    eval_,
    eval_command,
    fail,
    given_defenses,
    plugin_fields,
    spell_out_flags,
)
from freqrobust.core.errors import FreqRobustError
from freqrobust.core.text import DebugOutput, describe_error, print_traceback


def main(argv: list[str] | None = None) -> None:
    """Entry point of the ``freqrobust`` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments = arguments or ["--help"]
    debug = "--debug" in arguments
    try:
        with DebugOutput() if debug else nullcontext():
            app, arguments = build(arguments)
            code = app(arguments, standalone_mode=False, prog_name="freqrobust")
    except KeyboardInterrupt:
        fail("interrupted")
        code = EXIT_INTERRUPTED
    except Exception as error:
        code = report_error(error, debug)
    except BaseException as error:  # sys.exit(0) in code of a user must not look like success
        if debug:
            print_traceback(error)
        fail(f"code that freqrobust called ended it: {describe_error(error)}")
        code = EXIT_BAD_INPUT
    sys.exit(code if isinstance(code, int) else 0)


def report_error(error: Exception, debug: bool = False) -> int:
    """Say what is wrong in one line, with ``debug`` after the traceback; the exit code.

    An error that no user can act on is always shown with its traceback.
    """
    format_message = getattr(error, "format_message", None)  # a usage error of the command line library
    known = format_message is not None or isinstance(error, FreqRobustError)
    if debug or not known:
        print_traceback(error)
    if not known:
        return EXIT_INTERNAL
    message = format_message() if format_message is not None else str(error)
    if format_message is not None:
        message = f"{message[:1].lower()}{message[1:]}" if message else "see freqrobust --help"
    fail(message, None if debug else LONGEST_ERROR)
    return EXIT_BAD_INPUT


def build(arguments: list[str]) -> tuple[Any, list[str]]:
    """The application for these arguments: ``eval`` gets the fields of the given defenses as options."""
    app = typer.Typer(
        name="freqrobust",
        help="How robust is a PyTorch image classifier, and why.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    fields: dict[str, Any] = {}
    if arguments[:1] == ["eval"]:
        specs = given_defenses(arguments)
        if specs:
            fields = plugin_fields("defense", [part for spec in specs for part in _parts(spec)])
            arguments = spell_out_flags(arguments, fields)
    if arguments[:1] == ["analyze"]:
        from freqrobust.cli.analyze_options import given_analysis

        named = given_analysis(arguments)
        if named is not None:
            fields = plugin_fields("analysis", [named])
            arguments = spell_out_flags(arguments, fields)
    from freqrobust.cli.analyze_options import ANALYZE_HELP, analyze_command

    app.command("eval", help=EVAL_HELP)(eval_command(fields if arguments[:1] == ["eval"] else {}))
    app.command("analyze", help=ANALYZE_HELP)(analyze_command(fields if arguments[:1] == ["analyze"] else {}))
    app.command("verify", help=VERIFY_HELP)(verify_command())
    app.command("compare", help=gate.COMPARE_HELP)(gate.compare)
    app.command("check", help=gate.CHECK_HELP)(gate.check)
    app.command("init", help=gate.INIT_HELP)(gate.init)
    app.command("report", help=REPORT_HELP)(report_)
    app.command("list")(list_)
    return app, arguments


def _show_version(wanted: bool) -> None:
    if wanted:
        from freqrobust.core.version import __version__

        print(f"freqrobust {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version, metavar=""),
    ] = False,
) -> None:
    pass


def single(flag: str, given: list[str] | None, default: str | None) -> str | None:
    """The one value of an option that ``eval`` may be given several times."""
    if given and len(given) > 1:
        from freqrobust.core.errors import SpecError

        raise SpecError(f"{flag} is given {len(given)} times; here it takes one value")
    return given[0] if given else default


VERIFY_HELP = (
    "Evaluate saved adversarial examples again, on the same or on another model, also rounded to 8 bits.\n\n"
    "With --data, the clean images: budgets are checked as well."
)
#: Options of ``eval`` that ``verify`` has too.
VERIFIED_WITH = [
    "model",
    "arch",
    "normalize",
    "trust_checkpoint",
    "data",
    "data_dir",
    "split",
    "train_data",
    "batch_size",
    "device",
    "json",
    "quiet",
    "debug",
]


def verify_command() -> Any:
    """The function behind ``verify``: its own parameters, and some of those of ``eval``."""

    def command(
        *,
        directory: Annotated[
            str, typer.Argument(help="A folder written by --save-adversarial, or one of its files.", metavar="DIR")
        ],
        defense: Annotated[
            str,
            typer.Option(
                help="saved (the defense each set was made for), none, or a spec.", rich_help_panel=RUN, metavar="SPEC"
            ),
        ] = "saved",
        **values: Any,
    ) -> int:
        from freqrobust.cli.verify import execute

        del values["debug"]
        for name, default in (("model", None), ("arch", "auto"), ("normalize", "auto")):
            values[name] = single(_flag(name), values[name], default)
        return execute(directory=directory, defense=defense, json_file=values.pop("json"), **values)

    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(eval_, eval_str=True).parameters
    parameters = [own.parameters["directory"], own.parameters["defense"], *(shared[name] for name in VERIFIED_WITH)]
    command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


REPORT_HELP = (
    "Show results again, in any form, without measuring anything. Several are compared: a leaderboard.\n\n"
    "Forms: table (the default), html, markdown, junit, csv, latex, json, and those of other packages: "
    "see freqrobust list reports."
)


def report_(
    runs: Annotated[
        list[str], typer.Argument(help="Reports in JSON, or the folders of runs.", metavar="RUN...", show_default=False)
    ],
    wanted: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            help="Where it goes, after the form where the ending does not say it: out.html, markdown=-; "
            "- is standard output.",
            metavar="[REPORT=]FILE",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show tracebacks.")] = False,
) -> int:
    """Render reports; the exit code."""
    from freqrobust.cli.report import execute

    return execute(runs, wanted or [])


def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="attacks, defenses, reports, analyses, suites, models, archs or datasets; default: all.",
            metavar="[WHAT]",
        ),
    ] = None,
) -> int:
    """Show what there is: plugins with their parameters, ranges and defaults, suites, architectures, datasets."""
    from freqrobust.cli.listing import print_lists

    print_lists(what)
    return 0
