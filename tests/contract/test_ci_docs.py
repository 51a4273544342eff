"""docs/ci.md shows what ``freqrobust init`` writes, and its commands and code are what they seem."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from freqrobust.cli import gate, init, main
from freqrobust.core.commands import COMMANDS
from freqrobust.gate.project import read_project

pytest_plugins = ["pytester"]

DOC = Path(__file__).parents[2] / "docs" / "ci.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_workflows_are_those_that_init_writes() -> None:
    assert blocks("yaml") == [init.workflow("github"), init.workflow("gitlab")]


def test_the_project_file_is_the_one_that_init_writes() -> None:
    assert blocks("toml") == [init.project_text("demo", "none", "digits")]


def test_what_is_commented_out_in_the_project_file_works_too(tmp_path: Path) -> None:
    """Each key that is shown as a comment is one that there is."""
    text = re.sub(
        r"^# (?=\[|[\w-]+ = |\"[^\"]+\" = )", "", init.project_text("demo", "none", "digits"), flags=re.MULTILINE
    )
    (tmp_path / "freqrobust.toml").write_text(text)
    project = read_project(tmp_path / "freqrobust.toml")
    assert project.eval.limit == 500
    assert project.eval.arch == ["resnet20"]
    assert project.eval.defenses == ["smooth:rho=0.1"]
    assert project.gate.confident
    assert project.gate.max_drops == {"clean": 0.005}
    assert [threshold.text for threshold in project.required] == ["clean>=0.9", "pgd:eps=2/255>=0.45"]


def commands(text: str) -> list[list[str]]:
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("freqrobust ")]


def workflow_commands() -> list[list[str]]:
    github = yaml.safe_load(init.workflow("github"))["jobs"]["robustness"]["steps"]
    gitlab = yaml.safe_load(init.workflow("gitlab"))["robustness"]["script"]
    return commands("\n".join([*(step.get("run", "") for step in github), *gitlab]))


@pytest.mark.parametrize("arguments", [*commands("\n".join(blocks("sh"))), *workflow_commands()], ids=" ".join)
def test_every_command_is_understood(arguments: list[str]) -> None:
    """Every command exists and has the options that it is given."""
    if arguments[0] in COMMANDS:
        known = COMMANDS[arguments[0]].flags()
    else:
        function: Any = main.report_ if arguments[0] == "report" else getattr(gate, arguments[0])
        known = {f"--{name.replace('_', '-')}" for name in inspect.signature(function).parameters}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_workflows_have_what_their_systems_ask_for() -> None:
    github = yaml.safe_load(init.workflow("github"))
    assert set(github) == {"name", True, "jobs"}  # YAML reads "on" as true
    job = github["jobs"]["robustness"]
    assert set(job) == {"runs-on", "timeout-minutes", "steps"}
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    gitlab = yaml.safe_load(init.workflow("gitlab"))["robustness"]
    assert gitlab["artifacts"]["reports"]["junit"] == "robustness.xml"
    assert workflow_commands()[0] == workflow_commands()[1]


#: What the example takes for granted: a model and images that it has right.
GIVEN = """
import os, torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
images = torch.rand(100, 1, 8, 8)
with torch.no_grad():
    labels = model(images).argmax(1)
    model[1].weight += float(os.environ.get("NOISE", "0")) * torch.randn(4, 64)
"""


@pytest.mark.slow
def test_the_pytest_example_does_what_it_says(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes a baseline, passes against it, and fails for each of its two reasons."""
    (example,) = blocks("python")
    pytester.makepyfile(test_example=GIVEN + example)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(noise: str, *options: str) -> pytest.RunResult:
        monkeypatch.setenv("NOISE", noise)
        return pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:cacheprovider", *options)

    run("0", "--freqrobust-update-baselines").assert_outcomes(passed=1)
    assert (pytester.path / "baseline.json").is_file()
    run("0").assert_outcomes(passed=1)
    worse = run("0.02")
    worse.assert_outcomes(failed=1)
    worse.stdout.fnmatch_lines(["*Changes from the baseline baseline.json*", "*gate failed*"])
    wrong = run("1")
    wrong.assert_outcomes(failed=1)
    wrong.stdout.fnmatch_lines(["*Thresholds*", "*pgd*failed*45*"])


def test_links_lead_somewhere() -> None:
    for name in ("ci.md", "statistics.md"):
        text = (DOC.parent / name).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (DOC.parent / link).exists(), link
