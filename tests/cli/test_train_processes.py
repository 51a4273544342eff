"""``freqrobust train`` in several processes, which torchrun starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
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


def run(folder: Path, out: str, epochs: int, together: bool) -> str:
    done = subprocess.run(
        command(folder, out, epochs, together),
        capture_output=True, text=True, timeout=240, env=environment(), cwd=folder, check=False,
    )  # fmt: skip
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
    done = subprocess.run(
        command(tmp_path, "other", 1, together=True),
        capture_output=True, text=True, timeout=240, env=environment(), cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("freqrobust: other contains best.pt, but no run.json") == 1
    assert "workers.py" not in done.stderr  # no traceback of the process that waited


def test_a_killed_process_ends_the_others_and_the_same_command_resumes(tmp_path: Path) -> None:
    epochs = 20
    run(tmp_path, "whole", epochs, together=True)
    launcher = subprocess.Popen(
        command(tmp_path, "killed", epochs, together=True),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed/last.pt").exists():
            assert time.monotonic() < deadline
            assert launcher.poll() is None
            time.sleep(0.01)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert launcher.wait(60) != 0
    finally:
        launcher.kill()
        launcher.wait()
    assert not (tmp_path / "killed/training.json").exists()
    run(tmp_path, "killed", epochs, together=True)
    assert [record["epoch"] for record in log(tmp_path / "killed")] == list(range(1, epochs + 1))
    before, after = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    for name, value in before.items():
        assert torch.equal(after[name], value)
