"""One ``freqrobust analyze``: from the words of the command line to a table, a picture and JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from freqrobust.core.errors import SpecError
from freqrobust.core.text import one_line

if TYPE_CHECKING:
    from freqrobust.harness.analysis import Analysis
    from freqrobust.models.classifier import Classifier
    from freqrobust.plugins.specs import PluginSpec
    from freqrobust.results.analysis import AnalysisTable
    from freqrobust.results.analysis_record import AnalysisRecord

#: Where results are kept that nothing else keeps, and the name of a record there.
RUNS, RECORD = Path("runs"), "analysis.json"


@dataclass(frozen=True)
class Request:
    """What was asked for, in the words of the command line."""

    analysis: str
    options: Mapping[str, Sequence[str]]
    models: Sequence[str]
    labels: Sequence[str]
    archs: Sequence[str]
    normalizations: Sequence[str]
    trust: bool
    data: str | None
    data_dir: str | None
    split: str
    limit: int | None
    first: int | None
    train_data: str | None
    defenses: Sequence[str]
    baseline: bool
    batch_size: str
    device: str
    seed: int
    out: str | None
    json: str | None
    into: str | None
    quiet: bool


def execute(request: Request) -> int:
    """Analyze, write what was asked for, print the tables.

    Returns:
        The exit code, 0.

    Raises:
        FreqRobustError: bad input; said before anything is computed where it can be known.
    """
    from freqrobust.cli.eval import missing_data, parse_batch_size
    from freqrobust.core.files import cache_root, check_writable, write_atomically
    from freqrobust.core.progress import Screen
    from freqrobust.data.sources import load_data
    from freqrobust.harness.analyze import analyze, check_into, put_into
    from freqrobust.harness.devices import resolve_device
    from freqrobust.plugins.selection import parse_defenses
    from freqrobust.results.figures import can_draw, decode, picture_format, require

    chosen = _analysis(request)
    if not request.baseline and not request.defenses:
        raise SpecError("--no-baseline needs a --defense: there would be nothing to look at")
    kept = any(target is not None for target in (request.out, request.json, request.into))
    format: Literal["png", "svg"] | None = picture_format(request.out) if request.out is not None else None
    if request.into is not None and format is None:
        format = "png"
    if format is not None:
        require()
    elif not kept and can_draw():
        format = "png"
    for flag, target in (("--out", request.out), ("--json", request.json), ("--into", request.into)):
        if target is not None:
            check_writable(target, flag)
    if not kept:
        check_writable(RUNS / chosen.name / RECORD)
    batch_size = parse_batch_size(request.batch_size)
    device = resolve_device(request.device)
    chains = parse_defenses(request.defenses)
    named = _models(request)
    watch = Screen(request.quiet)
    demo = not named
    data = None
    if request.data is not None or chosen.plugin.needs_data:
        data = load_data(
            request.data if request.data is not None else ("digits" if demo else missing_data()),
            data_dir=request.data_dir,
            split=request.split,
            limit=request.limit,
            first=request.first,
            seed=request.seed,
        )
    if request.into is not None:
        check_into(request.into, data)
    train = request.train_data if request.train_data is not None else ("digits" if demo else None)
    train_data = load_data(train, data_dir=request.data_dir, split="train") if train is not None else None
    cache = cache_root()
    models = _loaded(request, named, data, device, cache, watch)
    if data is not None:
        watch.say(f"data: {data.spec}, {len(data)} images {'x'.join(map(str, data.shape))}, {data.classes} classes")
    with watch:
        found = analyze(
            models,
            data,
            chosen,
            defenses=chains,
            baseline=request.baseline,
            train_data=train_data,
            picture=format,
            batch_size=batch_size,
            device=device,
            seed=request.seed,
            cache_dir=cache,
            progress=watch,
        )
    if found.picture is None and request.out is not None:
        raise SpecError(f"{chosen.name} draws no picture")
    if request.out is not None and found.picture is not None:
        write_atomically(request.out, decode(found.picture))
        watch.say(f"picture: {request.out}")
    if request.into is not None:
        count = put_into(found, request.into)
        watch.say(f"added to {request.into}, which holds {count} {'analysis' if count == 1 else 'analyses'} now")
    if request.json is not None:
        found.model_copy(update={"picture": None}).to_json(request.json)
    if not kept:
        watch.say(f"written: {', '.join(map(str, _keep(found, chosen)))}")
    if not request.quiet:
        for warning in found.warnings:
            watch.say(f"warning: {warning.message}")
        render(found.tables, sys.stdout)
    return 0


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


def _analysis(request: Request) -> PluginSpec[Analysis]:
    from freqrobust.harness.analysis import analyses

    found = analyses.parse(request.analysis, request.options)
    if len(found) != 1:
        raise SpecError(f"{request.analysis} with these options is a sweep of {len(found)}; run one at a time")
    return found[0]


def _models(request: Request) -> list[tuple[str, str, str]]:
    """Spec, architecture and normalisation of each model.

    Raises:
        SpecError: as many of one as there are models, or one for all: it is something else.
    """
    count = len(request.models)
    for option, values in (("arch", request.archs), ("normalize", request.normalizations), ("label", request.labels)):
        if len(values) not in ((0, count) if option == "label" else (1, count)):
            some = "" if option == "label" else "one for all, or "
            raise SpecError(f"--{option} is given {len(values)} times for {count} models; give {some}one each")
    archs, normalizations = (
        list(values) * count if len(values) == 1 else list(values) for values in (request.archs, request.normalizations)
    )
    return list(zip(request.models, archs, normalizations, strict=True)) if count else []


def _loaded(
    request: Request, named: Sequence[tuple[str, str, str]], data: Any, device: Any, cache: Path, watch: Any
) -> Any:
    """The models by label; the demo where none is named."""
    from freqrobust.harness.analyze import labelled
    from freqrobust.models.loading import load_model

    if not named:
        watch.say("no --model given: this is the embedded demo, a small CNN on 8 x 8 handwritten digits")
        return load_model("demo", data=data, device=device, cache_dir=cache, progress=watch)
    models: list[Classifier] = []
    for spec, arch, normalize in named:
        model = load_model(spec, arch=arch, normalize=normalize, trust=request.trust, data=data, device=device)
        watch.say(f"model: {model.arch} ({model.spec}), normalisation: {model.chosen}, source: {model.chosen.source}")
        models.append(model)
    labels = list(request.labels) or [label for label, _ in labelled(models)]
    if len(set(labels)) < len(labels):
        raise SpecError("two models have the same --label")
    return dict(zip(labels, models, strict=True))


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
        widths = [
            min(max(map(len, [*column.split(), *(row[number] for row in one.rows)]), default=1), 12)
            for number, column in enumerate(one.columns)
        ]
        fits = sum(widths) + 2 * len(widths) <= console.width
        for number, (column, width) in enumerate(zip(one.columns, widths, strict=True)):
            table.add_column(
                Text(one_line(column)),
                justify="left" if number == 0 else "right",
                min_width=width if fits else None,
                overflow="fold",
            )
        for row in one.rows:
            table.add_row(*(Text(one_line(value)) for value in row))
        console.print(one_line(one.title), style="bold")
        console.print(table)
        console.print()
