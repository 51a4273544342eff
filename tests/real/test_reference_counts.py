"""Counts by an independent NumPy reference on the first 500 test images of CIFAR-10; one may differ."""

from __future__ import annotations

import numpy as np
import pytest

from freqrobust import evaluate, load_model

RADII = (4, 8, 12, 16)
CLEAN = {"resnet20": 455, "cifar_small_36px": 269}
LFC = {"resnet20": (92, 193, 404, 440), "cifar_small_36px": (234, 269, 268, 269)}
HFC = {"resnet20": (222, 113, 76, 49), "cifar_small_36px": (54, 51, 51, 51)}
RHO = (0, 0.1, 0.25, 0.5, 1.0)
SMOOTHED = {"zero": (455, 413, 251, 110, 58), "symmetric": (455, 427, 304, 112, 50)}


@pytest.fixture(scope="module")
def reports(models, cifar):
    return {
        name: evaluate(model, cifar, suite="frequency", device="cpu", batch_size=125) for name, model in models.items()
    }


def test_checkpoints_are_recognised(models) -> None:
    resnet = models["resnet20"]
    assert (resnet.arch, resnet.normalization.preset, resnet.normalization.source) == (
        "resnet20",
        "imagenet",
        "architecture",
    )
    assert models["cifar_small_36px"].normalization.source == "given"


def test_normalisation_of_the_architecture_is_not_doubted(shared, cifar) -> None:
    for name in ("resnet20-12fca82f.th", "resnet32-d509ac18.th"):
        model = load_model(shared / "checkpoints" / name, data=cifar)
        assert model.normalization.warning is None
        assert model.normalization.preset == "imagenet"
        assert model.normalization.scores["imagenet"] > model.normalization.scores["none"] + 0.1


@pytest.mark.parametrize("name", CLEAN)
def test_clean_and_filtered_counts(reports, name) -> None:
    report = reports[name]
    assert abs(report.cell("clean").correct - CLEAN[name]) <= 1
    for kind, expected in (("lfc", LFC[name]), ("hfc", HFC[name])):
        found = [report.cell(f"{kind}:radius={radius}").correct for radius in RADII]
        np.testing.assert_allclose(found, expected, atol=1, err_msg=kind)


def test_the_two_components_together(reports) -> None:
    """At radius 12: both right, only LFC, only HFC, neither."""
    low, high = (reports["resnet20"].cell(f"{kind}:radius=12").right() for kind in ("lfc", "hfc"))
    found = [(low & high).sum(), (low & ~high).sum(), (~low & high).sum(), (~low & ~high).sum()]
    np.testing.assert_allclose(found, [54, 350, 22, 74], atol=1)


def test_chance_is_beside_what_is_worth_nothing(reports) -> None:
    """HFC of the robust network is right as often as a draw would be, and LFC is not."""
    high = reports["cifar_small_36px"].cell("hfc:radius=12")
    low = reports["cifar_small_36px"].cell("lfc:radius=12")
    assert high.ci95[0] <= high.chance_accuracy <= high.ci95[1]
    assert low.ci95[0] > low.chance_accuracy + 0.3


@pytest.mark.parametrize("boundary", SMOOTHED)
def test_smoothed_counts(models, cifar, boundary) -> None:
    rho = "[" + ",".join(map(str, RHO)) + "]"
    report = evaluate(
        models["resnet20"],
        cifar,
        attacks=["clean"],
        defenses=[f"smooth:rho={rho},boundary={boundary}"],
        undefended=False,
        device="cpu",
        batch_size=125,
    )
    found = [cell.correct for cell in report.cells]
    np.testing.assert_allclose(found, SMOOTHED[boundary], atol=1)
