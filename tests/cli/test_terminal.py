"""What reaches the terminal: names and errors of others, made harmless and kept short."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from freqrobust.cli import main
from freqrobust.core.errors import PeerError, PluginError, SpecError, TrainingError
from freqrobust.models.architectures import SmallCNN
from support.waiting import PATIENCE

Command = Callable[..., Any]
FORBIDDEN = set("\x1b\r\u202e\x07")

BROKEN = '''
from freqrobust import Attack

class Broken(Attack):
    """Fails with a long text, in colours."""
    def perturb(self, model, images, labels, context):
        raise RuntimeError("\\x1b[31mno kernel\\r" + "for this backend, " * 400 + "the end")
'''


@pytest.fixture
def broken(write: Callable[[str, str], str]) -> list[str]:
    return ["--attack", f"{write('broken.py', BROKEN)}:Broken", "--limit", "20"]


def harmless(*texts: str) -> bool:
    return not FORBIDDEN & set("".join(texts))


def test_names_of_files(base: list[str], rejected: Command) -> None:
    assert "\ufffd[2Jx" in rejected(*base[:3], "--data", "\x1b[2Jx\u202e.npz")


@pytest.mark.slow
def test_keys_of_a_checkpoint(base: list[str], untrained: SmallCNN, workspace: Path, rejected: Command) -> None:
    torch.save({**untrained.state_dict(), "\x1b[2J\rconv.weight": torch.zeros(3)}, workspace / "odd.pt")
    assert "\ufffd[2J conv.weight is not expected" in rejected("eval", "--model", "odd.pt", *base[3:])


def test_errors_of_a_cell_are_short(base: list[str], broken: list[str], report: Command) -> None:
    found = report(*base, *broken, code=3)
    (error,) = [cell["error"] for cell in found["cells"] if cell["status"] == "failed"]
    assert len(error) == 300
    assert error.endswith("... (whole text with --debug)")
    assert all(len(warning["message"]) < 500 for warning in found["warnings"])


def test_screen_and_table_show_them_harmless(base: list[str], broken: list[str], command: Command) -> None:
    result = command(*base, *broken)
    assert result.code == 3
    assert harmless(result.out, result.err)
    assert "the end" not in result.err + result.out
    assert max(map(len, result.err.splitlines())) < 450


def test_debug_shows_the_whole_error(base: list[str], broken: list[str], command: Command) -> None:
    result = command(*base, *broken, "--debug")
    assert result.code == 3
    assert "Traceback (most recent call last)" in result.err
    assert "for this backend, the end" in result.err
    assert harmless(result.err)


def test_a_long_error_line_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    from freqrobust.core.errors import ModelError

    assert main.report_error(ModelError("x" * 6000)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 1300
    assert line.endswith("... (whole text with --debug)")
    assert main.report_error(ModelError("x" * 6000), debug=True) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"freqrobust: {'x' * 6000}"


def test_of_several_processes_the_first_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndedError(BaseException):
        """torchrun ends the process while it waits, as the first one has ended."""

    def ends(seconds: float) -> None:
        assert seconds == main.PATIENCE  # otherwise torchrun could end the first one before it has printed
        raise EndedError

    monkeypatch.setattr("time.sleep", ends)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert (main.report_error(SpecError("no such method")), main.report_error(TrainingError("diverged"))) == (2, 3)
    assert len(capsys.readouterr().err.splitlines()) == 2
    monkeypatch.setenv("LOCAL_RANK", "1")
    for error in (SpecError("no such method"), TrainingError("diverged")):
        with pytest.raises(EndedError):
            main.report_error(error)
    assert capsys.readouterr().err == ""
    assert (
        main.report_error(PluginError("the training failed in epoch 2: out of memory")) == 2
    )  # may be of this one only
    assert "out of memory" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(EndedError):
        main.report_error(PeerError("another process has ended"))
    assert capsys.readouterr().err == ""


def test_one_of_several_processes_says_what_is_wrong_where_the_first_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main.report_error(SpecError("no such file on this machine")) == 2
    assert main.report_error(PeerError("another process has ended")) == 2
    assert [line.removeprefix("freqrobust: ") for line in capsys.readouterr().err.splitlines()] == [
        "no such file on this machine",
        "another process has ended",
    ]


def test_an_internal_error_shows_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.report_error(KeyError("\x1b[2J")) == 1
    err = capsys.readouterr().err
    assert "KeyError" in err
    assert harmless(err)


def test_the_module_is_the_command(workspace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "freqrobust", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout.startswith("freqrobust ")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("arguments", ["--help", "list attacks"])
def test_a_reader_that_leaves_is_no_error(arguments: str) -> None:
    """``freqrobust ... | head``: nothing is said, and the exit code is the one of a closed pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "freqrobust", *arguments.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
