"""The scripts of docs/scaling.md do what the page says: what they call is recorded, and then called with the demo."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command import Result
from support.sharing import in_blocks_of, without_times

Command = Callable[..., Result]
DOC = Path(__file__).parents[2] / "docs" / "scaling.md"
#: What the page evaluates, and what is evaluated here instead: the demo.
SHOWN = ["--model", "resnet20.th", "--data", "test.npz"]
DEMO = ["--first", "30", "--attack", "fgsm:eps=[0.05,0.1]", "--attack", "lfc:radius=2", "--defense", "smooth"]
DEMO += ["--cache-dir", "cache"]
#: Writes its arguments to a file.
RECORDER = '#!/bin/sh\nprintf "%s\\n" "$@" >> "$RECORD"\n'


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)


def workflow() -> dict[str, Any]:
    return next(one for one in map(yaml.safe_load, blocks("yaml")) if "jobs" in one)


def indexed_job() -> dict[str, Any]:
    return next(one for one in map(yaml.safe_load, blocks("yaml")) if one.get("kind") == "Job")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, cache: Path, demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with the demo, and small blocks."""
    shutil.copytree(cache / "models", tmp_path / "cache" / "models")
    monkeypatch.chdir(tmp_path)
    in_blocks_of(monkeypatch, 10)


@pytest.fixture
def called(tmp_path: Path) -> Callable[..., list[str]]:
    """``called(words, **environment)``: with which arguments a program of the page calls freqrobust."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "freqrobust"
    program.write_text(RECORDER)
    program.chmod(0o755)

    def run(words: list[str], **environment: str) -> list[str]:
        record = tmp_path / "record"
        record.unlink(missing_ok=True)
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            words, env={"PATH": path, "RECORD": str(record), **environment}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return record.read_text().splitlines()

    return run


def of_demo(arguments: list[str], folder: str) -> list[str]:
    """The same call with the demo, in another run directory."""
    text = shlex.join(arguments)
    assert shlex.join(SHOWN) in text
    assert "runs/robustness" in text
    return shlex.split(text.replace(shlex.join(SHOWN), shlex.join(DEMO)).replace("runs/robustness", folder))


@pytest.fixture
def expected(command: Command) -> Any:
    """The report of one process."""
    assert command("eval", *DEMO, "--run-dir", "alone").code == 0
    return content(Path("alone"))


def content(run_dir: Path) -> Any:
    return without_times(json.loads((run_dir / "report.json").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_the_commands_of_the_page_do_what_it_says(command: Command) -> None:
    (page,) = [block for block in blocks("sh") if "--shard 1/2" in block]
    first, second, merge = [shlex.split(line)[1:] for line in page.splitlines()]
    assert command(*first).code == 0
    missing = command(*merge)
    assert missing.code == 2
    (shown,) = [block.strip() for block in blocks("text") if "was not started" in block]
    pattern = re.sub(r"\d+ of \d+ tasks are", r"\\d+ of \\d+ tasks? (is|are)", re.escape(shown).replace(r"\ ", " "))
    assert re.search(pattern, missing.err), missing.err
    assert command(*second).code == 0
    assert command(*merge).code == 0


@pytest.mark.slow
def test_the_slurm_array_measures_all_shards(command: Command, called: Any, expected: Any, tmp_path: Path) -> None:
    (text,) = blocks("bash")
    script = tmp_path / "shards.sh"
    script.write_text(text)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    first, last = map(int, re.search(r"^#SBATCH --array=(\d+)-(\d+)$", text, re.MULTILINE).groups())
    for number in range(first, last + 1):
        arguments = called(["bash", str(script)], SLURM_ARRAY_TASK_ID=f"{number}", SLURM_CPUS_PER_TASK="1")
        assert command(*of_demo(arguments, "shared")).code == 0
    # a shard that is submitted again, in an array of one
    again = called(["bash", str(script)], SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_TASK_COUNT="1")
    assert again[-1] == f"3/{last}"
    (submit,) = [block for block in blocks("sh") if "sbatch" in block]
    (wrapped,) = re.findall(r'--wrap "freqrobust ([^"]+)"', submit)
    assert command(*shlex.split(wrapped.replace("runs/robustness", "shared"))).code == 0
    assert content(Path("shared")) == expected


def test_the_workflow_measures_all_shards_on_machines_of_their_own(command: Command, expected: Any) -> None:
    jobs = workflow()["jobs"]
    numbers = jobs["shard"]["strategy"]["matrix"]["shard"]
    assert jobs["merge"]["needs"] == "shard"
    for job in jobs.values():
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    (measure,) = commands(jobs["shard"])
    (merge,) = commands(jobs["merge"])
    (upload,) = [step["with"] for step in jobs["shard"]["steps"] if "upload-artifact" in step.get("uses", "")]
    (download,) = [step["with"] for step in jobs["merge"]["steps"] if "download-artifact" in step.get("uses", "")]
    assert download["merge-multiple"] is True
    assert download["path"] == upload["path"] == "runs/robustness"
    assert re.fullmatch(download["pattern"].replace("*", ".*"), upload["name"])
    for number in reversed(numbers):
        line = measure.replace("${{ matrix.shard }}", f"{number}")
        assert command(*of_demo(shlex.split(line)[1:], f"machine-{number}")).code == 0
    for number in numbers:
        shutil.copytree(f"machine-{number}", "shared", dirs_exist_ok=True)
    assert command(*shlex.split(merge.replace("runs/robustness", "shared"))[1:]).code == 0
    assert content(Path("shared")) == expected
    assert Path("robustness.json").exists()


def commands(job: dict[str, Any]) -> list[str]:
    """The calls of freqrobust in the steps of a job."""
    return [step["run"] for step in job["steps"] if step.get("run", "").startswith("freqrobust ")]


def test_the_indexed_job_measures_all_shards(command: Command, called: Any, expected: Any) -> None:
    job = indexed_job()
    assert job["apiVersion"] == "batch/v1"
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] in ("Never", "OnFailure")
    (container,) = pod["containers"]
    mounts, volumes = ({one["name"] for one in part} for part in (container["volumeMounts"], pod["volumes"]))
    assert mounts == volumes
    for index in range(spec["completions"]):
        arguments = called([*container["command"], *container["args"]], JOB_COMPLETION_INDEX=f"{index}")
        assert command(*of_demo(arguments, "shared")).code == 0
    assert command("merge", "shared").code == 0
    assert content(Path("shared")) == expected


def test_the_page_says_how_large_blocks_are() -> None:
    from freqrobust.harness import blocks as module

    text = DOC.read_text(encoding="utf-8")
    assert f"{module._ACCELERATOR:,} on other devices" in text
    assert f"{module.MOST} blocks" in text
