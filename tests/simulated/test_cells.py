"""Reports of a run on an accelerator have the counts of a run on the CPU, for every registered plugin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from freqrobust import Report, evaluate, save_adversarial, verify
from freqrobust.harness.devices import auto_batch_size
from freqrobust.plugins.registry import attacks, certificates, criteria, defenses
from support.networks import untrained

SAMPLES = 12
ATTACKS = ["pgd:eps=[0.05,0.1],steps=5", "apgd:eps=0.1,steps=6,targets=1", "lfc:radius=3"]
#: Required parameters of certificates; the defense that one is about, if it is not about the undefended model.
CERTIFICATES: dict[str, dict[str, Any]] = {"smoothing": {"n": 60, "n0": 20}}
ABOUT = {"smoothing": "randomized-smoothing:sigma=0.25,copies=3", "band": "lowpass:radius=2"}


def cells(report: Report) -> list[Any]:
    """What is equal on both: all but the device, times, and the passes of samples that are done but carried along."""
    left_out = {"seconds", "forwards", "backwards", "perturbation"}
    return [cell.model_dump(exclude=left_out) for cell in report.cells]


@pytest.fixture
def both(device: torch.device) -> Callable[..., tuple[Report, Report]]:
    """``both(model, data, **options)``: the reports of the CPU and of the accelerator."""

    def run(*given: Any, **options: Any) -> tuple[Report, Report]:
        here, there = (
            evaluate(*given, **{"diagnose": None, "batch_size": SAMPLES, **options, "device": where})
            for where in (torch.device("cpu"), device)
        )
        assert here.environment.device == "cpu"
        assert there.environment.device == "sim"
        assert {cell.error for cell in there.cells} == {None}
        return here, there

    return run


@pytest.mark.parametrize("name", attacks.names())
def test_attacks(both, network, digits, make, name) -> None:
    here, there = both(network, digits.first(SAMPLES), attacks=[make(attacks, name)])
    assert cells(there) == cells(here)


@pytest.mark.parametrize("name", ["FGSM", "PGD", "DeepFool", "Square"])
def test_attacks_of_torchattacks(both, network, digits, name) -> None:
    pytest.importorskip("torchattacks")
    here, there = both(network, digits.first(SAMPLES), attacks=[f"torchattacks:{name}"])
    assert cells(there) == cells(here)


@pytest.mark.parametrize("name", defenses.names())
def test_defenses(both, network, digits, training_digits, make, tmp_path, name) -> None:
    plugin = make(defenses, name)
    specs = ATTACKS if not plugin.stochastic else ["pgd:eps=0.1,steps=2", "lfc:radius=3"]
    options = {"attacks": specs, "defenses": [plugin], "undefended": False, "cache_dir": tmp_path}
    here, there = both(network, digits.first(SAMPLES), train_data=training_digits, **options)
    assert cells(there) == cells(here)


@pytest.mark.parametrize("name", criteria.names())
def test_criteria(both, network, digits, make, name) -> None:
    few = digits.first(SAMPLES)
    options = {
        "attacks": [spec for spec in ATTACKS if "lfc" not in spec] + ["fmn:steps=20", "square:eps=0.2,queries=20"]
    }
    here, there = both(network, few, criterion=make(criteria, name), **options)
    assert cells(there) == cells(here)


@pytest.mark.parametrize("name", certificates.names())
def test_certificates(both, network, digits, make, name) -> None:
    plugin = make(certificates, name, **CERTIFICATES.get(name, {}))
    about = ABOUT.get(name)
    options = {"defenses": [about] if about else None, "undefended": about is None, "oblivious": False}
    here, there = both(network, digits.first(SAMPLES), attacks=["clean"], certify=[plugin], **options)
    (expected,), (found,) = here.certificates, there.certificates
    assert (found.status, found.error) == ("ok", None)
    assert found.outcomes == expected.outcomes
    assert found.radii == expected.radii


@pytest.mark.parametrize(
    ("defense", "depth"),
    # the full one of a random defense averages ten draws in every pass, which takes minutes here
    [("bit-depth:bits=3", "quick"), ("bit-depth:bits=3", "full"), ("gaussian-noise:sigma=0.1", "quick")],
)
def test_the_diagnosis(both, digits, defense, depth) -> None:
    model = untrained(0, classes=10).eval()  # smaller: the full diagnosis of a random defense makes many passes
    few = digits.first(4)
    with torch.no_grad():
        few = replace(few, labels=model(few.images).argmax(dim=1))
    options = {"attacks": ["pgd:eps=0.05,steps=5"], "defenses": [defense], "diagnose": depth}
    here, there = both(model, few, **options)
    assert cells(there) == cells(here)
    assert len(there.diagnostics) == len(here.diagnostics) == 2
    for found, expected in zip(there.diagnostics, here.diagnostics, strict=True):
        assert found.verdict == expected.verdict
        assert [(c.name, c.status, c.additional) for c in found.checks] == [
            (c.name, c.status, c.additional) for c in expected.checks
        ]


def test_saved_examples(network, digits, device, tmp_path) -> None:
    few, found = digits.first(SAMPLES), []
    for where in (torch.device("cpu"), device):
        folder = tmp_path / where.type
        options = {"attacks": ["pgd:eps=0.1,steps=5"], "defenses": ["lowpass:radius=3"], "device": where}
        saved = save_adversarial(network, few, folder, **options)
        assert not saved.failed
        found.append([vars(one) | {"file": ""} for one in verify(folder, network, few, device=where)])
    assert found[0] == found[1]


def test_batches_of_a_device_that_is_not_known_are_those_of_the_cpu(network, device) -> None:
    here = auto_batch_size(network, (1, 8, 8), torch.device("cpu"))
    assert auto_batch_size(network.to(device), (1, 8, 8), device) == here
    network.to("cpu")


def test_an_attack_that_mixes_devices_fails_its_cell(network, digits, device) -> None:
    """As it would on CUDA, and as it cannot on the CPU."""
    from freqrobust import Attack

    class Mixes(Attack):
        kind = "shift"

        def perturb(self, model, images, labels, context):
            return images + torch.zeros(images.shape)

    report = evaluate(network, digits.first(4), attacks=[Mixes()], device=device)
    assert report.cells[-1].status == "failed"
    assert "Expected all tensors to be on the same device" in report.cells[-1].error
