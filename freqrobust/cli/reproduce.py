"""``freqrobust reproduce``: published experiments, with a verdict on each trend."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

from freqrobust.cli.analyze import RUNS, render
from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.text import one_line, print_error

if TYPE_CHECKING:
    from rich.console import Console

    from freqrobust.core.progress import Screen
    from freqrobust.core.training_config import ReproduceCommand, ReproduceConfig
    from freqrobust.experiments.experiment import Experiment
    from freqrobust.plugins.specs import PluginSpec
    from freqrobust.results.findings import Findings, Trend

SOME_FAILED = 3
_STYLES = {"reproduced": "green", "not reproduced": "red", "undecided": "yellow"}


def execute(config: ReproduceCommand) -> int:
    """Run one experiment, or all of them; the exit code: 3 where some of all failed.

    Raises:
        FreqRobustError: bad input; where possible, before anything is computed.
    """
    if config.list:
        print_list(sys.stdout)
        return 0
    if config.name is not None:
        from freqrobust.cli.lines import first_line

        first_line("reproducing", [config.name], config.data, config.quiet)
    from freqrobust.experiments.experiment import experiments

    if config.name is None:
        raise SpecError(f"name an experiment, or all (experiments: {', '.join(experiments.names())})")
    every = config.name == "all"
    if every and config.scale == "cpu" and config.data is None:
        raise SpecError("all with --scale cpu needs --data and --train-data, such as two files .npz, or cifar10")
    from freqrobust.core.files import cache_root, check_writable, write_atomically
    from freqrobust.core.progress import Screen
    from freqrobust.core.training_config import ReproduceConfig
    from freqrobust.experiments.reproduce import select

    names = experiments.names() if every else [config.name]
    chosen = [] if every else [select(config.name)]  # of all, one that cannot be loaded is one that failed
    if config.json_file is not None:
        check_writable(config.json_file, "--json")
    check_writable(Path(config.out if config.out is not None else RUNS / "reproduce") / "findings.json", "--out")
    values = {name: getattr(config, name) for name in ReproduceConfig.model_fields}
    settings = ReproduceConfig(**{**values, "cache_dir": config.cache_dir or cache_root()})
    screen = Screen(config.quiet, bar=not config.no_progress)
    _warn_without_gpu(settings, screen)
    if not every:
        findings, files = _run(chosen[0], settings, config, screen)
        if config.json_file is not None:
            write_atomically(config.json_file, _as_json(findings))
        if not config.quiet:
            show(findings, sys.stdout)
            sys.stdout.flush()
            screen.say(_written(files))
            screen.say("next: freqrobust reproduce --list")
        return 0
    found: dict[str, Findings] = {}
    failed: dict[str, str] = {}
    for number, name in enumerate(names, 1):
        screen.say(f"{number} of {len(names)}: {name}")
        try:
            found[name], files = _run(select(name), settings, config, screen)
            screen.say(_written(files))
        except FreqRobustError as error:
            failed[name] = str(error)
            print_error(str(error) if str(error).startswith(name) else f"{name}: {error}")
    if config.json_file is not None:
        texts = [f"{json.dumps(name)}: {_as_json(findings).rstrip()}" for name, findings in found.items()]
        write_atomically(config.json_file, "{" + ",\n".join(texts) + "}\n")
    if not config.quiet:
        summarise(found, failed, sys.stdout)
    if failed:
        print_error(f"exit code {SOME_FAILED}: {len(failed)} of {len(names)} experiments failed: {', '.join(failed)}")
    return SOME_FAILED if failed else 0


def _warn_without_gpu(config: ReproduceConfig, screen: Screen) -> None:
    from freqrobust.harness.devices import resolve_device

    if config.scale == "paper" and resolve_device(config.device).type == "cpu":
        screen.say(
            "warning: the scale paper trains the published networks on the full data; without a GPU most experiments take "
            "days (--scale cpu takes minutes)"
        )


def _run(
    chosen: PluginSpec[Experiment], settings: ReproduceConfig, config: ReproduceCommand, screen: Screen
) -> tuple[Findings, list[Path]]:
    """Run one experiment and write its files."""
    from freqrobust.experiments.reproduce import reproduce

    cls = type(chosen.plugin)
    about = one_line((cls.__doc__ or "").strip().split("\n\n")[0])
    source = f" ({cls.source})" if cls.source else ""
    screen.say(f"{chosen.spec}{source}, scale {settings.scale}: {about}")
    with screen:
        findings = reproduce(chosen, settings, progress=screen)
    folder = Path(config.out) if config.out is not None else _folder(findings)
    return findings, write(findings, folder)


def _folder(findings: Findings) -> Path:
    """A folder under ``runs/``, named by content: the same command finds it again."""
    from freqrobust.core.files import identity

    data = [one.sha256 if one is not None else None for one in (findings.data, findings.train_data)]
    content = [findings.name, findings.params, findings.scale, findings.seed, data]
    return RUNS / f"reproduce-{_file_name(findings)}-{findings.scale}-{identity(content)[:12]}"


def _file_name(findings: Findings) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", findings.name)


def write(findings: Findings, folder: Path) -> list[Path]:
    """Write the findings as JSON and Markdown, and the picture where there is one; the files.

    Raises:
        JournalError: a file cannot be written.
    """
    from freqrobust.core.files import write_atomically
    from freqrobust.experiments.markdown import markdown
    from freqrobust.results.figures import decode

    name = _file_name(findings)
    contents: dict[str, str | bytes] = {f"{name}.json": _as_json(findings)}
    if findings.picture is not None:
        contents[f"{name}.png"] = decode(findings.picture)
    contents[f"{name}.md"] = markdown(findings, f"{name}.png" if findings.picture is not None else None)
    for file, content in contents.items():
        write_atomically(folder / file, content)
    return [folder / file for file in contents]


def _written(files: list[Path]) -> str:
    return f"written to {files[0].parent}: {', '.join(file.name for file in files)}"


def _as_json(findings: Findings) -> str:
    """JSON without the picture, which is a file of its own."""
    return findings.model_copy(update={"picture": None}).dumps()


def _console(target: IO[str]) -> Console:
    from rich.console import Console

    terminal = target.isatty()
    return Console(file=target, width=None if terminal else 200, highlight=False, emoji=False, markup=False)


def show(findings: Findings, target: IO[str]) -> None:
    """Everything that was found, in the width of the terminal."""
    from freqrobust.experiments.text import all_settings, measured_table, verdict_line

    console = _console(target)
    console.print(one_line(": ".join(filter(None, (findings.spec, findings.source)))), style="bold")
    _pairs(console, [(name, text, "") for name, text in all_settings(findings).items()], "dim")
    console.print()
    render([*([measured_table(findings.measured)] if findings.measured else []), *findings.tables], target)
    if findings.trends:
        console.print("Trends of the source", style="bold")
        _pairs(console, [(one.verdict, *_lines(one)) for one in findings.trends])
        console.print(f"  {verdict_line(findings)}")
        console.print()
    if findings.notes:
        console.print("Notes", style="bold")
        _pairs(console, [("-", note, "") for note in findings.notes])
        console.print()


def _lines(trend: Trend) -> tuple[str, str]:
    from freqrobust.experiments.text import estimate_text

    return trend.statement, f"{trend.measure}: {estimate_text(trend)}"


def _pairs(console: Console, rows: list[tuple[str, str, str]], label_style: str = "") -> None:
    """A label and a text on each line, and a second, dim line below the text where there is one."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text, below in rows:
        body = Text.assemble(one_line(text), (f"\n{one_line(below)}" if below else "", "dim"))
        table.add_row(Text(one_line(label), style=_STYLES.get(label, label_style)), body)
    console.print(Padding(table, (0, 0, 0, 2), expand=False))


def summarise(found: dict[str, Findings], failed: dict[str, str], target: IO[str]) -> None:
    """One row for each experiment."""
    from freqrobust.experiments.text import VERDICTS, counts
    from freqrobust.results.analysis import AnalysisTable

    rows = [
        [name, *(str(counts(one)[verdict] or "-") for verdict in VERDICTS), f"{one.seconds:.1f}"]
        for name, one in found.items()
    ]
    rows += [[name, *("failed" for _ in VERDICTS), "-"] for name in failed]
    if len(found) > 1:
        totals = [sum(counts(one)[verdict] for one in found.values()) for verdict in VERDICTS]
        rows.append(["all", *map(str, totals), f"{sum(one.seconds for one in found.values()):.1f}"])
    render([AnalysisTable(title="Trends", columns=["experiment", *VERDICTS, "seconds"], rows=rows)], target)


def print_list(target: IO[str]) -> None:
    """Name, source and one sentence of every experiment; one that cannot be loaded says why."""
    from freqrobust.experiments.experiment import experiments

    console = _console(target)
    for name in experiments.names():
        try:
            cls = experiments.get(name)
            text = one_line((cls.__doc__ or "").strip().split("\n\n")[0])
            parameters = f" Parameters: {', '.join(cls.model_fields)}." if cls.model_fields else ""
            row = (cls.source, text + parameters)
        except FreqRobustError as error:
            row = ("cannot be loaded", str(error))
        console.print(one_line(f"{name}  {row[0]}"), style="bold")
        _pairs(console, [("", row[1], "")])
