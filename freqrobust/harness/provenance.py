"""Where and on what a report was measured."""

from __future__ import annotations

import platform
import subprocess
from datetime import datetime, timezone

import torch

from freqrobust.data.dataset import ImageData
from freqrobust.harness.devices import describe
from freqrobust.results.records import DataRecord, EnvironmentRecord, Precision


def now() -> str:
    """The time, as reports write it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def data_record(data: ImageData) -> DataRecord:
    """How a report names the samples."""
    return DataRecord(
        spec=data.spec,
        split=data.split,
        n=len(data),
        classes=data.classes,
        shape=list(data.shape),
        sha256=data.sha256,
        ids=data.ids.tolist() if data.subset else "all",
        class_subset=list(data.class_subset) or None,
        class_names=list(data.class_names) or None,
        preprocessing=data.preprocessing.record() if data.preprocessing is not None else None,
    )


def environment_record(device: torch.device, precision: Precision) -> EnvironmentRecord:
    """What a report says about where it was made."""
    return EnvironmentRecord(
        python=platform.python_version(),
        torch=torch.__version__,
        device=describe(device),
        precision=precision,
        git=git_commit(),
    )


def git_commit() -> str | None:
    """The commit of the repository in the current folder, if it is one."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
