"""Fixtures that all folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and checkpoints beside the project; tests that need it skip where it is absent."""
    given = os.environ.get("FREQROBUST_SHARED")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no real images and checkpoints: {folder} is not there (set FREQROBUST_SHARED)")
    return folder.resolve()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Trained models go to a folder of this session, and not to the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FREQROBUST_CACHE", str(folder))
        yield folder
