"""Runs that are measured in small blocks, by one process or by several that share the tasks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from freqrobust import EvalConfig, Report
from freqrobust.core.progress import Progress, Silent
from freqrobust.harness import blocks
from freqrobust.harness.evaluate import Evaluation
from freqrobust.harness.sharing import Sharing

#: What differs from one measurement of the same to the next, and how it was decided whether to compile.
_TIMES = {"seconds", "created", "config", "compilation"}
CHEAP = {"device": "cpu", "batch_size": 10, "diagnose": None, "oblivious": False}


def in_blocks_of(patch: pytest.MonkeyPatch, size: int) -> None:
    """Measure blocks of so many samples from now on."""
    patch.setitem(blocks.SAMPLES, "cpu", size)


def shared_report(
    model: Any, data: Any, sharing: Sharing | None = None, progress: Progress | None = None, **options: Any
) -> Report | None:
    """What ``evaluate`` returns, in a process that measures its part of the tasks."""
    config = EvalConfig.of(EvalConfig(), {**CHEAP, **options})
    return Evaluation(model, data, config, progress or Silent()).report(sharing)


def content(report: Report | None) -> Any:
    """A report without timings."""
    assert report is not None
    return without_times(json.loads(report.model_dump_json()))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in _TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value
