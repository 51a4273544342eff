"""Parts of a recipe that do not fit the data or the network are found before the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from freqrobust import Augmentation, Batch, ImageData, Regularizer, StepContext, train
from freqrobust.core.errors import PluginError, SpecError
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
        check_parts(plan(recipe), nn.Flatten(), data_of(), 0)
    assert "\n" not in str(error.value)
    check_parts(plan(Recipe(augment=[Returning()], regularizer=[Penalty()])), nn.Flatten(), data_of(n=1), 0)


def test_a_part_that_does_not_fit_leaves_no_files(tmp_path: Path) -> None:
    out = tmp_path / "run"
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(SpecError, match="no convolution with a kernel larger than 1x1"):
        train(linear, data=data_of(n=60), regularizer=["kernel-smoothness"], epochs=1, out=out)
    two = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    with pytest.raises(SpecError, match="autoaugment needs images of 1 or 3 channels, but these have 2"):
        train(two, data=data_of(2, n=60), augment=["autoaugment"], normalize="none", epochs=1, out=out)
    assert not out.exists()
