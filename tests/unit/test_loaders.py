"""``DataLoader``s, datasets of Hugging Face, and datasets without a length as data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from freqrobust import FreqRobustError, ImageData, attack, evaluate
from freqrobust.core.errors import DataError
from freqrobust.data.loading import as_data
from support.networks import tiny

X, Y = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
PAIRS = TensorDataset(X, Y)


class Named(Dataset[Any]):
    """A dataset in the style of torchvision."""

    classes = ("cat", "dog", ["bird", "fowl"])

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        if index >= len(X):
            raise IndexError(index)
        return X[index], int(Y[index])


class Columns(Named):
    """Samples are dictionaries."""

    names = ("image", "label")

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return dict(zip(self.names, (image, label), strict=True))


class Pixels(Columns):
    names = ("pixel_values", "labels")


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from zip(X, Y, strict=True)


class WithLength(Endless):
    def __iter__(self) -> Iterator[Any]:
        yield from zip(X, Y, strict=True)

    def __len__(self) -> int:
        return len(X)


@pytest.mark.parametrize(
    "data",
    [
        DataLoader(PAIRS, batch_size=4),
        DataLoader(PAIRS, batch_size=4, num_workers=2),
        DataLoader(PAIRS, batch_size=None),
        DataLoader(PAIRS, batch_sampler=BatchSampler(range(10), 3, drop_last=False)),
        DataLoader(Columns(), batch_size=3),
        DataLoader(Pixels(), batch_size=3),
        DataLoader(WithLength(), batch_size=3),
        DataLoader(PAIRS, batch_size=4, collate_fn=lambda pairs: {"img": X[:0], "label": Y[:0]} if not pairs else {
            "img": torch.stack([x for x, _ in pairs]), "label": torch.stack([y for _, y in pairs])
        }),
        Columns(),
        WithLength(),
        {"images": X, "labels": Y},
    ],
    ids=lambda data: type(data).__name__,
)  # fmt: skip
def test_the_samples_come_in_their_order(data: Any) -> None:
    before = torch.random.get_rng_state()
    loaded = as_data(data)
    assert torch.equal(loaded.images, X)
    assert torch.equal(loaded.labels, Y)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert loaded.sha256 == as_data((X, Y)).sha256


@pytest.mark.parametrize(
    "data", [DataLoader(PAIRS, batch_size=4), DataLoader(Endless(), batch_size=2), Endless(), zip(X, Y, strict=True)]
)
def test_the_first_samples_are_enough(data: Any) -> None:
    loaded = as_data(data, first=6)
    assert torch.equal(loaded.images, X[:6])
    assert (loaded.ids.tolist(), loaded.subset) == (list(range(6)), True)


def test_evaluation_and_attack_of_a_loader() -> None:
    model, data = tiny(n=12)
    loader = DataLoader(TensorDataset(data.images, data.labels), batch_size=5)
    options: Any = {"attacks": ["fgsm"], "device": "cpu", "diagnose": None}
    expected = evaluate(model, data, **options, limit=6)
    report = evaluate(model, loader, **options, limit=6, train_data=loader)
    assert [cell.correct for cell in report.cells] == [cell.correct for cell in expected.cells]
    assert (report.data.sha256, report.data.spec) == (expected.data.sha256, "DataLoader")
    endless = evaluate(model, (pair for pair in zip(data.images, data.labels, strict=True)), **options, first=3)
    assert endless.data.ids == [0, 1, 2]
    images, labels = next(iter(loader))
    assert len(attack(model, images, labels, "fgsm", device="cpu")) == 5


def test_the_names_of_the_classes() -> None:
    names = ("cat", "dog", "bird")
    for data in (Named(), Subset(Named(), [0, 1]), Subset(Subset(Named(), [1, 2]), [0]), DataLoader(Named())):
        assert as_data(data).class_names == names
    assert as_data(PAIRS).class_names == ()
    unfit = Named()
    unfit.classes = ("cat", "dog")
    assert as_data(unfit).class_names == ()  # labels up to 2
    known = ImageData(X, Y, 3, class_names=names)
    assert as_data(known).class_names == names


def image(mode: str, level: int) -> Image.Image:
    return Image.new("L", (8, 8), level).convert(mode)


class Pictures(Named):
    def __init__(self, *images: Image.Image) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], index


@pytest.mark.parametrize(
    ("modes", "channels"),
    [(("L", "L"), 1), (("1", "L"), 1), (("LA",), 1), (("L", "RGB"), 3), (("P", "RGBA"), 3), (("L", "RGBA", "P"), 3)],
)
def test_modes_of_pictures(modes: tuple[str, ...], channels: int) -> None:
    data = as_data(Pictures(*(image(mode, 255) for mode in modes)))
    assert data.images.shape == (len(modes), channels, 8, 8)
    assert data.images.dtype == torch.uint8
    assert bool((data.images == 255).all())


SHUFFLED = "DataLoader: its samples are shuffled, so that results could not be repeated; make it with shuffle=False"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(PAIRS, shuffle=True), SHUFFLED),
        (DataLoader(PAIRS, sampler=SubsetRandomSampler([1, 2])), SHUFFLED),
        (DataLoader(PAIRS, sampler=WeightedRandomSampler([1.0] * 10, 4)), SHUFFLED),
        (DataLoader(PAIRS, batch_sampler=BatchSampler(RandomSampler(PAIRS), 3, drop_last=False)), SHUFFLED),
        (DataLoader(TensorDataset(3 * X - 1, Y)), r"DataLoader: float images should be in \[0, 1\].*before normalisation"),
        (DataLoader(TensorDataset(X)), r"DataLoader: expected \(image, label\), or a dictionary.* a list of 1"),
        (DataLoader(TensorDataset(X, Y, Y)), "but got a list of 3"),
        (DataLoader(X), "but got a Tensor"),
        (DataLoader(TensorDataset(X, Y.float())), "DataLoader: expected integer labels, but got torch.float32"),
        (DataLoader(TensorDataset(X.flatten(1), Y)), r"DataLoader: expected images \(N, C, H, W\)"),
        (DataLoader(TensorDataset(X[:0], Y[:0])), "DataLoader is empty"),
        (DataLoader(Endless()), "DataLoader has no length and may have no end: give first=N to use its first N samples"),
        (Endless(), "Endless has no length and may have no end: give first=N"),
        (iter([(X[0], 1)]), "list_iterator has no length and may have no end: give first=N"),
        (Pictures(image("L", 1).convert("I")), "expected images with 8 bits, but one has the mode I"),
        ({"train": PAIRS, "test": PAIRS}, "expected one dataset, but got a dict with 'train', 'test'; give one of them"),
        ({"x": X, "label": Y}, "no column image or images .* among the columns x, label; rename the column of the images"),
        ({"image": X, "y": Y}, "no column label or labels among the columns image, y; rename the column of the labels"),
        (TensorDataset, "expected .images, labels., a dataset, a DataLoader or a data spec, but got type"),
        (X, "a DataLoader or a data spec, but got Tensor"),
    ],
)  # fmt: skip
def test_wrong_data_is_one_line(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        as_data(data)
    assert "\n" not in str(error.value)


def test_images_of_several_sizes() -> None:
    batches = DataLoader([(X[0], 1), (X[1, :, :4], 0)], batch_size=1)  # type: ignore[arg-type]
    with pytest.raises(FreqRobustError, match=r"DataLoader: images differ in shape: \(3, 4, 8\), \(3, 8, 8\)"):
        as_data(batches)


# Hugging Face


@pytest.fixture(scope="module")
def datasets() -> Any:
    return pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def animals(datasets: Any) -> Any:
    """Six images with two columns that could be labels, and texts."""
    arrays = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    values = {"image": [Image.fromarray(a) for a in arrays], "label": [0, 1, 2] * 2, "text": list("abcdef")}
    names = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "bird"])}
    return datasets.Dataset.from_dict(values, features=datasets.Features(names | {"text": datasets.Value("string")}))


@pytest.mark.slow
def test_datasets_of_hugging_face(datasets: Any, animals: Any) -> None:
    expected = np.stack([np.asarray(picture) for picture in animals["image"]]).transpose(0, 3, 1, 2)
    torch_format = animals.with_format("torch")
    transformed = animals.with_transform(
        lambda batch: {"pixel_values": [torch.from_numpy(np.array(i)).permute(2, 0, 1) for i in batch["image"]],
                       "labels": batch["label"]}
    )  # fmt: skip
    renamed = animals.rename_column("image", "picture").rename_column("label", "kind")
    for data in (animals, torch_format, transformed, renamed, DataLoader(torch_format, batch_size=4)):
        loaded = as_data(data)
        assert np.array_equal(loaded.images.numpy(), expected)
        assert loaded.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert loaded.class_names == ("cat", "dog", "bird")
    streamed = as_data(animals.to_iterable_dataset(), first=4)
    assert np.array_equal(streamed.images.numpy(), expected[:4])
    assert streamed.class_names == ("cat", "dog", "bird")
    gray = [picture.convert(mode) for picture, mode in zip(animals["image"], "L" * 6, strict=True)]
    mixed = datasets.Dataset.from_dict({"img": [gray[0], *list(animals["image"])[1:]], "label": [0] * 6})
    assert as_data(mixed.cast_column("img", datasets.Image())).images.shape == (6, 3, 8, 8)


@pytest.mark.slow
def test_wrong_datasets_of_hugging_face(datasets: Any, animals: Any) -> None:
    two = animals.rename_column("label", "fine").add_column("coarse", [0] * 6)
    two = two.cast_column("coarse", datasets.ClassLabel(names=["a", "b"]))
    for data, message in (
        (datasets.DatasetDict(train=animals, test=animals), "a DatasetDict with 'train', 'test'; give one of them"),
        (animals.remove_columns("image"), "Dataset: no column image or .* among the columns label, text"),
        (animals.remove_columns("label"), "Dataset: no column label or labels among the columns image, text"),
        (two, r"several columns of type ClassLabel \(fine, coarse\).*rename the column of the labels to 'label'"),
        (animals.remove_columns("label").rename_column("text", "label"), "invalid literal"),
        (animals.to_iterable_dataset(), "IterableDataset has no length and may have no end: give first=N"),
    ):
        with pytest.raises(DataError, match=message) as error:
            as_data(data)
        assert "\n" not in str(error.value)


def test_arrays_that_cannot_be_written() -> None:
    images, labels = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32), np.arange(4)
    samples = [(image.copy(), int(label)) for image, label in zip(images, labels, strict=True)]
    for array in (images, labels, *(image for image, _ in samples)):
        array.flags.writeable = False  # torch warns of them
    assert np.array_equal(as_data((images, labels)).images.numpy(), images)
    assert np.array_equal(as_data(samples).images.numpy(), images)
