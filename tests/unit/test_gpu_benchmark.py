"""The benchmark for accelerators, at a small size on the CPU: so that it runs where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_gpu(tmp_path) -> None:
    pytest.importorskip("torchvision")
    out = tmp_path / "gpu.json"
    command = [sys.executable, ROOT / "benchmarks/gpu.py", "--device", "cpu", "--small", "--json", out]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [row["batch"] for row in found["rows"]] == [4, 8]
    assert all(row["ratio"]["bare"] > 0 for row in found["rows"])
    assert found["folder"]["images"] == 4
    assert found["folder"]["forwards"] > found["folder"]["backwards"] >= 4  # every image is attacked
    assert found["tf32"] == {"matmul": False, "cudnn": False}  # as in evaluate(), for all sides
    assert found["folder"]["ratio"] > 0


@pytest.mark.slow
def test_synchronisations(tmp_path) -> None:
    """The number of the documentation: PGD waits for the device once in three steps."""
    out = tmp_path / "synchronisations.json"
    command = [sys.executable, ROOT / "benchmarks/synchronisations.py", "--images", "16", "--only", "pgd:eps=0.1"]
    subprocess.run(
        [*command, "--json", out], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True
    )
    (pgd,) = json.loads(out.read_text(encoding="utf-8"))
    assert pgd["synchronisations"] == {"nonzero": 6}
    assert pgd["per_step"] == 0.3
    assert pgd["per_step_if_every_step_looks"] > 1
