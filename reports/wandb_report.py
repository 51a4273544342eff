"""Reports as runs of Weights & Biases."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.core.errors import SpecError
from freqrobust.core.text import one_line
from freqrobust.reports._tracking import Tracker, legal_names, tracked, write_files

if TYPE_CHECKING:
    from freqrobust.results.report import Report

#: Characters of a tag, at most.
_LONGEST = 64
_NAME = re.compile(r"[^/\\#?%:\s][^/\\#?%:]{0,127}")


class WandB(Tracker):
    """A run of Weights & Biases per report: accuracies with intervals, conditions, verdicts and files; the target is PROJECT[/RUN]."""

    requires: ClassVar[Mapping[str, str]] = {"wandb": "freqrobust[wandb]"}
    place: ClassVar[str] = "PROJECT[/RUN]"

    def check_target(self, target: str) -> None:
        project, slash, run = target.partition("/")
        if not _NAME.fullmatch(project) or (slash and not _NAME.fullmatch(run)):
            raise SpecError(
                f"wandb should be PROJECT or PROJECT/RUN, without the characters / \\ # ? % : in a name, but got {target!r}"
            )
        if os.environ.get("WANDB_MODE", "online") in ("online", "shared"):
            import wandb

            if not wandb.login(prompt=False):
                raise SpecError(
                    "wandb is not logged in: run 'wandb login', set WANDB_API_KEY, or set WANDB_MODE=offline"
                )

    def send(self, name: str, report: Report, target: str) -> str:
        import wandb

        project, _, run_name = target.partition("/")
        what = tracked(report)
        run = wandb.init(
            project=project,
            name=run_name or name,
            job_type="robustness",
            config=what.params,
            tags=_tags(what.tags),
            settings=wandb.Settings(silent=True, console="off"),
            reinit="create_new",
        )
        code = 1
        try:
            with tempfile.TemporaryDirectory() as folder:
                _log(run, legal_names(what.metrics, one_line), write_files(report, Path(folder)))
            for tag, value in what.tags.items():
                run.summary[tag] = value
            code = 0
        finally:
            run.finish(exit_code=code)
        where = f"'wandb sync {Path(run.dir).parent}' uploads it" if run.offline else run.url
        return f"wandb project {project!r}, run {run.name!r}{f' ({where})' if where else ''}"


def _log(run: Any, metrics: dict[str, float], files: dict[str, Path]) -> None:
    import wandb

    media: dict[str, Any] = {}
    artifact = wandb.Artifact(f"report-{run.id}", type="robustness-report")
    for name, path in files.items():
        artifact.add_file(str(path), name=path.name)
        if path.suffix == ".png":
            media[f"pictures/{name}"] = wandb.Image(str(path))
        elif path.suffix == ".html":
            media["report"] = wandb.Html(path.read_text(encoding="utf-8"), inject=False)
    run.log({**metrics, **media}, step=0)
    run.log_artifact(artifact)


def _tags(values: Mapping[str, str]) -> list[str]:
    """The verdicts and what else is no number, without what is different in every run."""
    kept = (f"{key}: {value}" for key, value in values.items() if key != "created")
    return list(dict.fromkeys(one_line(text)[:_LONGEST] for text in kept))
