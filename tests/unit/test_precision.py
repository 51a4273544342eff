"""Attacks in bf16: which samples they cannot decide, and that these are attacked in fp32 as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import Attack, InputDefense, evaluate, save_adversarial
from freqrobust.plugins.context import AttackContext


class Line(nn.Module):
    """Two classes; the margin of class 0 is the first pixel less 0.5, a thousand times.."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


class OnlyInFp32(Attack):
    """Succeeds on every sample, but only if the logits that it sees are not rounded to bf16; else it returns ``missed``."""

    missed: float = 0.999

    def threat(self) -> None:
        return None

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        seen.append((context.ids.tolist(), context.slack))
        if torch.equal(model(images), 1000 * images.flatten(1)):
            return images.flip(-1)
        return images * self.missed


seen: list[tuple[list[int], float]] = []


def test_samples_that_bf16_cannot_decide_are_attacked_in_fp32_as_well() -> None:
    """Those that are correct by less than 3 % of the largest logit after the attack."""
    seen.clear()
    shares = torch.tensor([0.001, 0.011, 0.029, 0.031, 0.07, 0.5])
    images = torch.stack([torch.full((6,), 0.801), 0.801 * (1 - shares)], dim=1).view(6, 1, 1, 2)
    labels = torch.zeros(6, dtype=torch.int64)
    report = evaluate(Line(), (images, labels), attacks=[OnlyInFp32()], precision="bf16", compile="off", diagnose=None)
    assert [ids for ids, _ in seen] == [[0, 1, 2, 3, 4, 5], [0, 1, 2]]
    assert seen[1][1] < seen[0][1] == pytest.approx(0.03)
    assert report.cells[1].correct == 3
    assert report.cells[1].forwards == 6 + 6 + 3 + 3 + 3  # twice the attack, the predictions, and those of 8 bits
    seen.clear()
    report = evaluate(Line(), (images, labels), attacks=[OnlyInFp32()], compile="off", diagnose=None)
    assert [ids for ids, _ in seen] == [[0, 1, 2, 3, 4, 5]]
    assert report.cells[1].correct == 0


def test_samples_on_which_an_attack_without_a_budget_finds_nothing_are_attacked_in_fp32_as_well() -> None:
    """It returned the image itself, whose margin does not say how near the attack was."""
    seen.clear()
    images, labels = torch.tensor([0.801, 0.1]).expand(3, 1, 1, 2).clone(), torch.zeros(3, dtype=torch.int64)
    options = {"precision": "bf16", "compile": "off", "diagnose": None}
    report = evaluate(Line(), (images, labels), attacks=[OnlyInFp32(missed=1)], **options)
    assert [ids for ids, _ in seen] == [[0, 1, 2], [0, 1, 2]]
    assert report.cells[1].correct == 0


class Together(OnlyInFp32):
    """Its results depend on the other images of the batch."""

    batch_invariant: ClassVar[bool] = False


def test_attacks_that_depend_on_the_batch_are_not_repeated_on_a_part_of_it(tmp_path: Path) -> None:
    """A universal perturbation of the samples that are left is another attack."""
    seen.clear()
    images, labels = torch.tensor([0.801, 0.8]).expand(3, 1, 1, 2).clone(), torch.zeros(3, dtype=torch.int64)
    options: dict[str, Any] = {"precision": "bf16", "compile": "off"}
    for missed in (0.999, 1):
        attacks = [Together(missed=missed)]
        evaluate(Line(), (images, labels), attacks=attacks, defenses=[Same()], diagnose=None, **options)
        save_adversarial(Line(), (images, labels), tmp_path / str(missed), attacks=attacks, **options)
    assert {tuple(ids) for ids, _ in seen} == {(0, 1, 2)}
    assert len(seen) == 2 * 4  # undefended, defended, oblivious, and what is saved


class Mirrored(InputDefense):
    """The two pixels change places."""

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(-1)


def test_an_image_that_the_source_misclassifies_is_not_attacked_again() -> None:
    """An attack on it has returned what it should."""
    seen.clear()
    images, labels = torch.tensor([0.801, 0.1]).expand(3, 1, 1, 2).clone(), torch.tensor([0, 1, 1])
    options: dict[str, Any] = {"precision": "bf16", "compile": "off", "diagnose": None}
    evaluate(Line(), (images, labels), attacks=[OnlyInFp32(missed=1)], defenses=[Mirrored()], **options)
    assert seen == [([0], 0.03), ([0], 1e-5), ([1, 2], 0.03), ([1, 2], 1e-5), ([1, 2], 0.03)]


class Worse(OnlyInFp32):
    """In fp32 it changes the first sample by more, and finds nothing; the second one becomes adversarial."""

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        changed = super().perturb(model, images, labels, context)
        first = (context.ids == 0).view(-1, 1, 1, 1) & (changed == images.flip(-1))
        return torch.where(first, 0.5 * images, changed)


def test_a_saved_example_is_replaced_by_one_that_is_adversarial_alone(tmp_path: Path) -> None:
    images, labels = torch.tensor([0.801, 0.8]).expand(2, 1, 1, 2).clone(), torch.zeros(2, dtype=torch.int64)
    saving = save_adversarial(Line(), (images, labels), tmp_path, attacks=[Worse()], precision="bf16", compile="off")
    with np.load(saving.paths[0]) as saved:
        found = torch.from_numpy(saved["images"])
        assert saved["predictions"].tolist() == [0, 1]
    torch.testing.assert_close(found, torch.stack([0.999 * images[0], images[1].flip(-1)]))


@pytest.fixture
def classified() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A network that classifies all of the images correctly, by logits that differ little."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    images = torch.rand(40, 1, 8, 8)
    with torch.no_grad():
        return model, (images, model(images).argmax(dim=1))


#: Without bf16 they misclassify every sample. DeepFool stops in bf16 where two logits are equal: the linearised boundary is
#: no step away.
MINIMUM_NORM = ["deepfool", "fmn:steps=20"]
BF16 = {"precision": "bf16", "compile": "off", "batch_size": 40}


class Same(InputDefense):
    """Changes nothing."""

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_minimum_norm_attacks_are_not_weaker_in_bf16(classified) -> None:
    """Nor are their examples when another model is attacked with them."""
    report = evaluate(*classified, attacks=MINIMUM_NORM, defenses=[Same()], diagnose=None, **BF16)
    found = [(cell.defense, cell.knowledge, cell.correct) for cell in report.cells if cell.attack != "clean"]
    assert sum(knowledge == "oblivious" for _, knowledge, _ in found) == 2
    assert [correct for *_, correct in found] == [0] * 6


def test_examples_are_saved_that_are_adversarial_in_fp32(classified, tmp_path: Path) -> None:
    saving = save_adversarial(*classified, tmp_path, attacks=MINIMUM_NORM, **BF16)
    for path in saving.paths:
        with np.load(path) as saved:
            assert (saved["predictions"] != saved["labels"]).all()
    assert len(saving.paths) == 2


class Cancels(nn.Module):
    """Logits that are small differences of large numbers, which bf16 rounds by more than they differ."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 4, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[100.0, 1.0], [100.0, 0.0], [100.0, -1.0], [100.0, 0.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = self.linear(x.flatten(1))
        return torch.stack([large[:, 0] - large[:, 1], large[:, 2] - large[:, 3]], dim=1)


def test_rounding_to_bf16_is_no_sign_of_a_random_model() -> None:
    """The check that outputs repeat is made in fp32."""
    images = torch.rand(30, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(30, dtype=torch.int64)
    options = {"attacks": ["fgsm:eps=0.1"], "precision": "bf16", "compile": "off", "diagnose": "quick"}
    report = evaluate(Cancels(), (images, labels), **options)
    (verdict,) = report.diagnostics
    assert {check.name: check.status for check in verdict.checks}["repeatability"] == "passed"
