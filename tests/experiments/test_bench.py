"""A bench trains once, keeps what it trained, and refuses data that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.training_config import Recipe
from freqrobust.data.loading import load_data
from freqrobust.experiments.bench import Bench
from freqrobust.models.normalization import training_normalization


class Said:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, label: str, total: int) -> None: ...

    def advance(self, amount: int) -> None: ...

    def end(self, summary: str) -> None:
        self.lines.append(summary)

    say = end


def build() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


RECIPE = Recipe(epochs=2, batch_size=50, augment=[], optimizer="adam:lr=0.01")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(cache_dir=tmp_path, progress=Said())


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.flatten() for p in model.parameters()])


def test_a_training_is_made_once(bench: Bench) -> None:
    data, calls = bench.train.first(200), []

    def watch(model: nn.Module) -> dict[str, Any]:
        assert not model.training
        calls.append(1)
        return {"sum": float(weights(model).sum())}

    first = bench.fit(build, data, RECIPE, name="linear", watch=watch)
    assert (len(calls), len(first.epochs), len(first.watched)) == (3, 2, 3)
    assert first.watched[-1]["sum"] == pytest.approx(float(weights(first.model).sum()))
    assert len({row["sum"] for row in first.watched}) == 3
    again = bench.fit(build, data, RECIPE, name="linear", watch=watch)
    assert len(calls) == 3
    assert torch.equal(weights(first.model), weights(again.model))
    assert (again.epochs, again.watched) == (first.epochs, first.watched)
    assert bench.progress.lines[-1] == "linear: taken from the cache"  # type: ignore[attr-defined]
    assert len(bench.progress.lines) == 2  # type: ignore[attr-defined]  # no line for each epoch
    assert not again.model.training
    assert not any(p.requires_grad for p in again.model.parameters())


def test_what_changes_the_result_is_trained_again(bench: Bench) -> None:
    data = bench.train.first(100)
    trained = {"first": bench.fit(build, data, RECIPE, name="n")}
    trained["recipe"] = bench.fit(build, data, RECIPE.replace(batch_size=40), name="n")
    trained["seed"] = bench.fit(build, data, RECIPE, name="n", seed=1)
    trained["data"] = bench.fit(build, bench.train.first(90), RECIPE, name="n")
    trained["plain"] = bench.fit(build, data, RECIPE, name="n", normalize=False)
    found = {name: weights(one.model) for name, one in trained.items()}
    assert all(not torch.equal(found[a], found[b]) for a in found for b in found if a < b)
    assert len(list((bench.cache_dir / "experiments").glob("*.pt"))) == 5  # type: ignore[operator]


def test_what_is_recorded_on_other_test_images_is_recorded_again(tmp_path: Path) -> None:
    """The training is the same, but not the accuracy on the test images after each epoch."""
    digits, recorded = load_data("digits"), []
    train = digits.first(100)
    for test in (digits.take(torch.arange(100, 140)), digits.take(torch.arange(140, 180))):
        bench = Bench(scale="cpu", train_spec=train, test_spec=test, cache_dir=tmp_path)
        images, labels, _ = bench.test.batch(torch.arange(len(test)), bench.device)

        def watch(model: nn.Module, images: torch.Tensor = images, labels: torch.Tensor = labels) -> dict[str, Any]:
            return {"right": (model(images).argmax(dim=1) == labels).int().tolist()}

        fitted = bench.fit(build, bench.train, RECIPE, name="n", watch=watch)
        with torch.no_grad():
            now = watch(fitted.model)
        assert fitted.watched[-1] == now
        recorded.append(now)
    assert recorded[0] != recorded[1]


def test_the_global_generator_is_left_alone(bench: Bench) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    bench.fit(build, bench.train.first(50), RECIPE, name="n")
    assert torch.equal(torch.rand(2), expected)


def test_a_damaged_file_is_replaced(bench: Bench) -> None:
    data = bench.train.first(50)
    first = bench.fit(build, data, RECIPE, name="n")
    (file,) = (bench.cache_dir / "experiments").glob("*.pt")  # type: ignore[operator]
    file.write_bytes(b"no checkpoint")
    again = bench.fit(build, data, RECIPE, name="n")
    assert torch.equal(weights(first.model), weights(again.model))
    assert file.read_bytes() != b"no checkpoint"


def test_anything_can_be_kept(bench: Bench) -> None:
    calls = []

    def make() -> dict[str, Any]:
        calls.append(1)
        return {"a": torch.ones(2), "b": [1, 2.5]}

    for _ in range(2):
        kept = bench.kept("x", ["x", 1], make)
        assert torch.equal(kept["a"], torch.ones(2))
        assert kept["b"] == [1, 2.5]
    assert len(calls) == 1
    bench.kept("x", ["x", 2], make)
    Bench().kept("x", ["x", 1], make)  # no cache
    assert len(calls) == 3


def test_the_normalization_is_that_of_the_images(bench: Bench) -> None:
    data = bench.train
    found = training_normalization(data)
    assert found.mean == pytest.approx([float(data.images.mean())], abs=1e-6)
    assert found.std == pytest.approx([float(data.images.std(unbiased=False))], abs=1e-5)


def test_accuracies_are_those_of_the_network(bench: Bench) -> None:
    data = bench.test.first(80)
    model = build().eval()
    with torch.no_grad():
        expected = (model(data.images).argmax(dim=1) == data.labels).numpy()
    clean, low = bench.correct_each(model, data, [None, "lfc:radius=3"])
    assert np.array_equal(clean, expected)
    filtered = bench.shifted(data, "lfc:radius=3")
    with torch.no_grad():
        assert np.array_equal(low, (model(filtered.images).argmax(dim=1) == data.labels).numpy())


def test_only_what_was_used_is_recorded() -> None:
    bench = Bench(test_spec=load_data("digits").first(20), train_spec=load_data("digits").first(30), scale="cpu")
    bench.check_data()
    assert bench.used == {}
    assert len(bench.train) == 30
    assert list(bench.used) == ["train"]


def test_no_data_at_the_scale_cpu() -> None:
    with pytest.raises(SpecError, match="--scale cpu needs --data and --train-data"):
        _ = Bench(scale="cpu").train


@pytest.mark.parametrize(
    ("test", "train", "message"),
    [
        ((1, 10, 8), (3, 10, 32), r"the test images \(.*\) are 1 x 8 x 8, but the training images \(.*\) 3 x 32 x 32"),
        ((1, 1, 8), (1, 1, 8), r"the training data \(.*\) has one class only"),
        ((1, 10, 8), (1, 2, 8), r"the test data \(.*\) has 10 classes, but the training data \(.*\) only 2"),
    ],
)
def test_data_that_does_not_fit(test: tuple[int, int, int], train: tuple[int, int, int], message: str) -> None:
    def made(channels: int, classes: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(20, channels, side, side), torch.arange(20) % classes

    with pytest.raises(FreqRobustError, match=message):
        Bench(scale="cpu", test_spec=made(*test), train_spec=made(*train)).check_data()
