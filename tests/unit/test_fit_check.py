"""Parts of a recipe that do not fit the data or the network are found before the training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from freqrobust import Augmentation, Batch, ImageData, Optimizer, Regularizer, Schedule, StepContext, train
from freqrobust.core.errors import ModelError, PluginError, SpecError
from freqrobust.core.training_config import Recipe
from freqrobust.training.fit_check import check_parts
from freqrobust.training.plan import plan


class Returning(Augmentation):
    """Returns something that is wrong in one way."""

    wrong: str = "nothing"

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        if self.wrong == "error":
            raise ZeroDivisionError("one\nover zero")
        if self.wrong == "images":
            return batch.images  # type: ignore[return-value]
        return batch.replace(images=batch.images[:, :, 1:]) if self.wrong == "shape" else batch


class Penalty(Regularizer):
    """Returns something that is wrong in one way."""

    wrong: str = "nothing"

    def penalty(self, model: nn.Module) -> torch.Tensor:
        if self.wrong == "error":
            raise ZeroDivisionError("one over zero")
        if self.wrong == "number":
            return 0.5  # type: ignore[return-value]
        return torch.zeros(3 if self.wrong == "several" else ())


class Rate(Schedule):
    """Returns something that is wrong in one way."""

    wrong: str = "nothing"

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        return {"nothing": 1.0, "text": "high", "infinite": float("inf")}[self.wrong]  # type: ignore[return-value]


class Made(Optimizer):
    """Fails."""

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        raise ValueError("no such rate")


LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def data_of(channels: int = 1, n: int = 6) -> ImageData:
    return ImageData(torch.rand(n, channels, 8, 8), torch.arange(n) % 3, 3)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Returning(wrong="error"), r"the augmentation Returning:wrong=error failed: ZeroDivisionError: one"),
        (Returning(wrong="images"), "should return a Batch, but returned Tensor"),
        (Returning(wrong="shape"), r"images of the shape \(2, 1, 8, 8\), but returned \(2, 1, 7, 8\)"),
        (Penalty(wrong="error"), "the regularizer Penalty:wrong=error failed: ZeroDivisionError: one over zero"),
        (Penalty(wrong="number"), "should return a tensor with one value, but returned float"),
        (Penalty(wrong="several"), r"should return a tensor with one value, but returned \(3,\)"),
    ],
    ids=lambda value: value.wrong if not isinstance(value, str) else "",
)
def test_what_a_part_returns_is_checked(part: Augmentation | Regularizer, message: str) -> None:
    key = "augment" if isinstance(part, Augmentation) else "regularizer"
    recipe = Recipe(**{"augment": [], key: [part]})
    with pytest.raises(PluginError, match=message) as error:
        check_parts(plan(recipe), LINEAR, data_of(), 0)
    assert "\n" not in str(error.value)
    check_parts(plan(Recipe(augment=[Returning()], regularizer=[Penalty()])), LINEAR, data_of(n=1), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": Rate(wrong="text")}, "should return a number, but returned high"),
        ({"schedule": Rate(wrong="infinite")}, "should return a number, but returned inf"),
        ({"schedule": Rate(wrong="no")}, "the schedule Rate:wrong=no failed: KeyError: 'no'"),
        ({"optimizer": Made()}, "the optimizer Made failed: ValueError: no such rate"),
    ],
    ids=["text", "infinite", "fails", "optimizer"],
)
def test_schedules_and_optimizers_are_checked(values: dict[str, Schedule | Optimizer], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        check_parts(plan(Recipe(**values)), LINEAR, data_of(), 0)


def test_a_network_without_parameters_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the network has no parameters that could be trained"):
        train(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), data=data_of(n=60), epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_part_that_does_not_fit_leaves_no_files(tmp_path: Path) -> None:
    out = tmp_path / "run"
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(SpecError, match="no convolution with a kernel larger than 1x1"):
        train(linear, data=data_of(n=60), regularizer=["kernel-smoothness"], epochs=1, out=out)
    two = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    with pytest.raises(SpecError, match="autoaugment needs images of 1 or 3 channels, but these have 2"):
        train(two, data=data_of(2, n=60), augment=["autoaugment"], normalize="none", epochs=1, out=out)
    assert not out.exists()
