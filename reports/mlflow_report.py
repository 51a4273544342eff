"""Reports as runs of MLflow."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from freqrobust.core.errors import SpecError
from freqrobust.core.text import shortened
from freqrobust.reports._tracking import Tracker, legal_names, tracked, write_files

if TYPE_CHECKING:
    from freqrobust.results.report import Report

#: The experiment in a directory that is given as the target.
EXPERIMENT = "freqrobust"
#: Metrics, parameters and tags in one request, and characters of a value; servers refuse more.
_METRICS, _OTHERS, _LONGEST = 1000, 100, 500
#: Stores that need sqlalchemy.
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
#: What lets later versions of MLflow use a directory as the store.
_ALLOW = "MLFLOW_ALLOW_FILE_STORE"


class MLflow(Tracker):
    """A run of MLflow per report: accuracies with intervals, conditions, verdicts and files; the target is an experiment, or a directory."""

    requires: ClassVar[Mapping[str, str]] = {"mlflow": "freqrobust[mlflow]"}
    place: ClassVar[str] = "EXPERIMENT"

    uri: str | None = Field(
        None,
        description="the tracking server or store (default: MLFLOW_TRACKING_URI, or a directory that is the target)",
    )

    def check_target(self, target: str) -> None:
        from freqrobust.core.files import check_writable

        folder, experiment = self._place(target)
        if folder is not None:
            check_writable(folder / "freqrobust", target)
        elif not experiment.strip():
            raise SpecError("mlflow needs the name of an experiment, for example mlflow=robustness")
        else:
            _check_database(self.uri)

    def _place(self, target: str) -> tuple[Path | None, str]:
        """The directory of a store, and the experiment. Where a server is given, every target is an experiment."""
        from freqrobust.core.files import user_path

        if self.uri is None and "MLFLOW_TRACKING_URI" not in os.environ:
            path = user_path(target, "the directory of MLflow")
            if target.startswith((".", "/", "~")) or target.endswith(("/", os.sep)) or path.is_dir():
                return path.resolve(), EXPERIMENT
        return None, target

    def send(self, name: str, report: Report, target: str) -> str:
        from mlflow import MlflowClient

        folder, experiment = self._place(target)
        uri = folder.as_uri() if folder is not None else self.uri
        with _file_store(allowed=folder is not None):
            client = MlflowClient(tracking_uri=uri)
            found = client.get_experiment_by_name(experiment)
            number = found.experiment_id if found is not None else client.create_experiment(experiment)
            run = client.create_run(number, run_name=name)
            status = "FAILED"
            try:
                _log(client, run.info.run_id, report)
                status = "FINISHED"
            finally:
                client.set_terminated(run.info.run_id, status)
        return f"MLflow experiment {experiment!r}, run {name!r} ({run.info.run_id}){f' in {target}' if folder else ''}"


def _log(client: Any, run: str, report: Report) -> None:
    from mlflow.entities import Metric, Param, RunTag

    what = tracked(report)
    metrics = [Metric(key, value, 0, 0) for key, value in legal_names(what.metrics, _legal).items()]
    params = [Param(_legal(key), shortened(value, _LONGEST)) for key, value in what.params.items()]
    tags = [RunTag(_legal(key), shortened(value, _LONGEST)) for key, value in what.tags.items()]
    for start in range(0, len(metrics), _METRICS):
        client.log_batch(run, metrics=metrics[start : start + _METRICS])
    for start in range(0, max(len(params), len(tags)), _OTHERS):
        client.log_batch(run, params=params[start : start + _OTHERS], tags=tags[start : start + _OTHERS])
    with tempfile.TemporaryDirectory() as folder:
        for path in write_files(report, Path(folder)).values():
            client.log_artifact(run, str(path), "pictures" if path.parent.name == "pictures" else None)


def _legal(part: str) -> str:
    """Letters, digits and ``_ - . : space``; slashes separate the parts of a name, so that they are replaced in parts."""
    return re.sub(r"[^-A-Za-z0-9_.: ]", "_", part).strip(". ")[:120] or "_"


@contextmanager
def _file_store(allowed: bool) -> Iterator[None]:
    """MLflow refuses stores in directories, which it no longer develops, unless they are asked for as here."""
    before = os.environ.get(_ALLOW)
    if allowed:
        os.environ[_ALLOW] = "true"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_ALLOW, None)
        else:
            os.environ[_ALLOW] = before


def _check_database(uri: str | None) -> None:
    """Refuse a database, which is also what MLflow uses by default, where mlflow-skinny is installed alone.

    Raises:
        SpecError: the packages are missing.
    """
    if find_spec("sqlalchemy") is not None:
        return
    if uri is None:
        import mlflow

        uri = mlflow.get_tracking_uri()
    if uri.partition(":")[0].partition("+")[0] in _DATABASES:
        raise SpecError(
            f"MLflow's store {uri.partition(':')[0]} needs sqlalchemy, which mlflow-skinny does not install: pip install mlflow, "
            "set MLFLOW_TRACKING_URI to a server, or name a directory as in mlflow=./mlruns"
        )
