"""The command line: parse, call the API, choose the exit code.

Torch, pydantic and the engine are imported inside the commands, so that help texts come at once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from typing import Annotated, Any

import typer

from freqrobust.cli import gate
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
    parts_of,
    plugin_fields,
    spell_out_flags,
)
from freqrobust.core.errors import DataError, FreqRobustError, ModelError, PeerError, SpecError, TrainingError
from freqrobust.core.text import DebugOutput, describe_error, print_traceback

#: The help of each command whose options are made from a class in freqrobust.core.config.
HELP = {
    "eval": (
        "Measure the accuracy of a model, undefended and with defenses, under attacks and frequency filters.\n\n"
        "Without --model, a small CNN is trained on handwritten digits as a demonstration.\n\n"
        "With --defense NAME --help, the help also shows the parameters of that defense."
    ),
    "analyze": (
        "Run one analysis of one or more models: Fourier heat map, LFC/HFC misalignment, spectra and others "
        "(see 'freqrobust list analyses').\n\n"
        "Several models and defenses are shown side by side on one scale.\n\n"
        "With NAME --help, the help also shows the parameters of that analysis."
    ),
    "reproduce": (
        "Run a published experiment at a chosen scale, and say of each trend that its source states whether it is "
        "reproduced.\n\n"
        "--list shows the experiments; the name all runs all of them."
    ),
    "train": (
        "Train a network while measuring what it has learnt: accuracies under attacks and frequency filters, on training "
        "and on held-out images.\n\n"
        "The same command resumes an interrupted training, and shows the result of a finished one.\n\n"
        "With several processes: torchrun --nproc-per-node 2 -m freqrobust train ..."
    ),
    "verify": (
        "Evaluate saved adversarial examples again, on the same or on another model, also after rounding to 8 bits.\n\n"
        "With --data, the clean images, the perturbation budgets are checked as well."
    ),
    "check": gate.CHECK_HELP,
}
#: What is printed when the user interrupts it.
INTERRUPTED = {
    "eval": "interrupted before the first cell; run the same command again",
    "analyze": "interrupted; nothing was written",
    "reproduce": "interrupted; finished trainings are kept, run the same command again",
    "train": "interrupted before the first epoch; run the same command again",
    "verify": "interrupted; nothing was written",
    "check": "interrupted; run the same command again",
}
#: Seconds that a process waits for the one that says what is wrong: torchrun ends all others when the first has ended.
PATIENCE = 30.0
REPORT_HELP = (
    "Show the results of earlier runs in any format, without measuring anything. Several runs are compared.\n\n"
    "Formats: table (the default), html, markdown, junit, csv, latex, json, and those of other packages "
    "(see 'freqrobust list reports')."
)


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


def report_error(error: Exception, debug: bool = False) -> int:
    """Say what is wrong in one line, with ``debug`` after the traceback; the exit code.

    An error that no user can act on is always shown with its traceback.
    """
    format_message = getattr(error, "format_message", None)  # a usage error of the command line library
    known = format_message is not None or isinstance(error, FreqRobustError)
    if known and not debug and said_by_another(error):
        time.sleep(PATIENCE)
        return error.exit_code if isinstance(error, FreqRobustError) else EXIT_BAD_INPUT
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
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, help in HELP.items():
        function: Callable[..., Any] = lambda: None  # noqa: E731
        if arguments[:1] == [name]:
            function, arguments = made(arguments)
        app.command(name, help=help)(function)
    app.command("compare", help=gate.COMPARE_HELP)(gate.compare)
    app.command("init", help=gate.INIT_HELP)(gate.init)
    app.command("report", help=REPORT_HELP)(report_)
    app.command("list")(list_)
    return app, arguments


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
        code: int = import_module(f"freqrobust.cli.{name}").execute(*given)
        return code

    return command(COMMANDS[name], run, fields, INTERRUPTED[name]), spell_out_flags(arguments, fields)


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


def report_(
    runs: Annotated[
        list[str], typer.Argument(help="JSON reports, or directories of runs.", metavar="RUN...", show_default=False)
    ],
    wanted: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            help="The format and the file: out.html, junit=out.xml or markdown=-, where - is standard output. The "
            "format can be omitted if the name of the file ends in it. Repeat the option for several files.",
            metavar="[REPORT=]FILE",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")] = False,
) -> int:
    """Render reports; the exit code."""
    from freqrobust.cli.report import execute

    return execute(runs, wanted or [])


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
    from freqrobust.cli.listing import print_lists

    print_lists(what)
    return 0
