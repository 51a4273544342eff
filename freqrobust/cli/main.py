"""The command line: parse, call the API, choose the exit code.

Torch, pydantic and the engine are imported inside the commands, so that help texts come at once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from importlib import import_module
from typing import Annotated, Any

import typer

from freqrobust.cli.completion import completing, words_so_far
from freqrobust.cli.entries import ENTRIES
from freqrobust.cli.options import (
    EXIT_BAD_INPUT,
    EXIT_CLOSED_OUTPUT,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    LONGEST_ERROR,
    command,
    fail,
    given_analysis,
    given_defenses,
    owners_of,
    parts_of,
    plugin_fields,
    spell_out_flags,
)
from freqrobust.core.errors import DataError, FreqRobustError, ModelError, PeerError, SpecError, TrainingError
from freqrobust.core.launch import refuse_several
from freqrobust.core.text import DebugOutput, describe_error, print_traceback

#: Seconds that a process waits for the one that says what is wrong: torchrun ends all others when the first has ended. After
#: them, only this one has found something wrong, or the other one takes longer, and would be ended before it can say so.
PATIENCE = 30.0


def main(argv: list[str] | None = None) -> None:
    """Entry point of the ``freqrobust`` command."""
    if completing():
        sys.exit(complete())
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments = arguments or ["--help"]
    debug = "--debug" in arguments
    typed = list(arguments)
    try:
        with DebugOutput() if debug else nullcontext():
            app, arguments = build(arguments)
            code = app(arguments, standalone_mode=False, prog_name="freqrobust")
    except KeyboardInterrupt:
        fail(f"interrupted (exit code {EXIT_INTERRUPTED})")
        code = EXIT_INTERRUPTED
    except Exception as error:
        code = report_error(of_a_plugin(error, typed), debug)
    except BaseException as error:  # sys.exit(0) in code of a user must not look like success
        from freqrobust.core.user_code import is_closed_output

        if is_closed_output(error):
            code = EXIT_CLOSED_OUTPUT
        else:
            if debug:
                print_traceback(error)
            fail(f"code that freqrobust called ended it: {describe_error(error)}")
            code = EXIT_BAD_INPUT
    code = code if isinstance(code, int) else 0
    if argv is None and os.environ.get("WORLD_SIZE", "1") != "1":  # started by torchrun
        # a thread of torch.distributed that needs the interpreter while it shuts down would abort the process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def complete() -> int:
    """Print what the shell may put at the end of the command line; the exit code.

    An error has no place in a line that is being typed: where something is wrong, nothing is completed.
    """
    try:
        app, _ = build(words_so_far())
        app([], standalone_mode=False, prog_name="freqrobust")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except Exception:
        return 1
    return 0


def of_a_plugin(error: Exception, arguments: list[str]) -> Exception:
    """The error about an unknown option; another one where plugins have a parameter of that name that are not named.

    Args:
        error: any.
        arguments: as they were typed.
    """
    flag = getattr(error, "option_name", None)
    if (
        type(error).__name__ != "NoSuchOption"
        or not isinstance(flag, str)
        or arguments[:1] not in (["eval"], ["analyze"])
    ):
        return error
    owners = owners_of(flag, "defense" if arguments[0] == "eval" else "analysis")
    if not owners:
        return error
    if arguments[0] == "eval":
        named = f"--defense {owners[0]} {flag} VALUE, or --defense {owners[0]}:{flag[2:].replace('-', '_')}=VALUE"
        of = f"of the {'defense' if len(owners) == 1 else 'defenses'} {', '.join(owners)}"
    else:
        named, of = f"analyze {owners[0]} {flag} VALUE", f"of {', '.join(owners)}"
    in_file = "; one in the file of --config is not enough" if any(a.startswith("--config") for a in arguments) else ""
    which = "which" if len(owners) == 1 else "one of which"
    return SpecError(f"{flag} is a parameter {of}, {which} has to be named on the command line: {named}{in_file}")


def report_error(error: Exception, debug: bool = False) -> int:
    """Say what is wrong in one line, with ``debug`` after the traceback; the exit code.

    An error that no user can act on is always shown with its traceback.
    """
    format_message = getattr(error, "format_message", None)  # a usage error of the command line library
    known = format_message is not None or isinstance(error, FreqRobustError)
    if known and not debug and said_by_another(error):
        time.sleep(PATIENCE)
    if debug or not known:
        print_traceback(error)
    if not known:
        return EXIT_INTERNAL
    message = format_message() if format_message is not None else str(error)
    if format_message is not None:
        message = f"{message[:1].lower()}{message[1:]}" if message else "see freqrobust --help"
    fail(message, None if debug else LONGEST_ERROR)
    return error.exit_code if isinstance(error, FreqRobustError) else EXIT_BAD_INPUT


def said_by_another(error: Exception) -> bool:
    """Whether this is one of several processes of torchrun, and another one says the same or what is behind it.

    Wrong input and a loss that is not finite are the same in all of them, so that the first on each machine is enough. Other
    failures, such as a lack of memory, can be of one process only.
    """
    alone = isinstance(error, FreqRobustError) and not isinstance(
        error, SpecError | DataError | ModelError | TrainingError
    )
    return isinstance(error, PeerError) or (os.environ.get("LOCAL_RANK", "0") != "0" and not alone)


def build(arguments: list[str]) -> tuple[Any, list[str]]:
    """The application for these arguments.

    Only the command that is called gets its options, and ``eval`` and ``analyze`` also the parameters of the plugins
    that are named: so the list of the commands needs neither pydantic nor the engine.
    """
    app = typer.Typer(
        name="freqrobust",
        help="Measure how robust a PyTorch image classifier is, and find out why.",
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, entry in ENTRIES.items():
        function: Callable[..., Any] = lambda: None  # noqa: E731
        if arguments[:1] == [name] and entry.function is not None:
            module, function_name = entry.function
            function = getattr(import_module(f"freqrobust.cli.{module}"), function_name)
        elif arguments[:1] == [name]:
            function, arguments = made(arguments)
        if arguments[:1] == [name] and not entry.several:
            function = by_one_process(name, function)
        app.command(name, help=entry.help, rich_help_panel=entry.panel)(function)
    return app, arguments


def by_one_process(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a command that refuses to be one of several processes."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        refuse_several(name)
        return function(*args, **kwargs)

    return run


def made(arguments: list[str]) -> tuple[Callable[..., int], list[str]]:
    """The function of the command that is called, and its arguments."""
    from freqrobust.core.commands import COMMANDS

    name = arguments[0]
    kind, specs = "defense", given_defenses(arguments) if name == "eval" else []
    if name == "analyze":
        named = given_analysis(arguments[1:], COMMANDS[name].switches() | {"--help", "-h"})
        kind, specs = "analysis", [named] if named is not None else []
    fields = plugin_fields(kind, parts_of(specs) if kind == "defense" else specs)

    def run(*given: Any) -> int:
        from freqrobust.cli.startup import remembering_sources
        from freqrobust.core.files import keeping_nothing

        with keeping_nothing() if getattr(given[0], "dry_run", False) else nullcontext(), remembering_sources(given[0]):
            code: int = import_module(f"freqrobust.cli.{name}").execute(*given)
        return code

    return command(COMMANDS[name], run, fields, ENTRIES[name].interrupted), spell_out_flags(arguments, fields)


def _show_version(wanted: bool) -> None:
    if wanted:
        from freqrobust.core.version import __version__

        print(f"freqrobust {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_show_version, metavar=""
        ),
    ] = False,
) -> None:
    pass
