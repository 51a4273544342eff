"""The commands of the gate: ``compare``, ``check`` and ``init``."""

from __future__ import annotations

from typing import Annotated

import typer

COMPARE_HELP = (
    "Compare two reports of the same data: which accuracies dropped, beyond chance and beyond what is allowed.\n\n"
    "Exit code 0: no regression, 1: a regression, 2: the reports cannot be compared."
)
CHECK_HELP = (
    "Evaluate what freqrobust.toml describes, and judge it: thresholds, and the baseline.\n\n"
    "The file is found from the current folder upwards; freqrobust init writes one. Exit code 0: passed, 1: failed."
)
INIT_HELP = "Write a commented freqrobust.toml and a CI workflow for it. Nothing is ever overwritten."
GATE, OUTPUT, RUN = "Gate", "Output", "What to run"
Debug = Annotated[bool, typer.Option("--debug", metavar="", help="Show tracebacks.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", metavar="", help="Print only errors, and what failed.", rich_help_panel=OUTPUT)
]


def compare(
    *,
    baseline: Annotated[str, typer.Argument(help="The report before.", metavar="BASELINE.json")],
    new: Annotated[str, typer.Argument(help="The report now.", metavar="NEW.json")],
    gate: Annotated[
        list[str] | None,
        typer.Option(
            help="Gate cells, such as clean, pgd:eps=8/255, smooth/worst, sweep-pgd or */clean. May be repeated. "
            "Default: clean, LFC 12 and the worst case per threat, of every defense; 'default' adds these.",
            rich_help_panel=GATE,
            metavar="CELL",
        ),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(help="Chance of a false alarm, over all gate cells together.", rich_help_panel=GATE),
    ] = 0.05,
    max_drop: Annotated[
        list[str] | None,
        typer.Option(
            help="Allowed drop of an accuracy, for all gate cells (0.01) or for one (pgd=0.02). May be repeated.",
            rich_help_panel=GATE,
            metavar="[CELL=]SHARE",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", metavar="", help="Other seeds, versions or cells are errors.", rich_help_panel=GATE),
    ] = False,
    json: Annotated[
        str | None,
        typer.Option(help="Write the new report with the verdict in it.", rich_help_panel=OUTPUT, metavar="FILE"),
    ] = None,
    report: Annotated[
        list[str] | None,
        typer.Option(
            help="Write it in another form as well, such as gate.html, pr.md or junit=out.xml; - is standard output. "
            "May be repeated.",
            rich_help_panel=OUTPUT,
            metavar="[REPORT=]FILE",
        ),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Compare two reports; the exit code."""
    import sys
    from pathlib import Path

    from freqrobust.cli.failures import gate_lines, print_lines
    from freqrobust.core.files import check_writable
    from freqrobust.core.text import one_line
    from freqrobust.gate.regression import DEFAULT, Rules
    from freqrobust.gate.thresholds import Gate, parse_max_drops
    from freqrobust.results.rendering import GATE_ON_SCREEN, STDOUT, check_outputs, parse_outputs, write_outputs
    from freqrobust.results.report import Report

    everywhere, each = parse_max_drops(max_drop or [])
    rules = Rules(tuple(gate or [DEFAULT]), alpha, everywhere, each, strict)
    if json is not None:
        check_writable(json, "--json")
    outputs = parse_outputs(report or [], "--report")
    check_outputs(outputs, "--report", [baseline, new, *([json] if json is not None else [])])
    if not quiet and all(output.target != STDOUT for output in outputs):
        outputs = [*parse_outputs([GATE_ON_SCREEN], "--report"), *outputs]
    judged = Report.from_json(new)
    record = Gate(baseline=baseline, rules=rules).judge(judged)
    if json is not None:
        judged.to_json(json)
    for path in write_outputs(outputs, {Path(new).stem: judged}):
        if not quiet:
            print(one_line(f"written: {path}"), file=sys.stderr)
    if quiet:
        print_lines(gate_lines(record))
    return 0 if record.passed else 1


def check(
    *,
    update_baseline: Annotated[
        bool,
        typer.Option(
            "--update-baseline",
            metavar="",
            help="Write the baseline anew, and show what changed.",
            rich_help_panel=RUN,
        ),
    ] = False,
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential",
            metavar="",
            help="Thresholds only: stop measuring each cell as soon as its threshold is decided.",
            rich_help_panel=RUN,
        ),
    ] = False,
    batch_size: Annotated[
        str | None, typer.Option(help="Images per batch, or auto.", rich_help_panel=RUN, metavar="N")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=RUN)] = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            help="Journal and report; default: a folder under runs/, named by content.",
            rich_help_panel=OUTPUT,
            metavar="DIR",
        ),
    ] = None,
    json: Annotated[
        str | None, typer.Option(help="Write the JSON report here as well.", rich_help_panel=OUTPUT, metavar="FILE")
    ] = None,
    report: Annotated[
        list[str] | None,
        typer.Option(
            help="Write a report of another form as well, such as out.html, out.md, junit=out.xml or markdown=-; "
            "- is standard output. May be repeated.",
            rich_help_panel=OUTPUT,
            metavar="[REPORT=]FILE",
        ),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Run what the project file describes and judge it; the exit code."""
    from freqrobust.cli import check

    return check.execute(
        update=update_baseline,
        sequential=sequential,
        batch_size=batch_size,
        device=device,
        run_dir=run_dir,
        json_file=json,
        reports=report or [],
        quiet=quiet,
    )


def init(
    *,
    model: Annotated[str, typer.Option(help="The model of the project file.", metavar="SPEC")] = "demo",
    data: Annotated[str | None, typer.Option(help="Its data; of the demo, digits.", metavar="SPEC")] = None,
    normalize: Annotated[
        str | None, typer.Option(help="Its normalisation; by default what the model is recognised by, pinned.")
    ] = None,
    ci: Annotated[str, typer.Option(help="Write a workflow for github, gitlab or none.")] = "github",
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show tracebacks.")] = False,
) -> int:
    """Write a project file and a workflow; the exit code."""
    from freqrobust.cli.init import execute

    return execute(model=model, data=data, normalize=normalize, ci=ci)
