"""Shell completion: what is completed, that it is there at once, and that names come from the tables."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from freqrobust.cli import completion, main
from freqrobust.cli.listing import KINDS, LISTS, SINGULAR
from freqrobust.core.commands import COMMANDS
from freqrobust.data.source_table import data_sources
from freqrobust.models.architectures import ARCHITECTURES
from freqrobust.models.source_table import model_sources

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """What bash is told for a command line whose last word is incomplete."""

    def run(*words: str) -> list[str]:
        monkeypatch.setenv("_FREQROBUST_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["freqrobust", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with pytest.raises(SystemExit) as ended:
            main.main([])
        out, err = capsys.readouterr()
        assert err == ""
        assert ended.value.code in (0, 1)
        return out.split()

    return run


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["ev"], {"eval"}),
        (["r"], {"reproduce", "report", "rerun", "runs"}),
        (["eval", "--att"], {"--attack"}),
        (["eval", "--attack", "pg"], {"pgd"}),
        (["eval", "--attack", "torch"], {"torchattacks:"}),
        (["eval", "--model", "a.pt", "--defense", "smo"], {"smooth"}),
        (["eval", "--defense", "smooth", "--rh"], {"--rho"}),
        (["eval", "--suite", "qu"], {"quick"}),
        (["eval", "--precision", ""], {"fp32", "bf16"}),
        (["eval", "--report", "ht"], {"html="}),
        (["train", "--recipe", "tr"], {"trades"}),
        (["train", "--method", "mad"], {"madry"}),
        (["analyze", "heat"], {"heatmap"}),
        (["list", "atta"], {"attacks"}),
        (["list", "attacks", "pg"], {"pgd"}),
        (["list", "recipes", "tra"], {"trades"}),
        (["explain", "zero-"], {"zero-gradients"}),
        (["runs", "pr"], {"prune"}),
        (["eval", "--defense", "nonsense", "--x"], set()),
        (["eval", "'open", "--attack", "pg"], set()),
    ],
)
def test_words(words: list[str], some: set[str], complete: Complete) -> None:
    found = set(complete(*words))
    assert some <= found if some else not found - {"", "pgd"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_FREQROBUST_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "freqrobust eval --attack pg")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    with pytest.raises(SystemExit) as ended:
        main.main([])
    assert ended.value.code == 0
    assert "pgd" in capsys.readouterr().out


def test_it_is_there_at_once() -> None:
    """As bash starts it; neither torch nor numpy is imported."""
    code = (
        "import sys, atexit; atexit.register(lambda: print([m for m in ('torch', 'numpy') if m in sys.modules]));"
        "from freqrobust.cli.main import main; main()"
    )
    request = {
        "_FREQROBUST_COMPLETE": "complete_bash",
        "COMP_WORDS": "freqrobust\neval\n--attack\nfgs",
        "COMP_CWORD": "3",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **request})
    assert done.stdout.split("\n")[:2] == ["fgsm", "[]"], done.stderr


def test_the_script_can_be_shown(monkeypatch: pytest.MonkeyPatch, command: Callable[..., object]) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    result = command("--show-completion", "bash")
    assert "complete -o default -F _freqrobust_completion freqrobust" in result.out  # type: ignore[attr-defined]


def test_the_names_are_those_of_the_tables() -> None:
    assert list(completion.PLUGINS) == list(KINDS)
    assert list(completion.OTHERS) == list(SINGULAR)
    assert [*completion.PLUGINS, *completion.OTHERS] == LISTS
    assert set(ARCHITECTURES) == set(completion.ARCHS) - {"auto", "torchvision:"}
    assert set(completion.DATASETS) <= set(data_sources.names())
    assert set(completion.MODELS) <= set(model_sources.names())
    options = {name for cls in COMMANDS.values() for name in cls.model_fields}
    assert set(completion.VALUES) <= options
    for kind, registry in KINDS.items():
        expected = [*registry.names(), *(f"{family}:" for family in registry.families())]
        assert completion.plugin_names(kind) == expected
