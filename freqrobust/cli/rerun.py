"""``freqrobust rerun``: a report measured again with its own options, and compared with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.text import excerpt, one_line, print_error

if TYPE_CHECKING:
    from freqrobust.core.command_config import RerunCommand
    from freqrobust.core.options import Options
    from freqrobust.results.analysis_record import AnalysisRecord
    from freqrobust.results.records import DataRecord, ModelRecord
    from freqrobust.results.report import Report
    from freqrobust.results.training_record import TrainingRecord

#: Exit code where the numbers differ.
DIFFERENT = 1
#: Options of a report that are not taken from it: trust is given anew, and thresholds are no part of the result.
NOT_TAKEN = ("trust_checkpoint", "fail_under", "confident", "config")


def execute(config: RerunCommand) -> int:
    """Measure again, and say what differs.

    Returns:
        The exit code: 0 where all numbers are identical, 1 where some differ, 3 when cells failed, 130 when interrupted.

    Raises:
        FreqRobustError: the report cannot be measured again, or the model or the data is another one.
    """
    from freqrobust.cli.lines import first_line

    first_line("rerunning", [config.report], None, config.quiet)
    from freqrobust.core.files import regular_file
    from freqrobust.results.analysis_record import AnalysisRecord, ReportError
    from freqrobust.results.report import Report
    from freqrobust.results.training_record import TrainingRecord

    path = regular_file(config.report, f"the report {config.report}", ReportError, "a JSON report")
    content = _content(path)
    if "trends" in content:
        name = one_line(content.get("spec") or content.get("name") or "NAME")
        raise SpecError(f"{path} is the result of an experiment: 'freqrobust reproduce {name}' runs it again")
    if "epochs" in content:
        return _train(config, path, TrainingRecord.from_json(path))
    if "tables" in content:
        return _analyze(config, path, AnalysisRecord.from_json(path))
    return _evaluate(config, path, Report.from_json(path))


def _content(path: Path) -> Mapping[str, Any]:
    """The content of a JSON file; empty where it is no object, so that reading it as a report says why."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _evaluate(config: RerunCommand, path: Path, old: Report) -> int:
    from freqrobust.cli import eval
    from freqrobust.core.command_config import EvalCommand
    from freqrobust.core.launch import refuse_several
    from freqrobust.results.report import Report
    from freqrobust.results.reruns import environment_differences, report_differences
    from freqrobust.results.stored_runs import EVALUATION

    refuse_several("rerun")
    if any(warning.code == "sequential" for warning in old.warnings):
        raise SpecError(f"{path} was measured by 'freqrobust check --sequential', which stopped early; run that again")
    options = recorded_options(EvalCommand, old.config, config, path)
    folder = _fresh_folder(config, path, EVALUATION, "report.json")
    check_loadable(options, path)
    command = EvalCommand(**options, run_dir=folder, json_file=config.json_file, quiet=config.quiet)
    code = eval.execute(command, check=lambda models, data: _check_inputs(path, old.models, old.data, models, data))
    if not (folder / "report.json").exists():
        return code
    new = Report.from_json(folder / "report.json")
    environment = environment_differences(
        old.environment, new.environment, old.freqrobust_version, new.freqrobust_version
    )
    different = _say(report_differences(old, new), environment, path, f"{len(old.cells)} cells", config.quiet)
    return code or different


def _analyze(config: RerunCommand, path: Path, old: AnalysisRecord) -> int:
    import tempfile

    from freqrobust.cli import analyze
    from freqrobust.core.command_config import AnalyzeCommand
    from freqrobust.core.launch import refuse_several
    from freqrobust.results.analysis_record import AnalysisRecord
    from freqrobust.results.reruns import analysis_differences, environment_differences

    refuse_several("rerun")
    options = recorded_options(AnalyzeCommand, old.config, config, path)
    if "analysis" not in options:
        options["analysis"] = old.spec
    if old.data is not None or "model" in options:
        check_loadable(options, path)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(config.json_file) if config.json_file is not None else Path(folder, "analysis.json")
        command = AnalyzeCommand(**options, json_file=target, quiet=config.quiet)
        code = analyze.execute(
            command, check=lambda models, data: _check_inputs(path, old.models, old.data, models, data)
        )
        new = AnalysisRecord.from_json(target)
    environment = environment_differences(
        old.environment, new.environment, old.freqrobust_version, new.freqrobust_version
    )
    return code or _say(analysis_differences(old, new), environment, path, "the analysis", config.quiet)


def _train(config: RerunCommand, path: Path, old: TrainingRecord) -> int:
    from freqrobust.cli import train
    from freqrobust.core.training_config import TrainCommand
    from freqrobust.results.reruns import environment_differences, training_differences
    from freqrobust.results.stored_runs import TRAINING
    from freqrobust.results.training_record import TrainingRecord

    if config.model:
        raise SpecError(f"{path} is the record of a training, which has no --model")
    recipe = {name.replace("-", "_"): value for name, value in old.recipe.items()}
    if not recipe.get("hold_out"):
        recipe.pop("best", None)
    taken = {name: value for name, value in old.config.items() if name not in ("recipe", "set")}
    options = recorded_options(TrainCommand, {**taken, **recipe} if old.config else {}, config, path)
    folder = _fresh_folder(config, path, TRAINING, "training.json")

    def check(job: Any) -> None:
        if job.workers.size != old.processes:
            raise SpecError(f"{path} was trained with {old.processes} processes, but this is one of {job.workers.size}")
        if job.setup.train.sha256 != old.train_data.sha256:
            raise SpecError(_differs(path, "data", old.train_data.spec, old.train_data.sha256, job.setup.train.sha256))

    command = TrainCommand(**options, out=folder, json_file=config.json_file, quiet=config.quiet)
    code = train.execute(command, check=check)
    if code or not (folder / "training.json").exists():
        return code
    new = TrainingRecord.from_json(folder / "training.json")
    environment = environment_differences(
        old.environment, new.environment, old.freqrobust_version, new.freqrobust_version
    )
    return _say(
        training_differences(old, new),
        environment,
        path,
        f"{len(old.epochs)} {'epoch' if len(old.epochs) == 1 else 'epochs'}",
        config.quiet,
    )


def recorded_options(cls: type[Options], recorded: Mapping[str, Any], config: Options, path: Path) -> dict[str, Any]:
    """The options of a report, or of the plan of shards, with those that are given now in their place.

    Raises:
        SpecError: the report has none, or one that this version does not have.
    """
    from freqrobust.core.options import OptionError

    if not recorded:
        raise SpecError(
            f"{path} does not contain its options, because it was made from objects in Python or by an earlier version; "
            "give the options to the command that made it"
        )
    options = {name: value for name, value in recorded.items() if name not in NOT_TAKEN}
    given = {
        name for name in config.model_fields_set if name in cls.model_fields and name not in ("json_file", "quiet")
    }
    options |= {name: getattr(config, name) for name in given}
    try:
        cls(**{**{name: "-" for name, field in cls.model_fields.items() if field.is_required()}, **options})
    except OptionError as error:
        raise SpecError(f"{path}: its options are not those of this version: {error.spelled(cls.flag)}") from error
    return options


def check_loadable(options: Mapping[str, Any], path: Path) -> None:
    """Refuse a model or data that was an object in Python, of which the report has a name only.

    Raises:
        SpecError: it does not name a source.
    """
    from freqrobust.data.source_table import data_sources
    from freqrobust.models.source_table import model_sources

    for name, sources in (("model", model_sources), ("data", data_sources), ("train_data", data_sources)):
        values = options.get(name)
        for value in values if isinstance(values, list) and name == "model" else [values]:
            if value is None:
                continue
            try:
                sources.find(value if isinstance(value, str) else "")
            except FreqRobustError as error:
                flag = f"--{name.replace('_', '-')}"
                raise SpecError(
                    f"{path} was made from an object in Python ({name.replace('_', ' ')}: {excerpt(value)}), which cannot "
                    f"be loaded again; give {flag}"
                ) from error


def _check_inputs(
    path: Path, old_models: list[ModelRecord], old_data: DataRecord | None, models: Iterable[Any], data: Any
) -> None:
    """Refuse other models, another normalisation and other data than those of the report.

    Raises:
        SpecError: one line that says what differs.
    """
    from freqrobust.models.fingerprint import fingerprint, record

    models = list(models)
    if old_models and len(models) != len(old_models):
        raise SpecError(f"{path} is about {len(old_models)} models, but {len(models)} are given")
    for old, model in zip(old_models, models, strict=bool(old_models)):
        new = record(model, fingerprint(model))
        if new.sha256 != old.sha256:
            raise SpecError(_differs(path, "model", old.spec, old.sha256, new.sha256))
        if (new.normalize.mean, new.normalize.std) != (old.normalize.mean, old.normalize.std):
            raise SpecError(
                f"the normalisation is not that of {path}: {new.normalize.mean}/{new.normalize.std} instead of "
                f"{old.normalize.mean}/{old.normalize.std}"
            )
    if old_data is not None and data is not None and data.sha256 != old_data.sha256:
        count = f" and has {len(data)} samples instead of {old_data.n}" if len(data) != old_data.n else ""
        raise SpecError(_differs(path, "data", old_data.spec, old_data.sha256, data.sha256, count))


def _differs(path: Path, what: str, spec: str, old: str, new: str, more: str = "") -> str:
    return (
        f"the {what} is not that of {path}: {spec} has the hash {new[:12]} instead of {old[:12]}{more}; to measure it, use "
        "'freqrobust eval', and 'freqrobust compare' for two reports"
    )


def _fresh_folder(config: RerunCommand, path: Path, patterns: tuple[str, ...], record: str) -> Path:
    """A directory without finished results: a rerun that was interrupted is resumed, and a finished one starts again.

    Raises:
        JournalError: it cannot be written, or a process uses it.
    """
    from freqrobust.core.errors import JournalError
    from freqrobust.core.files import check_writable, identity, user_path
    from freqrobust.core.options import DATA, MODEL
    from freqrobust.core.stored_files import Stored, delete, split_files

    inputs = [name for name in type(config).model_fields if type(config).shown(name)["panel"] in (MODEL, DATA)]
    given = {name: str(getattr(config, name)) for name in inputs if name in config.model_fields_set}
    folder = Path("runs") / f"rerun-{identity([path.read_text(encoding='utf-8'), given])[:12]}"
    if config.run_dir is not None:
        folder = user_path(config.run_dir, "--run-dir")
        if folder.exists() and any(folder.iterdir()):
            raise JournalError(f"--run-dir {folder} is not empty, and a rerun takes no results from earlier runs")
    check_writable(folder / record)
    if (folder / record).exists():
        files, others = split_files(folder, patterns)
        why = delete(Stored(folder, "rerun", files, {}, others))
        if why is not None:
            raise JournalError(f"the directory {folder} of an earlier rerun cannot be used: {why}")
    return folder


def _say(differences: list[str], environment: list[str], path: Path, what: str, quiet: bool) -> int:
    """Print what differs, with ``quiet`` nothing where nothing does; the exit code."""
    if not differences and quiet:
        return 0
    count = f"{len(differences)} {'result' if len(differences) == 1 else 'results'}"
    if not differences:
        print(one_line(f"identical: {what}, all results are those of {path}"))
    else:
        print(one_line(f"different: {count} of {path}"))
        for line in differences:
            print(f"  {line}")
    for line in environment:
        print(f"made with {line}")
    if differences:
        sys.stdout.flush()
        print_error(f"exit code {DIFFERENT}: {count} of {path} {'differs' if len(differences) == 1 else 'differ'}")
    return DIFFERENT if differences else 0
