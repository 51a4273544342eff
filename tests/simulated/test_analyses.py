"""Every registered analysis finds on an accelerator what it finds on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from freqrobust import analyze
from freqrobust.harness.analysis import analyses
from freqrobust.testing.analysis_rules import close, content
from support.networks import untrained

#: What would take too long otherwise.
PARAMS: dict[str, dict[str, Any]] = {
    "energy": {"shifts": ["lfc:radius=2", "hfc:radius=2", "lfc:radius=3"]},
    "spectrum": {"shifts": ["lfc:radius=2"], "attacks": ["pgd:eps=0.1,steps=2"]},
    "misalignment": {"radii": [1, 2, 3], "gallery": 1},
    "robustness-curve": {"attack": "fmn:steps=10"},
}


@pytest.mark.parametrize("name", analyses.names())
def test_analyses(network, digits, make, device, name) -> None:
    plugin = make(analyses, name, **PARAMS.get(name, {}))
    models = {"natural": network, "another": untrained(0, classes=10).eval()}  # some analyses compare with the first
    here, there = (
        analyze(models if plugin.needs_model else None, digits.first(20), plugin, device=where, picture="png")
        for where in (torch.device("cpu"), device)
    )
    assert close(content(there), content(here))
