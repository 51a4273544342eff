"""``rerun``: a report contains what reproduces it, and what has changed since is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from freqrobust import evaluate
from freqrobust.core.command_config import AnalyzeCommand, EvalCommand
from freqrobust.data.loading import load_data
from freqrobust.models.architectures import SmallCNN
from support.command import Result

Command = Callable[..., Result]
OPTIONS = ["--defense", "smooth", "--rho", "0.5", "--attack", "fgsm:eps=0.1", "--limit", "30", "--seed", "3", "--quiet"]


@pytest.fixture
def evaluated(base: list[str], command: Command, workspace: Path) -> Path:
    """A report, whose model and data are in the working folder."""
    for number, name in ((2, "net.pt"), (4, "data.npz")):
        shutil.copy(base[number], workspace / name)
    options = ["--model", "net.pt", "--data", "data.npz", *OPTIONS]
    assert command("eval", *options, "--json", "report.json").code == 0
    return workspace / "report.json"


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_options_of_a_report_are_those_of_its_run(evaluated: Path, command: Command, workspace: Path) -> None:
    (first,) = (workspace / "runs").iterdir()
    config = json.loads(evaluated.read_text())["config"]
    from freqrobust.cli import eval

    assert eval.execute(EvalCommand(**config, quiet=True)) == 0
    assert list((workspace / "runs").iterdir()) == [first]


def test_a_report_of_the_demo_contains_its_run(command: Command, workspace: Path) -> None:
    from freqrobust.cli import eval

    assert command("eval", "--attack", "lfc:radius=3", "--limit", "20", "--json", "report.json", "--quiet").code == 0
    config = json.loads(Path("report.json").read_text())["config"]
    assert eval.execute(EvalCommand(**config, quiet=True)) == 0
    assert len(list((workspace / "runs").iterdir())) == 1


def test_an_identical_report(evaluated: Path, command: Command, workspace: Path) -> None:
    result = command("rerun", "report.json", "--batch-size", "7", "--json", "new.json")
    assert result.code == 0, result.err
    assert result.err.startswith("rerunning report.json\n")
    assert "\nidentical: 5 cells, all results are those of report.json\n" in result.out
    new = json.loads(Path("new.json").read_text())
    old = json.loads(evaluated.read_text())
    assert [cell["outcomes"] for cell in new["cells"]] == [cell["outcomes"] for cell in old["cells"]]
    reruns = list((workspace / "runs").glob("rerun-*"))
    assert len(reruns) == 1
    again = command("rerun", "report.json", "--batch-size", "7", "--quiet")
    assert (again.code, again.out, again.err) == (0, "", "")
    assert list((workspace / "runs").glob("rerun-*")) == reruns


def test_it_measures_and_does_not_read_the_journal(evaluated: Path, command: Command, monkeypatch: Any) -> None:
    from freqrobust.harness.journal import Journal

    def refuse(self: Journal, key: str) -> None:
        assert self.root is not None
        assert not list((self.root / "cells").glob(f"{key}.json"))

    monkeypatch.setattr(Journal, "load", refuse)
    for _ in range(2):
        assert command("rerun", "report.json", "--quiet").code == 0


def test_other_numbers_are_listed(evaluated: Path, command: Command) -> None:
    def change(report: dict[str, Any]) -> None:
        cell = report["cells"][0]
        assert cell["correct"] > 0
        from freqrobust.results.outcomes import pack, unpack

        right = unpack(cell["outcomes"], cell["n"])
        right[right.argmax()] = False
        cell["outcomes"], cell["correct"] = pack(right), cell["correct"] - 1
        del cell["accuracy"], cell["ci95"]
        report["cells"].pop()
        report["diagnostics"][0]["verdict"] = "not meaningful"
        report["environment"]["torch"] = "1.0"

    edit(evaluated, change)
    result = command("rerun", "report.json", "--quiet")
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[0] == "different: 3 results of report.json"
    assert lines[1].endswith(": it is new")
    assert lines[2].startswith("  undefended / clean: ")
    assert lines[2].endswith("; 1 sample has another outcome")
    assert "instead of not meaningful" in lines[3]
    assert lines[4] == f"made with torch {torch.__version__} instead of 1.0"
    assert result.error == "freqrobust: exit code 1: 3 results of report.json differ"


def test_another_model_or_other_data_is_refused(evaluated: Path, base: list[str], command: Command) -> None:
    content = torch.load("net.pt", weights_only=True)
    torch.save(content, "other.pt")  # other bytes, the same weights
    refused = command("rerun", "report.json", "--model", "other.pt", "--quiet")
    assert refused.code == 2
    assert "the model is not that of report.json: net.pt has the hash " in refused.error
    refused = command("rerun", "report.json", "--data", "digits", "--quiet")
    assert refused.code == 2
    assert "the data is not that of report.json: data.npz has the hash " in refused.error
    Path("net.pt").rename("moved.pt")
    refused = command("rerun", "report.json", "--quiet")
    assert (refused.code, "net.pt" in refused.error) == (2, True)
    assert command("rerun", "report.json", "--model", "moved.pt", "--quiet").code == 0


def test_an_analysis(trained: Path, command: Command) -> None:
    made = command("analyze", "heatmap", "--norm", "0.5", "--model", trained, "--data", "digits", "--limit", "20",
                   "--json", "a.json", "--quiet")  # fmt: skip
    assert made.code == 0, made.err
    config = json.loads(Path("a.json").read_text())["config"]
    assert AnalyzeCommand(**config).analysis == "heatmap:norm=0.5"
    result = command("rerun", "a.json")
    assert (result.code, result.out.splitlines(True)[-1]) == (
        0,
        "identical: the analysis, all results are those of a.json\n",
    )
    edit(Path("a.json"), lambda record: record["results"][0].update(sentence="other"))
    result = command("rerun", "a.json", "--quiet")
    assert result.code == 1
    assert "result 1, sentence: " in result.out


@pytest.mark.slow
def test_a_training(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freqrobust.experiments.train.can_draw", lambda: False)
    options = ["--epochs", "1", "--first", "60", "--set", "batch-size=32", "--quiet"]
    assert command("train", *options, "--json", "t.json").code == 0
    result = command("rerun", "t.json")
    assert (result.code, result.out.splitlines(True)[-1]) == (
        0,
        "identical: 1 epoch, all results are those of t.json\n",
    )
    edit(Path("t.json"), lambda record: record["epochs"][0].update(loss=9.0))
    result = command("rerun", "t.json", "--quiet")
    assert result.code == 1
    assert "epoch 1, loss: " in result.out
    assert "has no --model" in command("rerun", "t.json", "--model", "x.pt").error


def test_objects_of_python_are_refused(rejected: Callable[..., str], command: Command, digits: Path) -> None:
    data = load_data("digits", first=20)
    torch.manual_seed(0)
    report = evaluate(SmallCNN(num_classes=10, in_channels=1), data, attacks=["clean"], device="cpu")
    report.to_json("python.json")
    assert "made from an object in Python (model: SmallCNN)" in rejected("rerun", "python.json")
    edit(Path("python.json"), lambda content: content.update(config={}))
    assert "does not contain its options" in rejected("rerun", "python.json")


def wrong(name: str, change: Callable[[dict[str, Any]], None]) -> Any:
    return pytest.param(change, id=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r["config"].update(unknown=1),
            "its options are not those of this version: unknown option 'unknown'",
        ),
        (lambda r: r["config"].update(limit="x"), "its options are not those of this version: --limit"),
        (lambda r: r["warnings"].append({"code": "sequential", "message": "m"}), "which stopped early"),
        (lambda r: r.update(trends=[], spec="wang-fig3"), "'freqrobust reproduce wang-fig3' runs it again"),
        (lambda r: r.update(schema_version=99), "newer freqrobust"),
    ],
)
def test_reports_that_cannot_be_measured_again(
    change: Callable[[dict[str, Any]], None], message: str, evaluated: Path, rejected: Callable[..., str]
) -> None:
    edit(evaluated, change)
    assert message in rejected("rerun", "report.json")


def test_trust_is_given_anew(evaluated: Path, command: Command, rejected: Callable[..., str]) -> None:
    network = SmallCNN(num_classes=10, in_channels=1)
    torch.save(network, "net.pt")  # a pickle, which can run code
    edit(evaluated, lambda report: report["config"].update(trust_checkpoint=True))
    assert "trust" in rejected("rerun", "report.json")


def test_wrong_input(rejected: Callable[..., str], write: Callable[[str, str], str], evaluated: Path) -> None:
    write("broken.json", "{")
    write("list.json", "[]")
    assert "missing.json does not exist" in rejected("rerun", "missing.json")
    assert "broken.json is not JSON" in rejected("rerun", "broken.json")
    assert "expected a report of schema version" in rejected("rerun", "list.json")
    assert "no such option" in rejected("rerun", "report.json", "--limit", "3")
    assert "--run-dir runs is not empty" in rejected("rerun", "report.json", "--run-dir", "runs")
    assert "device" in rejected("rerun", "report.json", "--device", "toaster")
