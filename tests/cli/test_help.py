"""Help and lists: complete, and there at once, without importing torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from freqrobust import __version__
from freqrobust.core.commands import COMMANDS
from freqrobust.experiments.experiment import experiments
from freqrobust.harness.analysis import analyses
from freqrobust.plugins.registry import attacks, augmentations, defenses, methods
from freqrobust.results.reporter import reports
from support.waiting import PATIENCE

#: Runs the command, then says which of the heavy modules it took in.
PROBE = """
import sys
from freqrobust.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    heavy = [name for name in ("torch", "torchvision", "sklearn", "numpy") if name in sys.modules]
    print("ended with", ended.code, "after importing", heavy)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["-h"],
        ["--version"],
        ["eval", "--help"],
        ["eval", "--defense", "smooth", "--help"],
        ["eval", "--defense=smooth:rho=0.5+lowpass", "--defense", "madry", "--rho", "1", "-h"],
        ["list", "--help"],
        ["analyze", "--help"],
        ["analyze", "heatmap", "--help"],
        ["reproduce", "--help"],
        ["reproduce", "--list"],
    ],
    ids=" ".join,
)
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "ended with 0 after importing []"


def test_the_list_of_commands_needs_no_pydantic() -> None:
    code = PROBE.replace('"numpy")', '"numpy", "pydantic")')
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.splitlines()[-1] == "ended with 0 after importing []"


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, freqrobust; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_names_every_option(name: str, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    result = command(name, "--help")
    assert result.code == 0
    cls = COMMANDS[name]
    arguments = {field for field in cls.model_fields if cls.shown(field)["argument"]}
    flags = [cls.flag(field) for field in cls.model_fields if field not in arguments]
    assert [flag for flag in flags if flag not in result.out] == []
    assert "--rho" not in result.out
    assert "--no-baseline" not in result.out  # an earlier spelling that still works


@pytest.mark.parametrize("arguments", [["--defense", "smooth", "--help"], ["--help", "--defense=smooth"]])
def test_a_defense_brings_its_options(
    arguments: list[str], command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("COLUMNS", "200")
    result = command("eval", *arguments)
    assert result.code == 0
    assert "Parameters of smooth" in result.out
    for option in ("--rho", "--layers", "--boundary", "--rescale", "--recalibrate-bn"):
        assert option in result.out
    assert "[float >= 0; default 1]" in result.out
    assert "[first|all; default first]" in result.out
    assert "[true|false; default false]" in result.out


def test_a_defense_from_a_file_brings_its_options(
    command: Callable[..., Any], write: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
from pydantic import Field
from freqrobust import InputDefense
class Quantize(InputDefense):
    bit_depth: int = Field(4, ge=1, le=8, description="bits a [red] pixel keeps")
    def transform(self, images): return images
"""
    write("mine.py", code)
    monkeypatch.setenv("COLUMNS", "200")
    result = command("eval", "--defense", "mine.py:Quantize", "--help")
    assert "Parameters of Quantize" in result.out
    assert "--bit-depth" in result.out
    assert "bits a [red] pixel keeps [int >= 1 and <= 8; default 4]" in result.out


def test_version(command: Callable[..., Any]) -> None:
    assert command("--version").out == f"freqrobust {__version__}\n"


LISTS = (
    "attacks", "defenses", "reports", "analyses", "suites", "archs", "datasets",
    "methods", "augmentations", "regularizers", "optimizers", "schedules", "experiments",
)  # fmt: skip


@pytest.mark.parametrize("what", [*LISTS, None])
def test_list(what: str | None, command: Callable[..., Any]) -> None:
    result = command("list", *([what] if what else []))
    assert result.code == 0
    assert result.err == ""
    expected = {
        "attacks": attacks.names(),
        "defenses": defenses.names(),
        "reports": reports.names(),
        "analyses": analyses.names(),
        "suites": ["standard", "quick", "frequency"],
        "archs": ["resnet20", "cifar_resnet18", "small_cnn", "torchvision:NAME"],
        "methods": methods.names(),
        "augmentations": ["flip-crop", "mixup", "augmix", *augmentations.names()],
        "regularizers": ["kernel-smoothness"],
        "optimizers": ["sgd", "adam", "adamw"],
        "schedules": ["one-cycle", "step", "cosine", "exponential", "constant"],
        "experiments": ["wang-table1", *experiments.names()],
        "datasets": ["digits", "cifar10", "imagenet", "FILE.npz", "folder:DIR"],
    }
    for kind, names in expected.items():
        assert (f"\n{kind}\n" in f"\n{result.out}") == (what in (kind, None))
        if what in (kind, None):
            listed = {line.split()[0] for line in result.out.splitlines() if line.startswith("  ") and line.split()}
            assert set(names) <= listed
    assert set(expected) == set(LISTS)


def test_lists_fit_into_80_columns(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for what in LISTS:
        lines = command("list", what).out.splitlines()
        assert max(map(len, lines)) <= 80
        assert not [line for line in lines if "…" in line]


def test_list_shows_parameters(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = [" ".join(line.split()) for line in command("list", "attacks").out.splitlines()]
    assert "steps int >= 1 and <= 1000000 20 gradient steps per restart" in lines
    assert "eps float >= 0 8/255 budget, in the norm's unit; 8/255 is accepted" in lines
    assert "radius float >= 0 required cycles per image" in lines
    assert any("freqrobust" in line and line.startswith("pgd ") for line in lines)
