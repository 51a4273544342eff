"""Trackers in their offline modes: what their own files say afterwards is what the report says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freqrobust import Report
from freqrobust.core.errors import FreqRobustError, JournalError, PluginError, SpecError
from freqrobust.reports._tracking import HIGH, LOW, Tracker, legal_names, tracked
from freqrobust.results import rendering
from freqrobust.results.reporter import reports

TRACKERS = [name for name in reports.names() if issubclass(reports.get(name), Tracker)]


def needs(name: str) -> Any:
    missing = [module for module in reports.get(name).requires if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def send(found: Report | dict[str, Report], wanted: str) -> list[str]:
    outputs = rendering.parse_outputs([wanted], "--report")
    rendering.check_outputs(outputs, "--report")
    return rendering.write_outputs(outputs, found if isinstance(found, dict) else {"run": found})


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def report(decorate: Callable[[str], Report]) -> Report:
    return decorate("plain")


def test_what_is_sent_is_what_the_report_says(report: Report) -> None:
    what = tracked(report)
    cells = [cell for cell in report.cells if cell.accuracy is not None]
    assert len(what.metrics) == 3 * (len(cells) + len(report.worst_case) + 1)  # one of two certificates failed
    first = next(cell for cell in cells if cell.model == 1 and cell.attack == "clean")
    name = ("plain second", "undefended", "clean")
    assert what.metrics[name] == first.accuracy
    assert (what.metrics[(LOW, *name)], what.metrics[(HIGH, *name)]) == first.ci95
    assert what.params["data.sha256"] == report.data.sha256
    assert what.params["model1.sha256"] == report.models[1].sha256
    assert what.tags["verdict plain second + lowpass:plain"] == "overestimated"
    assert (what.tags["gate"], what.tags["failed cells"], what.tags["status"]) == ("failed", "1", "partial")


def test_names_are_as_in_the_reports(measured: Report) -> None:
    """Of a single model they begin with the defense, and name the cell as thresholds do."""
    one = measured.model_copy(update={"models": measured.models[:1]})
    one.cells = [cell for cell in measured.cells if cell.model == 0]
    one.worst_case = [row for row in measured.worst_case if row.model == 0]
    names = {"/".join(name) for name in tracked(one).metrics}
    assert {"undefended/clean", "undefended/pgd:eps=0.05,steps=2", "lowpass:radius=3/worst-linf-0.05"} <= names
    assert one.cell("pgd:eps=0.05,steps=2").accuracy == tracked(one).metrics["undefended", "pgd:eps=0.05,steps=2"]


def test_legal_names_stay_different() -> None:
    def legal(part: str) -> str:
        return re.sub(r"[^a-z]", "_", part)

    found = legal_names({("a", "b=1"): 0.1, ("a", "b=2"): 0.2, ("a", "x" * 300): 0.3, ("a", "x" * 299): 0.4}, legal)
    assert list(found.values()) == [0.1, 0.2, 0.3, 0.4]
    assert list(found)[:2] == ["a/b__", "a/b___2"]
    assert all(len(name) <= 250 for name in found)


@pytest.mark.slow
@needs("tensorboard")
def test_tensorboard(report: Report, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second replaces the first
        assert send(report, "tensorboard=events") == [str(Path("events") / "run")]
    accumulator = EventAccumulator("events/run")
    accumulator.Reload()
    tags = accumulator.Tags()
    expected = tracked(report).metrics
    assert len(tags["scalars"]) == len(expected)
    (clean,) = accumulator.Scalars("plain second/undefended/clean")
    assert clean.value == pytest.approx(expected["plain second", "undefended", "clean"])
    assert clean.step == 0
    assert tags["images"] == ["pictures/1-heatmap"]
    assert {"config/text_summary", "verdicts/text_summary"} <= set(tags["tensors"])
    assert Report.from_json(Path("events/run/report.json")) == report
    assert "<h1>" in Path("events/run/report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@needs("mlflow")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # MLflow's own, about stores in directories
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    (where,) = send({"one": report, "two": report}, "mlflow=./store")
    assert "MLFLOW_ALLOW_FILE_STORE" not in os.environ
    assert "'one'" in where
    assert "'two'" in where
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri=(tmp_path / "store").as_uri())
    experiment = client.get_experiment_by_name("freqrobust")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"one", "two"}
    run = runs["one"]
    expected = tracked(report)
    assert run.info.status == "FINISHED"
    assert len(run.data.metrics) == len(expected.metrics)
    assert run.data.metrics["plain second/undefended/lfc:radius_2"] == pytest.approx(
        expected.metrics["plain second", "undefended", "lfc:radius=2"]
    )
    assert run.data.params["data.sha256"] == report.data.sha256
    assert run.data.tags["gate"] == "failed"
    listed = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert listed == {"report.json", "report.html", "pictures"}
    path = client.download_artifacts(run.info.run_id, "report.json", str(tmp_path))
    assert Report.from_json(Path(path)) == report


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_without_a_database_says_what_works(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("sqlalchemy") is not None:
        pytest.skip("the database is installed")
    with pytest.raises(SpecError, match=r"needs sqlalchemy.*or name a directory as in mlflow=\./mlruns"):
        send(report, "mlflow=robustness")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    with pytest.raises(SpecError, match="needs sqlalchemy"):  # every target is an experiment then
        send(report, "mlflow=./store")
    assert list(Path().iterdir()) == []


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: a log in blocks of 32 KiB, of parts with checksum, size and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        parts, at = parts + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.mark.slow
@needs("wandb")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb(report: Report) -> None:
    import wandb

    wandb.teardown()  # where another test used it in this process, it keeps that one's directory
    (where,) = send(report, "wandb=project/name")
    wandb.teardown()  # ends wandb's own process, which writes the file
    assert where.startswith("wandb project 'project', run 'name' ('wandb sync ")
    (path,) = Path("wandb").glob("offline-run-*/*.wandb")
    found: dict[str, list[Any]] = {}
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        found.setdefault(kind, []).append(getattr(record, kind))
    run = found["run"][0]
    assert (run.project, run.display_name) == ("project", "name")
    assert {"gate: failed", "verdict plain second + lowpass:plain: overestimated"} <= set(run.tags)
    config = {one.key: json.loads(one.value_json) for one in run.config.update}
    assert config["data.sha256"] == report.data.sha256
    (history,) = found["history"]
    logged = {"/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in history.item}
    for name, value in tracked(report).metrics.items():
        assert logged["/".join(name)] == pytest.approx(value), name
    assert {"report", "pictures/1-heatmap"} <= {name.rpartition("/")[0] for name in logged}
    (artifact,) = found["artifact"]
    assert {one.path for one in artifact.manifest.contents} == {"report.json", "report.html", "1-heatmap.png"}
    assert found["exit"][0].exit_code == 0


@needs("wandb")
@pytest.mark.slow
def test_wandb_without_a_login_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda **options: False)
    with pytest.raises(
        SpecError, match="not logged in: run 'wandb login', set WANDB_API_KEY, or set WANDB_MODE=offline"
    ):
        rendering.check_outputs(rendering.parse_outputs(["wandb=project"], "--report"), "--report")


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_said_with_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "find_spec", lambda module: None)
    outputs = rendering.parse_outputs([f"{name}=place"], "--report")
    (module,) = reports.get(name).requires
    with pytest.raises(SpecError, match=rf"needs {module}, .*pip install 'freqrobust\[{name}\]'"):
        rendering.check_outputs(outputs, "--report")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("wandb", r"should be FILE or REPORT=PROJECT\[/RUN\]"),
        ("wandb=a/b/c", "should be PROJECT or PROJECT/RUN"),
        ("wandb=a:b", "without the characters"),
        ("mlflow= ", "needs the name of an experiment"),
        ("mlflow:server=a=b", "unknown parameter|has no parameter"),
        ("tensorboard", "tensorboard=DIR"),
    ],
)
def test_wrong_targets(wanted: str, message: str) -> None:
    with pytest.raises(FreqRobustError, match=message):
        rendering.check_outputs(rendering.parse_outputs([wanted], "--report"), "--report")


def test_a_directory_that_cannot_be_written() -> None:
    Path("file").write_text("")
    for wanted in ("tensorboard=file", "mlflow=./file"):
        with pytest.raises(JournalError, match="cannot write"):
            rendering.check_outputs(rendering.parse_outputs([wanted], "--report"), "--report")


def test_files_are_written_where_a_tracker_fails(report: Report) -> None:
    Path("broken.py").write_text(
        "from freqrobust.results.reporter import Publisher\n\n\nclass Broken(Publisher):\n"
        "    def render(self, report, target):\n        target.write('x')\n\n"
        "    def publish(self, reports, target):\n        raise ConnectionError('no answer')\n"
    )
    outputs = rendering.parse_outputs(["broken.py:Broken=server", "json=out.json", "markdown=out.md"], "--report")
    rendering.check_outputs(outputs, "--report")
    with pytest.raises(PluginError, match=r"no answer; the measured report is kept, try again: freqrobust report RUN "):
        rendering.write_outputs(outputs, {"run": report})
    assert Report.from_json(Path("out.json")) == report
    assert Path("out.md").exists()


def test_the_same_place_twice_is_refused() -> None:
    outputs = rendering.parse_outputs(["tensorboard=a", "tensorboard=a"], "--report")
    with pytest.raises(SpecError, match="tensorboard=a is given twice"):
        rendering.check_outputs(outputs, "--report")
