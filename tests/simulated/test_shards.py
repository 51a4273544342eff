"""Shards on an accelerator, merged on a machine without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from freqrobust import ImageData
from freqrobust.data.loading import as_data
from freqrobust.harness import blocks, compilation
from freqrobust.harness.sharing import Merge, Shard
from support.failing_plugins import Breaks
from support.networks import untrained
from support.sharing import content, shared_report


@pytest.fixture
def data(digits: ImageData) -> ImageData:
    """Images with the labels that the model predicts."""
    images = digits.first(12).images
    with torch.no_grad():
        return as_data((images, untrained(0, classes=10)(images).argmax(dim=1)))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(blocks.SAMPLES, "sim", 8)


def merged(data: ImageData, device: torch.device, run_dir: Path, **options: Any) -> tuple[Any, Any]:
    """The report of two shards on the device, merged there and on the CPU."""
    for number in (1, 2):
        shared_report(
            untrained(0, classes=10), data, Shard(number, 2), run_dir=run_dir, **{**options, "device": device}
        )
    return tuple(  # type: ignore[return-value]
        content(shared_report(untrained(0, classes=10), data, Merge(), run_dir=run_dir, **{**options, "device": where}))
        for where in (torch.device("cpu"), device)
    )


@pytest.mark.parametrize("compiled", ["auto", "on"])
def test_a_merge_on_another_device_finds_what_the_shards_measured(
    data: ImageData, device: torch.device, tmp_path: Path, compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = {"sim": "no compiler", "cpu": None}  # the machine of the merge could compile, and those of the shards not
    monkeypatch.setattr(compilation, "compiler_problem", lambda where: problem[where.type])
    options = {"attacks": ["pgd:eps=[0.05,0.1],steps=2", "lfc:radius=2"], "defenses": ["smooth"], "oblivious": True}
    here, there = merged(data, device, tmp_path, **options, compile=compiled)
    assert here == there
    assert here["environment"]["device"] == "sim"


def test_a_merge_on_another_device_measures_nothing(data: ImageData, device: torch.device, tmp_path: Path) -> None:
    """An eps that fails on some samples is left out there, so that the shards have measured all blocks of the larger one."""
    attacks = [Breaks(eps=eps, where=(0.02,), among=(int(data.ids[0]),)) for eps in (0.02, 0.05)]
    here, there = merged(data, device, tmp_path, attacks=attacks)
    assert here == there
    assert [cell["status"] for cell in here["cells"]] == ["ok", "failed", "ok"]
