"""What the options mean: sweeps, flags, compositions, subsets, the embedded demo."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freqrobust.results.report import Report

Reported = Callable[..., dict[str, Any]]


def chosen(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Defense specs and parameters, each once, in order."""
    found = {cell["defense_spec"]: cell["defense_params"] for cell in report["cells"]}
    return list(found.items())


def test_options_of_a_defense_multiply(base: list[str], report: Reported) -> None:
    options = "--defense smooth --rho 0.5 --rho 1.0 --layers first --layers all --attack lfc:radius=3"
    found = chosen(report(*base, *options.split()))
    assert found[0] == ("undefended", {})
    assert [(p["rho"], p["layers"]) for _, p in found[1:]] == [
        (0.5, "first"),
        (0.5, "all"),
        (1.0, "first"),
        (1.0, "all"),
    ]
    assert len({spec for spec, _ in found}) == 5


def test_a_sweep_in_the_spec_is_the_same(base: list[str], report: Reported) -> None:
    attack = ["--attack", "fgsm:eps=0.1"]
    ours = report(*base, *attack, "--defense", "smooth", "--rho", "0.1", "--rho", "0.2")
    spec = report(*base, *attack, "--defense", "smooth:rho=[0.1,0.2]")
    twice = report(*base, *attack, "--defense", "smooth:rho=0.1", "--defense", "smooth:rho=0.2")
    assert chosen(ours) == chosen(spec) == chosen(twice)
    assert [cell["outcomes"] for cell in ours["cells"]] == [cell["outcomes"] for cell in twice["cells"]]


def test_every_parameter_is_reported(base: list[str], report: Reported) -> None:
    found = report(*base, "--defense", "smooth", "--rho=0.5", "--attack", "pgd:eps=4/255,steps=5")
    assert chosen(found)[1] == (
        "smooth:rho=0.5",
        {"rho": 0.5, "layers": "first", "boundary": "zero", "rescale": False, "recalibrate_bn": False},
    )
    (cell,) = [c for c in found["cells"] if c["attack"] == "pgd" and c["defense"] == "undefended"]
    assert cell["attack_spec"] == "pgd:eps=4/255,steps=5"
    assert cell["attack_params"]["eps"] == 4 / 255
    assert cell["attack_params"]["step_size"] == pytest.approx(2 / 255)
    assert cell["threat"] == {"norm": "linf", "eps": 4 / 255}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("--rescale", [True]),
        ("--rescale --rho 1.0", [True]),
        ("--rescale true", [True]),
        ("--rescale=false", [False]),
        ("--rescale false --rescale true", [False, True]),
        ("--rho 1.0", [False]),
    ],
)
def test_a_flag_needs_no_value(written: str, expected: list[bool], base: list[str], report: Reported) -> None:
    found = report(*base, "--defense", "smooth", *written.split(), "--attack", "lfc:radius=3")
    assert [(params["rescale"], params["rho"]) for _, params in chosen(found)[1:]] == [(r, 1.0) for r in expected]


def test_composition(base: list[str], report: Reported) -> None:
    found = report(*base, "--defense", "smooth:rho=0.5+lowpass:radius=3", "--attack", "fgsm:eps=0.1")
    spec, params = chosen(found)[1]
    assert spec == "smooth:rho=0.5+lowpass:radius=3"
    assert {cell["defense"] for cell in found["cells"]} == {"undefended", "smooth+lowpass"}
    assert params == {
        "smooth.rho": 0.5,
        "smooth.layers": "first",
        "smooth.boundary": "zero",
        "smooth.rescale": False,
        "smooth.recalibrate_bn": False,
        "lowpass.radius": 3.0,
        "lowpass.shape": "circle",
    }


def test_composition_is_both(base: list[str], report: Reported) -> None:
    """The clean accuracy behind a low-pass is that of the smoothed model on low-passed images."""
    found = report(*base, "--defense", "smooth:rho=0.05+lowpass:radius=2", "--attack", "fgsm:eps=0")
    other = report(*base, "--defense", "smooth:rho=0.05", "--attack", "lfc:radius=2")
    cells = {(c["defense"], c["attack"]): c["outcomes"] for c in (*found["cells"], *other["cells"])}
    assert cells["smooth+lowpass", "clean"] == cells["smooth", "lfc"]
    assert cells["smooth+lowpass", "clean"] != cells["smooth", "clean"]


def test_options_reach_the_parts_of_a_composition(base: list[str], report: Reported) -> None:
    arguments = "--defense smooth+lowpass --rho 0.5 --radius 2 --radius 3 --attack fgsm"
    found = report(*base, *arguments.split())
    assert [(p["smooth.rho"], p["lowpass.radius"]) for _, p in chosen(found)[1:]] == [(0.5, 2.0), (0.5, 3.0)]


@pytest.mark.parametrize("flag", ["--no-undefended", "--no-baseline"])
def test_without_the_undefended_model(flag: str, base: list[str], report: Reported) -> None:
    found = report(*base, "--defense", "smooth:rho=0.5", flag, "--attack", "fgsm")
    assert [spec for spec, _ in chosen(found)] == ["smooth:rho=0.5"]
    assert all(cell["difference"] is None for cell in found["cells"])


def test_naming_clean_or_none_changes_nothing(base: list[str], report: Reported) -> None:
    named = report(*base, "--attack", "clean", "--attack", "fgsm", "--defense", "none", "--defense", "lowpass:radius=3")
    plain = report(*base, "--attack", "fgsm", "--defense", "lowpass:radius=3")
    for cell in (*named["cells"], *plain["cells"]):
        cell.pop("seconds")
    assert named["cells"] == plain["cells"]


def test_quiet(base: list[str], command: Callable[..., Any]) -> None:
    result = command(*base, "--attack", "fgsm", "--quiet", "--json", "out.json")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert Report.from_json("out.json").status == "complete"


def test_quiet_errors_are_still_said(base: list[str], rejected: Callable[..., str]) -> None:
    assert "unknown attack" in rejected(*base, "--attack", "nothing", "--quiet")


def test_limit_is_stratified(base: list[str], digits: Path, report: Reported) -> None:
    labels = np.load(digits)["labels"]
    found = report(*base, "--attack", "lfc:radius=3", "--limit", 30)
    ids = found["data"]["ids"]
    assert found["data"]["n"] == len(set(ids)) == 30
    assert ids == sorted(ids)
    assert set(ids) <= set(range(60))
    whole = Counter(labels.tolist())
    assert found["cells"][0]["n"] == 30
    again = report(*base, "--attack", "lfc:radius=3", "--limit", 30)
    other = report(*base, "--attack", "lfc:radius=3", "--limit", 30, "--seed", 1)
    assert again["data"]["ids"] == ids
    assert other["data"]["ids"] != ids
    for drawn in (ids, other["data"]["ids"]):
        share = Counter(labels[drawn].tolist())
        assert all(abs(share[label] - whole[label] / 2) < 1 for label in whole)


def test_a_subset_has_the_outcomes_of_the_whole(base: list[str], report: Reported) -> None:
    """Randomness is keyed by sample: a subset meets what it would have met among all."""
    arguments = [*base, "--attack", "pgd:eps=0.15,steps=3"]
    whole = Report.model_validate(report(*arguments)).cell("pgd").right()
    part = report(*arguments, "--limit", 25)
    assert Report.model_validate(part).cell("pgd").right().tolist() == whole[part["data"]["ids"]].tolist()


def test_first(base: list[str], digits: Path, report: Reported) -> None:
    found = report(*base, "--attack", "lfc:radius=3", "--first", 7)
    assert found["data"]["ids"] == list(range(7))
    whole = report(*base, "--attack", "lfc:radius=3")
    assert whole["data"]["ids"] == "all"
    assert whole["data"]["n"] == 60
    assert report(*base, "--attack", "lfc:radius=3", "--first", 1000)["data"]["ids"] == "all"


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 60, "auto"])
def test_batch_size_changes_nothing(size: object, base: list[str], report: Reported) -> None:
    arguments = [*base, "--attack", "pgd:eps=0.1,steps=3", "--attack", "hfc:radius=1", "--run-dir", f"run-{size}"]
    found = report(*arguments, "--batch-size", size)
    reference = report(*arguments[:-1], "reference", "--batch-size", 13)
    assert [c["correct"] for c in found["cells"]] == [c["correct"] for c in reference["cells"]]


def test_suites(base: list[str], report: Reported) -> None:
    found = report(*base, "--suite", "quick")
    assert [cell["attack_spec"] for cell in found["cells"]] == [
        "clean",
        "lfc:radius=3",
        "hfc:radius=3",
        "pgd:eps=2/255,steps=10",
        "pgd:eps=8/255,steps=10",
    ]
    Path("mine.txt").write_text("# mine\nlfc:radius=[1,2]  # two\n\nfgsm\n", encoding="utf-8")
    found = report(*base, "--suite", "mine.txt")
    assert [cell["attack_spec"] for cell in found["cells"]] == ["clean", "lfc:radius=1", "lfc:radius=2", "fgsm"]


@pytest.mark.slow
def test_the_demo(command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained on the spot the first time, taken from the cache the second: the same report."""
    monkeypatch.setenv("FREQROBUST_CACHE", str(tmp_path / "empty"))
    found = []
    for trained in (True, False):
        result = command("eval", "--attack", "lfc:radius=2", "--json", "out.json", "--verbose")
        assert result.code == 0
        assert "no --model given: using the demo" in result.err
        assert ("demo model: epoch 12/12" in result.err) == trained
        found.append(Report.from_json("out.json"))
        (kept,) = Path("runs").iterdir()
        assert json.loads((kept / "report.json").read_text(encoding="utf-8")) == json.loads(found[-1].dumps())
    report = found[0]
    assert (report.models[0].arch, report.data.spec, report.data.n) == ("small_cnn", "digits", 500)
    assert report.cells[0].accuracy is not None
    assert report.cells[0].accuracy > 0.95
    assert found[1].cells == report.cells
    assert found[1].models == report.models


def test_a_saved_defense_is_the_defense(base: list[str], digits: Path, report: Reported) -> None:
    defended = report(
        *base, "--defense", "smooth:rho=0.05", "--attack", "fgsm:eps=0.1", "--no-oblivious", "--save-model", "saved.pt"
    )
    loaded = report("eval", "--model", "saved.pt", "--data", digits, "--attack", "fgsm:eps=0.1")
    ours = [cell["outcomes"] for cell in defended["cells"] if cell["defense"] == "smooth"]
    assert ours == [cell["outcomes"] for cell in loaded["cells"]]
    assert ours != [cell["outcomes"] for cell in defended["cells"] if cell["defense"] == "undefended"]
