"""The commands ``compare`` and ``init``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

GATE, OUTPUT = "Gate", "Output"
Debug = Annotated[
    bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar="", help="Print only errors and a failed gate.", rich_help_panel=OUTPUT)
]


def compare(
    *,
    baseline: Annotated[str, typer.Argument(help="The old JSON report.", metavar="BASELINE.json")],
    new: Annotated[str, typer.Argument(help="The new JSON report.", metavar="NEW.json")],
    gate: Annotated[
        list[str] | None,
        typer.Option(
            help="A cell that can fail the gate, such as clean, pgd:eps=8/255, smooth/worst, sweep-pgd or */clean. "
            "Repeat the option for several cells. Default: the clean accuracy, LFC 12 and the worst case per threat, "
            "of every defense; the name default adds these to other cells.",
            rich_help_panel=GATE,
            metavar="CELL",
        ),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(help="Probability of a false alarm, over all gate cells together.", rich_help_panel=GATE),
    ] = 0.05,
    max_drop: Annotated[
        list[str] | None,
        typer.Option(
            help="Allowed drop of an accuracy, for all gate cells (0.01) or for one cell (pgd=0.02). Repeatable.",
            rich_help_panel=GATE,
            metavar="[CELL=]SHARE",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", metavar="", help="Fail if seeds, versions or cells differ.", rich_help_panel=GATE),
    ] = False,
    json: Annotated[
        str | None,
        typer.Option(
            help="Write the new report with the result of the gate to this file.",
            rich_help_panel=OUTPUT,
            metavar="FILE",
        ),
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
    from freqrobust.cli.lines import command_line
    from freqrobust.core.files import check_writable
    from freqrobust.core.text import print_line
    from freqrobust.gate.compare import compare as compared
    from freqrobust.gate.regression import DEFAULT
    from freqrobust.gate.thresholds import parse_max_drops
    from freqrobust.results.gate_record import GateRecord
    from freqrobust.results.rendering import GATE_ON_SCREEN, STDOUT, check_outputs, parse_outputs, write_outputs
    from freqrobust.results.report import Report

    everywhere, each = parse_max_drops(max_drop or [])
    rules: dict[str, Any] = {"cells": gate or [DEFAULT], "alpha": alpha, "max_drop": everywhere, "max_drops": each}
    if json is not None:
        check_writable(json, "--json")
    outputs = parse_outputs(report or [], "--report")
    check_outputs(outputs, "--report", [baseline, new, *([json] if json is not None else [])])
    if not quiet and all(output.target != STDOUT for output in outputs):
        outputs = [*parse_outputs([GATE_ON_SCREEN], "--report"), *outputs]
    judged = Report.from_json(new)
    comparison = compared(baseline, judged, **rules, strict=strict)
    record = judged.gate = GateRecord(passed=comparison.passed, comparison=comparison)
    if json is not None:
        judged.to_json(json)
    for path in write_outputs(outputs, {Path(new).stem: judged}):
        if not quiet:
            print_line(f"written: {path}", sys.stderr)
    lines = gate_lines(record)
    print_lines(lines if quiet else lines[-1:])
    if not quiet:
        print_line(f"next: {command_line('report', new, '--full')}", sys.stderr)
    return 0 if record.passed else 1


def init(
    *,
    model: Annotated[str, typer.Option(help="The model in the project file.", metavar="SPEC")] = "demo",
    data: Annotated[
        str | None, typer.Option(help="The dataset in the project file. Default: digits, for the demo.", metavar="SPEC")
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(help="The normalisation in the project file. Default: the one that is recognised from the model."),
    ] = None,
    ci: Annotated[str, typer.Option(help="The CI system of the workflow: github, gitlab or none.")] = "github",
    norm: Annotated[
        list[str] | None,
        typer.Option(
            help="A norm for which budgets are chosen: linf, l2 or l1. Repeatable. Default: linf.", metavar="NORM"
        ),
    ] = None,
    no_measure: Annotated[
        bool,
        typer.Option(
            "--no-measure",
            metavar="",
            help="Write the suite quick, instead of measuring the model and choosing budgets with accuracies from 20 to "
            "80 percent.",
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")] = False,
) -> int:
    """Write a project file and a workflow; the exit code."""
    from freqrobust.cli.init import execute
    from freqrobust.core.errors import SpecError

    if no_measure and norm:
        raise SpecError("--norm and --no-measure exclude each other: budgets are chosen by measuring")
    return execute(
        model=model, data=data, normalize=normalize, ci=ci, measure=not no_measure, norms=tuple(norm or ["linf"])
    )
