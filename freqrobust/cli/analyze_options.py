"""The command ``analyze``: its options, and one option per field of the analysis that is named."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from freqrobust.cli import options

ANALYZE_HELP = (
    "Look at one or more models in one way: Fourier heat map, LFC/HFC misalignment, spectra, and others "
    "(freqrobust list analyses).\n\n"
    "--model and --defense may be repeated: all are shown side by side on one scale.\n\n"
    "With NAME --help: the parameters of that analysis as well."
)
#: Options of ``analyze`` that take no value.
FLAGS = {"--no-baseline", "--quiet", "--debug", "--trust-checkpoint", "--help", "-h"}
#: Options of ``eval`` that ``analyze`` has too.
SHARED = [
    "trust_checkpoint",
    "data",
    "data_dir",
    "split",
    "limit",
    "first",
    "train_data",
    "defense",
    "no_baseline",
    "batch_size",
    "device",
    "seed",
    "json",
    "quiet",
    "debug",
]


def given_analysis(arguments: list[str]) -> str | None:
    """The analysis that ``analyze`` is asked for: its first argument that is no option and no option's value."""
    position = 1
    while position < len(arguments):
        argument = arguments[position]
        if not argument.startswith("-"):
            return argument
        position += 1 if "=" in argument or argument in FLAGS else 2
    return None


def analyze_command(fields: dict[str, Any]) -> Any:
    """The function behind ``analyze``: its own parameters, some of ``eval``'s, and the fields of the analysis."""

    def command(
        *,
        analysis: Annotated[
            str,
            typer.Argument(help="An analysis, such as heatmap or heatmap:norm=4.", metavar="NAME"),
        ],
        model: Annotated[
            list[str] | None,
            typer.Option(
                help="A checkpoint, torchvision:NAME, timm:NAME, robustbench:NAME, module:callable or "
                "file.py:callable. May be repeated.",
                rich_help_panel=options.MODEL,
                metavar="SPEC",
            ),
        ] = None,
        label: Annotated[
            list[str] | None,
            typer.Option(help="What to call each model, in order.", rich_help_panel=options.MODEL, metavar="TEXT"),
        ] = None,
        arch: Annotated[
            list[str] | None,
            typer.Option(
                help="Architecture of a state dict, see eval; one for all models, or one each, in order.",
                rich_help_panel=options.MODEL,
                show_default="auto",
                metavar="A",
            ),
        ] = None,
        normalize: Annotated[
            list[str] | None,
            typer.Option(
                help="Normalisation, see eval; one for all models, or one each, in order.",
                rich_help_panel=options.MODEL,
                show_default="auto",
                metavar="N",
            ),
        ] = None,
        out: Annotated[
            str | None,
            typer.Option(
                help="Draw the result, as .png or .svg by the ending. Without --out, --json and --into: a folder "
                "under runs/, named by content.",
                rich_help_panel=options.OUTPUT,
                metavar="FILE",
            ),
        ] = None,
        into: Annotated[
            str | None,
            typer.Option(
                help="Add the result, with its picture, to a report of eval on the same samples.",
                rich_help_panel=options.OUTPUT,
                metavar="RUN.json",
            ),
        ] = None,
        **values: Any,
    ) -> int:
        from freqrobust.cli.analyze import Request, execute

        given = {key: values.pop(f"option_{key}") for key in fields}
        values["trust"] = values.pop("trust_checkpoint")
        values["baseline"] = not values.pop("no_baseline")
        values["defenses"] = values.pop("defense") or []
        del values["debug"]
        try:
            return execute(
                Request(
                    analysis=analysis,
                    options={key: value for key, value in given.items() if value},
                    models=model or [],
                    labels=label or [],
                    archs=arch or ["auto"],
                    normalizations=normalize or ["auto"],
                    out=out,
                    into=into,
                    **values,
                )
            )
        except KeyboardInterrupt:  # the command line library would end without a word
            options.fail("interrupted; nothing was written")
            return options.EXIT_INTERRUPTED

    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(options.eval_, eval_str=True).parameters
    kept = [parameter for parameter in own.parameters.values() if parameter.name != "values"]
    parameters = [*kept, *(shared[name] for name in SHARED), *options.field_parameters(fields)]
    command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command
