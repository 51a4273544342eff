"""The commands and the code of the pages about trackers, Lightning and the site are run."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from freqrobust.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"
EXTRAS = [name for name in ("lightning", "mlflow", "tensorboard", "wandb", "jinja2") if find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(EXTRAS), reason=f"not installed: {', '.join(EXTRAS)}"),
    # what these libraries say about themselves and about this machine
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:GPU available but not used.*"),
]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", ["trackers.md", "leaderboard.md"])
def test_the_documented_commands(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    (commands,) = blocks(page, "sh")
    for line in commands.splitlines():
        words = [word for word in shlex.split(line) if word != "WANDB_MODE=offline"]
        with pytest.raises(SystemExit) as stop:
            main(words[1:])
        assert stop.value.code == 0, line
    made = {"trackers.md": ("events/digits", "mlruns", "wandb"), "leaderboard.md": ("site/index.html",)}
    for name in made[page]:
        assert (tmp_path / name).exists()


def test_the_documented_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("trackers.md", "python")
    exec(compile(code, "trackers.md", "exec"), {})
    assert "'pgd:eps=0.05': 0." in capsys.readouterr().out
    assert list((tmp_path / "checkpoints").glob("*.ckpt"))


def test_every_argument_of_the_callback_is_documented() -> None:
    import inspect

    from freqrobust import RobustnessCallback

    table = (DOCS / "trackers.md").read_text(encoding="utf-8").partition("| argument |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines()[2:]))) == set(
        inspect.signature(RobustnessCallback).parameters
    )
