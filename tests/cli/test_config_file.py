"""``--config`` and ``--save-config``: one file for the command line and for Python, and what is wrong with one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from freqrobust.core.command_config import EvalCommand
from freqrobust.core.config import AnalyzeConfig, EvalConfig
from freqrobust.core.config_file import over_file, read_options, write_options
from freqrobust.core.errors import SpecError
from freqrobust.core.training_config import TrainConfig
from support.command import Result

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Command = Callable[..., Result]
Reported = Callable[..., dict[str, Any]]


def test_what_is_saved_gives_the_same_report(
    base: list[str], command: Command, report: Reported, workspace: Path
) -> None:
    options = ["--defense", "smooth", "--rho", "0.5", "--attack", "fgsm:eps=0.1", "--limit", "30", "--no-oblivious"]
    first = report(*base, *options, "--quiet", "--save-config", "conf/run.toml")
    saved = tomllib.loads((workspace / "conf" / "run.toml").read_text())
    assert saved["defenses"] == ["smooth:rho=0.5"]
    assert (saved["limit"], saved["oblivious"], saved["attacks"]) == (30, False, ["fgsm:eps=0.1"])
    assert not {"config", "save-config", "quiet", "debug"} & saved.keys()
    second = report("eval", "--config", "conf/run.toml", "--quiet")
    assert [cell["outcomes"] for cell in first["cells"]] == [cell["outcomes"] for cell in second["cells"]]
    assert first["config"] == second["config"]
    assert len(list((workspace / "runs").iterdir())) == 1
    config = EvalConfig.from_toml("conf/run.toml")
    assert (config.limit, config.defenses, config.oblivious) == (30, ["smooth:rho=0.5"], False)


def test_the_command_line_wins(base: list[str], report: Reported, write: Callable[[str, str], str]) -> None:
    write("run.toml", 'suite = "quick"\nlimit = 30\nseed = 3\nundefended = false\ndefenses = ["smooth"]\n')
    found = report(*base, "--config", "run.toml", "--attack", "lfc:radius=3", "--first", "20", "--seed", "4", "--quiet")
    assert {cell["attack_spec"] for cell in found["cells"]} == {"clean", "lfc:radius=3"}
    assert (found["data"]["n"], found["seed"]) == (20, 4)
    assert {cell["defense"] for cell in found["cells"]} == {"smooth"}


def test_paths_are_relative_to_the_file(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workspace / "conf"
    (folder / "images").mkdir(parents=True)
    for name in ("net.pt", "data.npz", "defs.py"):
        (folder / name).write_text("")
    (folder / "run.toml").write_text(
        'model = ["net.pt", "torchvision:resnet18"]\ndata = "folder:images"\ntrain-data = "data.npz"\n'
        'defenses = ["defs.py:Mine:eps=8/255+smooth"]\nrun-dir = "out"\nreports = ["html=report.html", "markdown=-"]\n'
        'attacks = ["pgd:eps=8/255", "/abs.py:A"]\n'
    )
    values = read_options(EvalCommand, "conf/run.toml")
    assert values == {
        "model": ["conf/net.pt", "torchvision:resnet18"],
        "data": "folder:conf/images",
        "train_data": "conf/data.npz",
        "defenses": ["conf/defs.py:Mine:eps=8/255+smooth"],
        "run_dir": "conf/out",
        "reports": ["html=conf/report.html", "markdown=-"],
        "attacks": ["pgd:eps=8/255", "/abs.py:A"],
    }
    write_options(EvalCommand(**values), "other/again.toml")
    assert tomllib.loads(Path("other/again.toml").read_text())["defenses"] == ["../conf/defs.py:Mine:eps=8/255+smooth"]
    assert read_options(EvalCommand, "other/again.toml") == values
    monkeypatch.chdir(folder)
    assert read_options(EvalCommand, "run.toml")["data"] == "folder:images"


@pytest.mark.parametrize(
    "config",
    [
        EvalConfig(limit=3, oblivious=False, diagnose=None, data='a "quoted"\t\\ ü \x01\x7f name'),
        AnalyzeConfig(batch_size=7, device="cpu", defenses=["smooth"]),
        TrainConfig(epochs=3, ema=0.999, probe=["clean", "lfc:radius=[2,3]"], hold_out=0.0),
    ],
)
def test_a_file_gives_back_what_was_written(config: Any, workspace: Path) -> None:
    config.to_toml("run.toml")
    again = type(config).from_toml("run.toml")
    kept = {name for name in config.model_fields_set if getattr(config, name) is not None}
    assert again.model_fields_set == kept
    assert all(getattr(again, name) == getattr(config, name) for name in kept)


def test_objects_have_no_text_form(workspace: Path) -> None:
    with pytest.raises(SpecError, match="attacks: an object of Linear has no text form"):
        EvalConfig(attacks=[torch.nn.Linear(1, 1)]).to_toml("run.toml")
    assert not Path("run.toml").exists()
    EvalConfig(device=torch.device("cpu")).to_toml("run.toml")
    assert EvalConfig.from_toml("run.toml").device == "cpu"


def test_python_ignores_options_of_the_command(write: Callable[[str, str], str]) -> None:
    write("run.toml", 'limit = 3\nfail-under = ["clean>=0.5"]\njson-file = "out.json"\n')
    assert EvalConfig.from_toml("run.toml").model_fields_set == {"limit"}
    assert over_file(EvalCommand, {"config": "run.toml"})["fail_under"] == ["clean>=0.5"]


def test_an_argument_can_be_in_the_file(command: Command, trained: Path, write: Callable[[str, str], str]) -> None:
    write("run.toml", f'analysis = "kernels"\nmodel = "{trained}"\n')
    result = command("analyze", "--config", "run.toml", "--quiet", "--json", "out.json", "--save-config", "saved.toml")
    assert result.code == 0, result.err
    assert tomllib.loads(Path("saved.toml").read_text())["analysis"] == "kernels"


def test_a_parameter_of_a_plugin_that_only_the_file_names(
    base: list[str], rejected: Callable[..., str], write: Callable[[str, str], str]
) -> None:
    write("run.toml", 'defenses = ["smooth"]')
    said = rejected(*base, "--config", "run.toml", "--rho", "0.5")
    assert (
        "--defense smooth --rho VALUE, or --defense smooth:rho=VALUE; one in the file of --config is not enough" in said
    )
    write("run.toml", 'analysis = "spectrum"')
    assert "one of which has to be named on the command line: analyze heatmap --norm VALUE" in rejected(
        "analyze", "--config", "run.toml", "--norm", "4"
    )


WRONG = {
    "unknown key": ("limits = 3", "run.toml, line 1: unknown key 'limits'; did you mean 'limit'?"),
    "flag": ('attack = ["pgd"]', "unknown key 'attack'; did you mean 'attacks'?"),
    "underscore": ('\n\ndata_dir = "x"', "line 3: unknown key 'data_dir'; did you mean 'data-dir'?"),
    "nested": ('config = "other.toml"', "unknown key 'config'"),
    "table": ('[eval]\nsuite = "quick"', "unknown key 'eval'"),
    "type": ("seed = 1\nlimit = [3]", "run.toml, line 2: limit should be a whole number, but got [3]"),
    "range": ("limit = 0", "line 1: limit should be at least 1"),
    "choice": ('precision = "fp8"', "line 1: precision"),
    "not TOML": ("limit = ", "run.toml is not TOML"),
    "two subsets": ("limit = 3\nfirst = 4", "run.toml: give either limit or first, not both"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files(
    what: str, base: list[str], rejected: Callable[..., str], write: Callable[[str, str], str]
) -> None:
    text, message = WRONG[what]
    write("run.toml", text)
    assert message in rejected(*base, "--config", "run.toml")


def test_wrong_paths(base: list[str], rejected: Callable[..., str], workspace: Path) -> None:
    (workspace / "folder").mkdir()
    assert "missing.toml does not exist" in rejected(*base, "--config", "missing.toml")
    assert "is a folder; expected a TOML file" in rejected(*base, "--config", "folder")
    assert "it is a directory" in rejected(*base, "--save-config", "folder")
    assert "missing argument 'NAME'" in rejected("analyze")
    (workspace / "binary.toml").write_bytes(b"\xff\xfe")
    assert "binary.toml is not TOML" in rejected("train", "--config", "binary.toml")
    (workspace / "run.toml").write_text("epoch = 3")
    assert "did you mean 'epochs'?" in rejected("train", "--config", "run.toml")
