"""One ``freqrobust analyze``: from the options of the command line to a table, a picture and JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from freqrobust.core.errors import SpecError
from freqrobust.core.text import one_line

if TYPE_CHECKING:
    from freqrobust.core.command_config import AnalyzeCommand
    from freqrobust.harness.analysis import Analysis
    from freqrobust.plugins.specs import PluginSpec
    from freqrobust.results.analysis import AnalysisTable
    from freqrobust.results.analysis_record import AnalysisRecord

#: Where results are kept that nothing else keeps, and the name of a record there.
RUNS, RECORD = Path("runs"), "analysis.json"


def execute(
    config: AnalyzeCommand,
    parameters: Mapping[str, Sequence[str]] | None = None,
    check: Callable[[Iterable[Any], Any], None] | None = None,
) -> int:
    """Analyze, write what was asked for, print the tables.

    Args:
        config: the options.
        parameters: the parameters of the analysis that were given as options.
        check: is called with the models and the data before anything is analysed, and may refuse them.

    Returns:
        The exit code, 0.

    Raises:
        FreqRobustError: bad input; where possible, before anything is computed.
    """
    from freqrobust.cli.lines import command_line, first_line

    first_line(
        f"running {config.analysis}:" if config.model else f"running {config.analysis}",
        config.model,
        config.data,
        config.quiet,
    )
    from freqrobust.core.config import AnalyzeConfig
    from freqrobust.core.config_file import write_options
    from freqrobust.core.files import cache_root, check_writable, user_path, write_atomically
    from freqrobust.core.progress import Screen
    from freqrobust.harness.analysis_picture import picture_file
    from freqrobust.harness.analyze import analyze, check_attacks, check_into, check_subject, put_into
    from freqrobust.harness.devices import resolve_device
    from freqrobust.harness.inputs import open_inputs, open_train_data, say_data, with_demo
    from freqrobust.plugins.selection import parse_defenses, source_spec
    from freqrobust.results.figures import can_draw, decode, picture_format, require

    chosen = _analysis(config.analysis, parameters or {})
    kept = any(target is not None for target in (config.out, config.json_file, config.into))
    wanted = picture_format(str(config.out)) if config.out is not None else None
    format: Literal["png", "svg"] | None = "png" if wanted == "pdf" else wanted  # pages show no PDF
    if config.into is not None and format is None:
        format = "png"
    if format is not None:
        require()
    elif not kept and can_draw():
        format = "png"
    targets = {"--out": config.out, "--json": config.json_file, "--into": config.into}
    for flag, target in {**targets, "--save-config": config.save_config}.items():
        if target is not None:
            check_writable(target, flag)
    if not kept:
        check_writable(RUNS / chosen.name / RECORD)
    device = resolve_device(config.device)
    chains = parse_defenses(config.defenses or [])
    check_attacks(chosen.plugin, chains)
    _check_labels(config)
    screen = Screen(config.quiet, config.verbose, not config.no_progress)
    if chosen.plugin.needs_model:
        inputs = with_demo(config, screen, chosen.plugin.needs_data)
    else:
        check_subject(chosen, config.model or None, chains)
        inputs = config
    cache = user_path(config.cache_dir, "--cache-dir") if config.cache_dir is not None else cache_root()
    needed = inputs.model if chosen.plugin.needs_model else []
    kept_in = None if config.dry_run else cache
    networks, data = open_inputs(needed, inputs.data, inputs, device, cache_dir=kept_in, progress=screen)
    if config.into is not None:
        check_into(config.into, data)
    loaded: dict[str, Any] = {"train_data": open_train_data(inputs, data), "device": device, "defenses": chains}
    models: Any = None
    if chosen.plugin.needs_model:
        models = dict(zip(config.labels, networks, strict=True)) if config.labels else networks
    if data is not None:
        say_data(data, screen)
    if config.dry_run:
        _show_plan(chosen, [chain.spec for chain in chains], models, data, device, config.batch_size, screen)
        return 0
    settings = config.settings(AnalyzeConfig, cache_dir=cache, **loaded)
    analysis = source_spec(chosen)
    if config.save_config is not None:
        write_options(config, config.save_config, analysis=analysis)
        screen.say(f"options saved: {config.save_config}")
    if check is not None:
        check(models.values() if isinstance(models, dict) else models or [], data)
    with screen:
        record = analyze(models, data, chosen, picture=format, progress=screen, **settings)
    record.config = inputs.record(analysis=analysis)
    if record.picture is None and config.out is not None:
        raise SpecError(f"{chosen.name} draws no picture")
    closing = []
    if config.out is not None and record.picture is not None:
        as_pdf = picture_file(chosen.plugin, record.results, "pdf") if wanted == "pdf" else None
        write_atomically(config.out, as_pdf or decode(record.picture))
        closing.append(f"picture: {config.out}")
    if config.into is not None:
        count = put_into(record, config.into)
        analyses = "analysis" if count == 1 else "analyses"
        closing.append(f"added to {config.into}, which now contains {count} {analyses}")
        closing.append(f"next: {command_line('report', config.into, '--as', 'out.html')}")
    if config.json_file is not None:
        record.model_copy(update={"picture": None}).to_json(config.json_file)
        closing.append(f"written: {config.json_file}")
    if not kept:
        closing.append(f"written: {', '.join(map(str, _keep(record, chosen)))}")
    if not config.quiet:
        render(record.tables, sys.stdout)
        sys.stdout.flush()
        for warning in record.warnings:
            screen.say(f"warning: {warning.message}")
        for line in closing:
            screen.say(line)
    return 0


def _show_plan(
    chosen: PluginSpec[Analysis],
    defenses: Sequence[str],
    models: Any,
    data: Any,
    device: Any,
    batch_size: Any,
    screen: Any,
) -> None:
    """What would be analyzed, and how long a pass of each model takes: the passes depend on the analysis."""
    from freqrobust.cli.dry_run import TIMES, seconds_per_pass

    screen.say(f"analysis: {chosen.spec}")
    if defenses:
        screen.say(f"defenses: {', '.join(defenses)}")
    for network in (list(models.values()) if isinstance(models, dict) else models) or []:
        if data is not None:
            took = 1000 * seconds_per_pass(network, data, device, batch_size)
            screen.say(f"time: {took:.2g} ms for a forward pass of one image, from {TIMES} timed batches")
    screen.say("dry run: nothing was computed or written")


def _keep(found: AnalysisRecord, chosen: PluginSpec[Analysis]) -> list[Path]:
    """Write the record and the picture into a folder under ``runs/``, named by content: the same command finds it again.

    Returns:
        The files.
    """
    from freqrobust.core.files import identity, write_atomically
    from freqrobust.results.figures import decode

    subjects = [(one.model, one.label, one.defense_spec, one.defense_params) for one in found.results]
    content = {
        "analysis": [found.name, found.params, chosen.code],
        "models": [(model.sha256, model.normalize.mean, model.normalize.std) for model in found.models],
        "subjects": subjects,
        "data": found.data.sha256 if found.data is not None else None,
        "seed": found.seed,
    }
    folder = RUNS / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', found.name)}-{identity(content)[:12]}"
    record = folder / RECORD
    found.model_copy(update={"picture": None}).to_json(record)
    if found.picture is None:
        return [record]
    picture = folder / f"{found.name.rpartition(':')[2]}.{found.picture.format}"
    write_atomically(picture, decode(found.picture))
    return [record, picture]


def _analysis(spec: str, parameters: Mapping[str, Sequence[str]]) -> PluginSpec[Analysis]:
    from freqrobust.harness.analysis import analyses

    parsed = analyses.parse(spec, parameters)
    if len(parsed) != 1:
        raise SpecError(f"{spec} with these options is a sweep of {len(parsed)}; run one at a time")
    return parsed[0]


def _check_labels(config: AnalyzeCommand) -> None:
    """Refuse labels that do not name each model, and options that do not fit the number of models.

    Raises:
        SpecError: they do not.
    """
    count = len(config.model) or 1
    config.per_model(count)
    if len(config.labels) not in (0, count):
        models = "1 model" if count == 1 else f"{count} models"
        raise SpecError(
            f"--label should be given once for each model, but it is given {len(config.labels)} times for {models}"
        )
    if len(set(config.labels)) < len(config.labels):
        raise SpecError("two models have the same --label")


def render(tables: Sequence[AnalysisTable], target: IO[str]) -> None:
    """Tables in the width of the terminal, plain where there is none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = target.isatty()
    console = Console(file=target, width=None if terminal else 200, highlight=False, emoji=False, markup=False)
    for one in tables:
        table = Table(
            box=box.SIMPLE_HEAD if terminal else box.ASCII2,
            pad_edge=False,
            show_edge=False,
            padding=(0, 1, 0, 0) if terminal else (0, 1),
        )
        between = 2 if terminal else 3
        widths = column_widths(one, console.width - between * len(one.columns))
        for number, (column, width) in enumerate(zip(one.columns, widths, strict=True)):
            table.add_column(
                Text(one_line(column)), justify="left" if number == 0 else "right", width=width, overflow="fold"
            )
        for row in one.rows:
            table.add_row(*(Text(one_line(value)) for value in row))
        console.print(one_line(one.title), style="bold")
        console.print(table)
        console.print()


def column_widths(table: AnalysisTable, room: int) -> list[int | None]:
    """Widths of the columns with which a table fits into ``room`` characters; None for those that need no limit.

    No word of a heading and no cell of up to twelve characters is broken, unless there is no other way; what is left
    goes to the columns that need it most. Left to itself, rich may give so much to long cells that the last columns are
    cut off.
    """
    texts = [[one_line(column), *(one_line(row[n]) for row in table.rows)] for n, column in enumerate(table.columns)]
    wanted = [max(map(len, column)) for column in texts]
    if sum(wanted) <= room:
        return [None] * len(texts)
    for longest in range(12, 0, -1):
        widths = [min(max(map(len, [*head.split(), *cells, ""])), longest) for head, *cells in texts]
        if sum(widths) <= room:
            break
    for _ in range(room - sum(widths)):
        missing = [want - width for want, width in zip(wanted, widths, strict=True)]
        widths[missing.index(max(missing))] += 1
    return list(widths)
