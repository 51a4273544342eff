"""``compare`` and ``check`` in Python: what the commands do, without what they print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from freqrobust import CheckResult, FreqRobustError, Report, check, compare, evaluate
from support.networks import tiny

NETS = """
import torch
from support.networks import Tiny


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tiny().eval()


def noisy():
    model = net()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(model.linear.weight)
    return model


def data():
    from support.networks import tiny

    return tiny(n=40)[1].images, tiny(n=40)[1].labels
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a project file; the tests work in another folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path / "elsewhere")

    def write(model: str = "net", gate: str = 'baseline = "baseline.json"', thresholds: str = "clean = 0.9") -> Path:
        path = tmp_path / "project" / "freqrobust.toml"
        lines = ["[eval]", f'model = "nets.py:{model}"', 'data = "nets.py:data"', 'attacks = ["fgsm:eps=0.01"]']
        lines += ['device = "cpu"', "[gate]", gate, "[thresholds]", thresholds]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def test_a_project_is_checked(project: Callable[..., Path], command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project()
    here = Path.cwd()
    first = check(path, update_baseline=True)
    assert isinstance(first, CheckResult)
    assert (first.passed, first.project, first.baseline) == (True, path, path.parent / "baseline.json")
    assert [row.passed for row in first.gate.thresholds] == [True]
    assert Report.from_json(path.parent / "baseline.json").gate is None
    again = check(path.parent, batch_size=7)
    assert again.passed
    assert again.baseline is None
    assert again.gate.comparison is not None
    assert (again.gate.comparison.passed, again.report.config["batch_size"]) == (True, 7)
    project("noisy")
    worse = check(path)
    assert not worse.passed
    assert worse.gate.comparison is not None
    assert not worse.gate.comparison.passed
    assert Path.cwd() == here
    assert sorted(p.name for p in path.parent.iterdir() if p.suffix) == ["baseline.json", "freqrobust.toml", "nets.py"]
    monkeypatch.chdir(path.parent)  # the command says the same
    done = command("check", "--json", "new.json")
    assert done.code == 1
    assert Report.from_json("new.json").gate == worse.gate
    assert compare("baseline.json", "new.json") == worse.gate.comparison


def test_a_sequential_check(project: Callable[..., Path]) -> None:
    result = check(project(gate=""), sequential=True)
    assert result.passed
    assert result.gate.comparison is None
    assert result.gate.thresholds[0].sequential is not None
    assert not check(project("noisy", gate=""), sequential=True).passed


@pytest.mark.parametrize(
    ("gate", "thresholds", "options", "message"),
    [
        ('baseline = "b.json"', "", {}, "there is no baseline b.json"),
        ("", "", {}, "neither a baseline nor"),
        ("", "clean = 0.9", {"update_baseline": True}, "names no baseline to update"),
        ("", "cleen = 0.9", {}, "cleen"),
        ("", "clean = 0.9", {"batch_size": 0}, "batch_size should be auto or at least 1, but got 0"),
        ("", "clean = 0.9", {"device": "tpu"}, "unknown device 'tpu'"),
        ("", "clean = 0.9", {"progress": 3}, "progress should be True, False"),
        ("", "clean = 0.9", {"project": "nowhere"}, "there is no .*nowhere; freqrobust init writes one"),
        ("", "clean = 0.9", {"project": 3}, "project"),
    ],
)
def test_a_wrong_check_is_one_line(
    project: Callable[..., Path], gate: str, thresholds: str, options: dict[str, Any], message: str
) -> None:
    path = project(gate=gate, thresholds=thresholds)
    with pytest.raises(FreqRobustError, match=message) as error:
        check(**{"project": path, **options})
    assert "\n" not in str(error.value)


def test_no_project(project: Callable[..., Path]) -> None:
    with pytest.raises(FreqRobustError, match=r"there is no freqrobust\.toml in .* or above it"):
        check()


@pytest.fixture(scope="module")
def reports() -> tuple[Report, Report]:
    """Of a network and of the same with noise."""
    network, data = tiny(n=40)
    options: Any = {"attacks": ["fgsm:eps=0.01"], "diagnose": None, "device": "cpu"}
    old = evaluate(network, data, **options)
    torch.manual_seed(0)
    torch.nn.init.normal_(network.linear.weight)  # type: ignore[union-attr, arg-type]
    return old, evaluate(network, data, **options)


def test_reports_and_files_are_compared(reports: tuple[Report, Report], tmp_path: Path) -> None:
    old, new = reports
    comparison = compare(old, new)
    assert (comparison.passed, comparison.baseline) == (False, "baseline")
    assert compare(old, old).passed
    assert compare(old, new, cells="clean", max_drop=1).passed
    assert compare(old, new, cells=["clean"], max_drop="99/100").passed
    assert not compare(old, new, cells="clean", max_drops={"fgsm": 0.5}, max_drop=1).passed
    old.to_json(tmp_path / "old.json")
    of_file = compare(tmp_path / "old.json", new)
    assert [row.measured for row in of_file.rows] == [row.measured for row in comparison.rows]
    assert of_file.baseline == str(tmp_path / "old.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": 3}, "baseline should be a Report or the path of its JSON file, but got int"),
        ({"new": None}, "new should be a Report or the path of its JSON file, but got NoneType"),
        ({"new": "nowhere.json"}, "nowhere.json"),
        ({"alpha": 2.0}, "alpha should be between 0 and 1, but got 2"),
        ({"alpha": "x"}, "alpha should be a valid number, but got 'x'"),
        ({"max_drop": 5}, "max-drop should be a share in .0, 1., but got 5; did you mean 0.05"),
        ({"max_drops": {"nothing": 0.1}}, "nothing"),
        ({"cells": "nothing"}, "nothing"),
        ({"strict": "yes"}, "strict should be a valid boolean"),
    ],
)
def test_a_wrong_comparison_is_one_line(reports: tuple[Report, Report], options: dict[str, Any], message: str) -> None:
    with pytest.raises(FreqRobustError, match=message) as error:
        compare(**{"baseline": reports[0], "new": reports[1], **options})
    assert "\n" not in str(error.value)
