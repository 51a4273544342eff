"""Every registered attack makes the same images on an accelerator as on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from freqrobust import attack
from freqrobust.attacks import active_set
from freqrobust.plugins.corruption_names import COMMON, EXTRA
from freqrobust.plugins.registry import attacks

#: Images that each attack is run on.
SAMPLES = 12
#: Further configurations of attacks, beside their defaults.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "pgd": [
        {"restarts": 2, "steps": 7},
        {"target": "least-likely", "steps": 4},
        {"target": "random", "steps": 4},
        {"norm": "l2", "eps": 0.5, "steps": 6},
        {"norm": "l1", "eps": 2.0, "steps": 6},
        {"eight_bit": True, "steps": 5},
    ],
    "apgd": [{"norm": "l1", "eps": 2.0, "steps": 12}, {"norm": "l2", "eps": 0.5, "steps": 12}, {"loss": "dlr"}],
    "aa": [{"eps": 0.1, "queries": 20}],
    "fgsm": [{"norm": "l1", "eps": 2.0}],
    "fmn": [{"norm": "l2"}, {"norm": "l1"}],
    "deepfool": [{"norm": "linf"}],
    "noise": [{"distribution": "gaussian", "norm": "l2"}, {"distribution": "sign", "norm": "l1"}],
    "lowfreq-pgd": [{"radius": 3, "norm": "l2", "eps": 0.5, "steps": 5}],
    "square": [{"norm": "l2", "eps": 1.0}, {"norm": "l1", "eps": 6.0}],
    "fourier": [{"norm": "l2", "eps": 1.0}],
    "corruption": [{"name": name, "severity": 3} for name in COMMON + EXTRA if name != "saturate"],
}
#: Finds examples by the ids that they were saved with: test_cells.py has it.
ELSEWHERE = {"replay"}
CASES = [(name, given) for name in attacks.names() if name not in ELSEWHERE for given in [{}, *VARIANTS.get(name, [])]]
GOALS = [
    pytest.param(name, given, goal, id="-".join([name, *map(str, given.values()), goal]))
    for name, given in CASES
    for goal in (("decide", "maximize") if attacks.get(name).kind == "adversarial" else ("maximize",))
    if (name, bool(given), goal) != ("aa", True, "maximize")  # which takes as long as all others together
]


@pytest.mark.parametrize(("name", "given", "goal"), GOALS)
def test_the_same_images(monkeypatch, device, network, digits, make, name, given, goal) -> None:
    # in batches of other sizes, sums may be rounded differently: the samples that are done leave in the same steps
    monkeypatch.setattr(active_set, "steps_between", lambda device: active_set.EVERY)
    few, plugin = digits.first(4 if (name, bool(given)) == ("aa", True) else SAMPLES), make(attacks, name, **given)
    here, there = (
        attack(network, few.images, few.labels, plugin, goal=goal, device=where, batch_size=SAMPLES)
        for where in (torch.device("cpu"), device)
    )
    assert torch.equal(there.is_adversarial, here.is_adversarial)
    assert torch.equal(there.predictions, here.predictions)
    assert torch.equal(there.images, here.images)
