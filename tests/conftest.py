"""Fixtures that all folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import nn

from support.command import Result

#: Names the folder of a test run to the test sessions that it starts.
RUN_FOLDER = "FREQROBUST_TEST_RUN"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need real images and checkpoints, and those that need the findings of an experiment."""
    for item in items:
        if item.path.parent.name == "experiments" and {"found", "findings"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("real")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and checkpoints beside the project; tests that need it skip where it is absent."""
    given = os.environ.get("FREQROBUST_SHARED")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no real images and checkpoints: {folder} is not there (set FREQROBUST_SHARED)")
    return folder.resolve()


@pytest.fixture(scope="session", autouse=True)
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that all processes of this test run share: the workers of pytest-xdist, and sessions that tests start."""
    base = tmp_path_factory.getbasetemp()
    own = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "run"
    folder = Path(os.environ.get(RUN_FOLDER, own))
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN_FOLDER, str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def cache(run_folder: Path) -> Iterator[Path]:
    """Trained models go to a folder of this test run, and not to the user's cache."""
    folder = run_folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FREQROBUST_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def trained_once(run_folder: Path) -> Callable[[str, nn.Module, Callable[[], None]], None]:
    """``trained_once(name, model, train)``: give ``model`` the weights that ``train()`` gives it, once per test run."""

    def load_or_train(name: str, model: nn.Module, train: Callable[[], None]) -> None:
        path = run_folder / f"{name}.pt"
        with FileLock(run_folder / f"{name}.lock"):
            if path.exists():
                model.load_state_dict(torch.load(path, weights_only=True))
            else:
                train()
                torch.save(model.state_dict(), path)
        model.eval()

    return load_or_train


@pytest.fixture(scope="session")
def demo(cache: Path) -> nn.Module:
    """The demo's network, trained once per test run; not to be changed."""
    from freqrobust.models.loading import load_model

    cache.mkdir(exist_ok=True)
    with FileLock(cache / "demo.lock"):
        return load_model("demo", cache_dir=cache)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """``freqrobust ARGUMENTS``, in this process."""
    from freqrobust.cli import main

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, out, err)

    return run
