"""The command, run in this process or in one of its own, and small models and data to run it on."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust.data.loading import load_data
from freqrobust.models.architectures import SmallCNN
from freqrobust.models.files import save_model
from support.command import Result
from support.waiting import PATIENCE

#: What `-c` gives a Python of its own to be the command; a terminal's Ctrl-C handler even where the parent ignores it.
ENTRY = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from freqrobust.cli.main import main; main()"


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny images gain nothing from more threads, and lose much to waiting where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test runs in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(autouse=True)
def forget_modules(workspace: Path) -> Iterator[Callable[[], None]]:
    """Forget what was imported from the working folder, as a new process would; done after each test as well."""

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            file = vars(module).get("__file__")
            if file is not None and str(file).startswith(str(workspace)):
                del sys.modules[name]
                importlib.invalidate_caches()

    yield forget
    forget()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``freqrobust ARGUMENTS``, in a process of its own, which does not outlive the test; ``before`` is code for it."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object, out: IO[str] | int = subprocess.PIPE, before: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{before}\n{ENTRY}", *map(str, arguments)],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every folder and file below ``folder``, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def rejected(command: Callable[..., Result], workspace: Path) -> Callable[..., str]:
    """Run a command that is bad input: the one line that says why; nothing else may have happened."""

    def run(*arguments: object) -> str:
        before = tree(workspace)
        result = command(*arguments)
        said = [line for line in result.err.splitlines() if line.startswith("freqrobust:")]
        assert result.code == 2, result
        assert said == [result.error], result.err
        assert "Traceback" not in result.err
        assert result.out == ""
        assert tree(workspace) == before
        return said[0].removeprefix("freqrobust: ")

    return run


@pytest.fixture
def write(workspace: Path) -> Callable[[str, str], str]:
    """Write a text file into the working folder; its name."""

    def put(name: str, text: str) -> str:
        (workspace / name).write_text(text, encoding="utf-8")
        return name

    return put


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty of scikit-learn's digits as an ``.npz``: uint8 ``(N, 8, 8)``."""
    data = load_data("digits", first=60)
    path = tmp_path_factory.mktemp("data") / "digits60.npz"
    np.savez(path, images=(data.images[:, 0] * 255).round().to(torch.uint8).numpy(), labels=data.labels.numpy())
    return path


@pytest.fixture(scope="session")
def trained(demo: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's network as a checkpoint that says how its inputs are normalised."""
    path = tmp_path_factory.mktemp("model") / "digits.pt"
    with one_thread():  # this runs before the fixture of the package
        save_model(demo, path)
    return path


@pytest.fixture
def base(trained: Path, digits: Path) -> list[str]:
    """``eval`` of a good model on good data, quickly."""
    return ["eval", "--model", str(trained), "--data", str(digits)]


@pytest.fixture
def untrained() -> SmallCNN:
    """A network for ten classes of 1 x 8 x 8 images."""
    torch.manual_seed(0)
    return SmallCNN(num_classes=10, in_channels=1)


@pytest.fixture
def report(command: Callable[..., Result], workspace: Path) -> Callable[..., dict[str, Any]]:
    """Run a command that succeeds; its JSON report."""

    def run(*arguments: object, code: int = 0) -> dict[str, Any]:
        target = workspace / "report-of-the-last-run.json"
        result = command(*arguments, "--json", target)
        assert result.code == code, result.err
        found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return found

    return run
