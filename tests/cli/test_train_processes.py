"""``freqrobust train`` in several processes, which torchrun starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.waiting import PATIENCE

#: Where a file says so, the second process is killed in the second epoch, once.
NETWORK = """
import os
import signal
from pathlib import Path
from torch import nn

class Dies(nn.Flatten):
    def forward(self, x):
        if os.environ.get("RANK") == "1" and Path("killed/last.pt").exists() and Path("dies").exists():
            Path("dies").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), Dies(), nn.Linear(8 * 36, 10))
"""
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
pytestmark = pytest.mark.slow


def command(folder: Path, out: str, epochs: int, together: bool) -> list[str]:
    (folder / "net.py").write_text(NETWORK)
    train = ["-m", "freqrobust", "train", "--data", "digits", "--limit", "300", "--arch", "net.py:build"]
    options = ["--epochs", str(epochs), "--batch-size", "32", "--device", "cpu", "--probe", "clean", "--out", out]
    return [sys.executable, *(LAUNCH if together else []), *train, *options]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def started(folder: Path, out: str, epochs: int, together: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, out, epochs, together),
        capture_output=True, text=True, timeout=PATIENCE, env=environment(), cwd=folder, check=False,
    )  # fmt: skip


def run(folder: Path, out: str, epochs: int, together: bool) -> str:
    done = started(folder, out, epochs, together)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def log(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "last.pt", weights_only=True)["training"]["model"]
    return state


def test_two_processes_have_the_losses_of_one_and_one_of_them_writes(tmp_path: Path) -> None:
    run(tmp_path, "alone", 2, together=False)
    printed = run(tmp_path, "together", 2, together=True)
    assert printed.count("best epoch:") == 1
    one, two = log(tmp_path / "alone"), log(tmp_path / "together")
    assert [record["epoch"] for record in two] == [1, 2]
    assert [record["loss"] for record in two] == pytest.approx([record["loss"] for record in one], rel=1e-4)
    assert json.loads((tmp_path / "together/training.json").read_text())["processes"] == 2


def test_a_directory_that_cannot_be_used_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/best.pt").write_bytes(b"precious")
    done = started(tmp_path, "other", 1)
    assert done.returncode != 0
    assert done.stderr.count("freqrobust: other contains best.pt, but no run.json") == 1
    assert "workers.py" not in done.stderr  # no traceback of the process that waited


def test_a_killed_process_ends_the_others_and_the_same_command_resumes(tmp_path: Path) -> None:
    """Between two epochs the processes wait for each other, so that the second one sees what the first one has written."""
    epochs = 5
    run(tmp_path, "whole", epochs, together=True)
    (tmp_path / "dies").touch()
    done = started(tmp_path, "killed", epochs)
    assert done.returncode != 0
    assert not (tmp_path / "dies").exists()
    assert 1 <= len(log(tmp_path / "killed")) < epochs
    assert not (tmp_path / "killed/training.json").exists()
    run(tmp_path, "killed", epochs, together=True)
    assert [record["epoch"] for record in log(tmp_path / "killed")] == list(range(1, epochs + 1))
    before, after = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    for name, value in before.items():
        assert torch.equal(after[name], value)
