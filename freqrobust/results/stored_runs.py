"""The runs in a directory: evaluations, analyses, trainings and experiments, recognised by their files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.files import exclusive, reason
from freqrobust.core.percent import percent
from freqrobust.core.stored_files import Stored, entries_of, is_plain_file, is_plain_folder, split_files
from freqrobust.core.text import excerpt, one_line
from freqrobust.results.analysis_record import AnalysisRecord
from freqrobust.results.report import Report
from freqrobust.results.training_record import TrainingRecord

_TEMPORARY = r"(?:[^/]+/)?\.freqrobust-[^/]+"
_KEY = r"[0-9a-f]{32}"
#: The files of each kind of run, as paths in its directory.
EVALUATION = (
    "report\\.json",
    f"(?:cells|checks|compilation|failures)/{_KEY}\\.json",
    r"plan\.json",
    r"shards/\d+-of-\d+\.(?:json|lock)",
    r"shards/workers\.lock",
    f"claims/{_KEY}\\.lock",
    r"(?:checks/|compilation/|shards/)?\.lock",
    f"models/[a-z-]+-{_KEY}\\.pt",
    _TEMPORARY,
)
TRAINING = (
    r"(?:run|training)\.json",
    r"(?:last|best)\.pt",
    r"log\.jsonl",
    r"curves\.png",
    r"tensorboard/events\.out\.tfevents\.[^/]+",
    _TEMPORARY,
)
ANALYSIS = (r"analysis\.json", r"[^/]+\.(?:png|svg)", _TEMPORARY)
#: The statuses of a run.
FINISHED, INTERRUPTED, PARTIAL, RUNNING, DAMAGED = "finished", "interrupted", "partial", "running", "damaged"
NOT_MERGED = "not merged"


def stored_runs(folder: Path) -> list[Stored]:
    """The runs in a directory, oldest first; everything else in it is left out.

    Raises:
        FreqRobustError: the directory cannot be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise FreqRobustError(f"cannot read the directory {folder}: {reason(error)}") from error
    runs = [run for run in map(_run, paths) if run is not None]
    return sorted(runs, key=lambda run: run.modified)


def _run(folder: Path) -> Stored | None:
    """The run in a directory; None where it contains none, or is a link."""
    if not is_plain_folder(folder):
        return None
    for recognise in (_training, _analysis, _experiment, _evaluation):
        found = recognise(folder)
        if found is not None:
            return found
    return None


def _stored(folder: Path, what: str, patterns: tuple[str, ...], facts: dict[str, str]) -> Stored:
    files, others = split_files(folder, patterns)
    if facts["status"] in (INTERRUPTED, NOT_MERGED):
        with exclusive(folder) as free:
            facts = facts if free else {**facts, "status": RUNNING}
    return Stored(folder, what, files, {key: one_line(value) for key, value in facts.items()}, others)


def _evaluation(folder: Path) -> Stored | None:
    cells = folder / "cells"
    has_cells = is_plain_folder(cells) and any(
        is_plain_file(path) and path.suffix == ".json" and len(path.stem) == 32 for path in entries_of(cells)
    )
    content = _content(folder / "report.json")
    if not has_cells and "freqrobust_version" not in content:
        return None
    status, facts = _shards(folder)
    if is_plain_file(folder / "report.json"):
        report = _read(folder / "report.json", Report.from_json)
        status = DAMAGED if report is None else PARTIAL if report.status == "partial" else FINISHED
        if report is not None:
            facts = {
                "model": ", ".join(model.name or _short(model.spec) for model in report.models),
                "data": f"{_short(report.data.spec)} ({report.data.n})",
                "date": report.created[:10],
                "worst case": _worst(report),
            }
    return _stored(folder, "evaluation", EVALUATION, {"status": status, **facts})


def _shards(folder: Path) -> tuple[str, dict[str, str]]:
    """The status of an evaluation without a report, and how many of its shards have finished, where it has any."""
    count = _content(folder / "plan.json").get("shards")
    if not isinstance(count, int):
        return INTERRUPTED, {}
    records = [
        _content(path) for path in entries_of(folder / "shards") if re.fullmatch(rf"\d+-of-{count}\.json", path.name)
    ]
    finished = sum(record.get("state") == FINISHED for record in records)
    return NOT_MERGED if finished == count else INTERRUPTED, {"shards": f"{finished} of {count} finished"}


def _worst(report: Report) -> str:
    """The lowest worst case, or else the clean accuracy."""
    known = [case for case in report.worst_case if case.accuracy is not None]
    if known:
        worst = min(known, key=lambda case: case.accuracy or 0.0)
        eps = worst.threat.eps * 255
        budget = f"{eps:.3g}/255" if worst.threat.norm == "linf" else f"{worst.threat.eps:.3g}"
        return f"{percent(worst.accuracy or 0.0)} at {worst.threat.norm.capitalize()} {budget}, {worst.defense_spec}"
    clean = next((cell for cell in report.cells if cell.attack == "clean" and cell.accuracy is not None), None)
    return f"clean {percent(clean.accuracy or 0.0)}" if clean is not None else ""


def _training(folder: Path) -> Stored | None:
    content = _content(folder / "run.json")
    if "recipe_sha256" not in content:
        return None
    facts = {"status": INTERRUPTED, "model": str(content.get("arch", ""))}
    if is_plain_file(folder / "training.json"):
        record = _read(folder / "training.json", TrainingRecord.from_json)
        facts["status"] = FINISHED if record is not None else DAMAGED
        if record is not None:
            facts |= {
                "model": record.arch,
                "data": f"{_short(record.train_data.spec)} ({record.train_data.n})",
                "date": record.created[:10],
                "best epoch": _best_probe(record),
            }
    return _stored(folder, "training", TRAINING, facts)


def _best_probe(record: TrainingRecord) -> str:
    """The probe that chose the best checkpoint, at its epoch."""
    epoch = next((epoch for epoch in record.epochs if epoch.epoch == record.best_epoch), None)
    probe = next((probe for probe in epoch.probes if probe.name == record.best_probe), None) if epoch else None
    return f"{percent(probe.shown.accuracy)} {probe.label}" if probe is not None else ""


def _analysis(folder: Path) -> Stored | None:
    path = folder / "analysis.json"
    content = _content(path)
    if not {"freqrobust_version", "results", "tables"} <= content.keys():
        return None
    record = _read(path, AnalysisRecord.from_json)
    facts = {"status": FINISHED if record is not None else DAMAGED}
    if record is not None:
        facts |= {
            "model": ", ".join(model.name or _short(model.spec) for model in record.models),
            "data": f"{_short(record.data.spec)} ({record.data.n})" if record.data is not None else "",
            "date": record.created[:10],
        }
    return _stored(folder, f"analysis {content.get('name', '')}".strip(), ANALYSIS, facts)


def _experiment(folder: Path) -> Stored | None:
    """A folder of ``freqrobust reproduce``: ``NAME.json`` with trends, and the picture and the page of that name."""
    for path in entries_of(folder):
        if path.suffix != ".json":
            continue
        content = _content(path)
        if {"freqrobust_version", "trends", "scale"} <= content.keys():
            patterns = (rf"{re.escape(path.stem)}\.(?:json|png|md)", _TEMPORARY)
            facts = {"status": FINISHED, "date": str(content.get("created", ""))[:10]}
            return _stored(folder, f"experiment {content.get('name', '')}".strip(), patterns, facts)
    return None


def _short(spec: str) -> str:
    """The end of a path, and any other spec whole."""
    return excerpt(Path(spec).name or spec if "/" in spec else spec, 40)


def _content(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where it cannot be read or is something else."""
    if not is_plain_file(path):
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except FreqRobustError:
        return None
