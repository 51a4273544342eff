"""Warnings are data: what makes numbers doubtful is in the report, and only then."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.core.errors import DataError, ModelError


class Changed(nn.Module):
    """The network with something wrong about it."""

    def __init__(self, network: nn.Module, how: str) -> None:
        super().__init__()
        self.network, self.how = network, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        if self.how == "softmax":
            return logits.softmax(dim=1)
        if self.how == "log-softmax":
            return logits.log_softmax(dim=1)
        if self.how == "nan for some":
            return torch.where(x.mean(dim=(1, 2, 3)).gt(0.32)[:, None], float("nan"), logits)
        if self.how == "nan for the label":
            return logits * torch.tensor([float("nan")] + [1.0] * 9)
        if self.how == "shuffled":
            return logits.roll(1, dims=1)
        if self.how == "saturated":
            return (1e4 * logits).softmax(dim=1)
        if self.how == "detached":
            return self.network(x.detach())
        assert self.how == "nothing"
        return logits


def codes(network, digits, how: str, attacks=("pgd:eps=0.1,steps=3", "lfc:radius=3")):
    report = evaluate(Changed(network, how), digits, attacks=attacks, device="cpu")
    return report, sorted({warning.code for warning in report.warnings})


EXPECTED = {
    "nothing": [],
    "log-softmax": [],
    "softmax": ["softmax-outputs"],
    "saturated": ["softmax-outputs", "zero-gradients"],
    "detached": ["no-gradients"],
    "shuffled": ["near-chance-accuracy"],
    "nan for some": ["non-finite-logits", "zero-gradients"],  # nothing leads out of where it is not a number
}


@pytest.mark.parametrize("how", EXPECTED)
def test_warnings_name_what_is_wrong(network, digits, how) -> None:
    report, found = codes(network, digits, how)
    assert found == EXPECTED[how]
    assert all(warning.message and warning.defense == "undefended" for warning in report.warnings)
    assert report.status == "complete"


def test_what_is_not_a_number_is_never_right(network, digits) -> None:
    report, _ = codes(network, digits, "nan for some")
    bright = digits.images.mean(dim=(1, 2, 3)) > 0.32
    assert 0 < bright.sum() < len(digits)
    assert not report.cell("clean").right()[bright].any()
    reference = evaluate(network, digits, attacks=["clean"], device="cpu").cell("clean").right()
    assert report.cell("clean").right()[~bright].tolist() == reference[~bright].tolist()
    with pytest.raises(ModelError, match="NaN or infinite values for the first images"):
        codes(network, digits.take(bright.nonzero()[:, 0]), "nan for some")


def test_one_nan_among_the_logits_is_enough_to_be_wrong(network, digits) -> None:
    """``argmax`` would call the NaN the largest: class 0 would be right for nothing."""
    zeros = digits.take((digits.labels == 0).nonzero()[:, 0])
    report, found = codes(network, zeros, "nan for the label", attacks=["clean"])
    assert report.cell("clean").correct == 0
    assert "non-finite-logits" in found


def test_a_constant_prediction_is_near_chance_and_a_good_one_is_not(digits) -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :10] * 0.01 + torch.tensor([0.0] * 9 + [5.0])

    report = evaluate(Constant(), digits, attacks=["clean"], device="cpu")
    share = float((digits.labels == 9).float().mean())
    assert report.cell("clean").accuracy == pytest.approx(share)
    assert report.cell("clean").chance_accuracy == pytest.approx(share)
    assert [warning.code for warning in report.warnings] == ["near-chance-accuracy"]


MISFITS = {
    "three channels": (nn.Conv2d(3, 10, 8), DataError, "grayscale images, but the model takes 3 channels"),
    "other size": (
        nn.Sequential(nn.Flatten(), nn.Linear(100, 10)),
        ModelError,
        r"fails on images of shape \(1, 8, 8\)",
    ),
    "few classes": (nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), DataError, "labels up to 9, but the model has 5"),
    "feature maps": (nn.Conv2d(1, 10, 3), ModelError, r"should return logits \(2, K\)"),
    "one output": (nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), ModelError, "K >= 2"),
}


@pytest.mark.parametrize("how", MISFITS)
def test_what_does_not_fit_is_one_clear_line_and_nothing_is_measured(digits, how) -> None:
    model, error, match = MISFITS[how]
    with pytest.raises(error, match=match) as raised:
        evaluate(model, digits, attacks=["clean"], device="cpu")
    assert "\n" not in str(raised.value)


def test_failed_cells_are_warned_of(network, digits) -> None:
    report = evaluate(network, digits, attacks=["pgd:eps=0.1,steps=2,loss=dlr"], defenses=[], device="cpu")
    assert report.warnings == []
    two = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    labels = torch.arange(64) % 2
    report = evaluate(two, (digits.images, labels), attacks=["pgd:eps=0.1,steps=2,loss=dlr"], device="cpu")
    failed = [warning for warning in report.warnings if warning.code == "cell-failed"]
    assert report.cells[1].status == "failed"
    assert "use loss=margin" in report.cells[1].error
    assert len(failed) == 1
    assert "missing from the worst case" in failed[0].message
