"""Datasets laid out on disk as the real ones are."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from freqrobust import load_data
from freqrobust.core.errors import DataError, FreqRobustError

RNG = np.random.default_rng(0)


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def unchecked(monkeypatch) -> None:
    """torchvision compares checksums with those of the published files."""
    for module in ("cifar", "svhn", "mnist"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda *args: True)


@pytest.fixture
def offline(monkeypatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def cifar(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR's pickled batches: rows of 3072 bytes, channel by channel. Returns the test images (N, 3, 32, 32)."""
    ten = name == "cifar10"
    folder = root / ("cifar-10-batches-py" if ten else "cifar-100-python")
    folder.mkdir(parents=True)
    classes, key = (10, "labels") if ten else (100, "fine_labels")
    files = ["test_batch", *(f"data_batch_{i}" for i in range(1, 6))] if ten else ["test", "train"]
    found = {}
    for i, file in enumerate(files):
        images, labels = random_images(20 + i, 3072), np.arange(20 + i) % classes
        (folder / file).write_bytes(pickle.dumps({"data": images, key: labels.tolist()}))
        found[file] = images.reshape(-1, 3, 32, 32), labels
    meta = {"label_names" if ten else "fine_label_names": [f"c{i}" for i in range(classes)]}
    (folder / ("batches.meta" if ten else "meta")).write_bytes(pickle.dumps(meta))
    return found[files[0]]


@pytest.mark.parametrize(("name", "classes", "train"), [("cifar10", 10, 115), ("cifar100", 100, 21)])
def test_cifar(tmp_path, unchecked, name, classes, train) -> None:
    images, labels = cifar(tmp_path, name)
    data = load_data(name, data_dir=tmp_path)
    assert (data.shape, data.classes, data.spec, data.split) == ((3, 32, 32), classes, name, "test")
    assert data.images.dtype == torch.uint8
    assert np.array_equal(data.images, images)
    assert np.array_equal(data.labels, labels)
    assert len(load_data(name, data_dir=tmp_path, split="train")) == train
    batch, _, ids = data.batch(torch.tensor([3, 1]), torch.device("cpu"))
    np.testing.assert_array_equal(batch, images[[3, 1]].astype(np.float32) / 255)
    assert ids.tolist() == [3, 1]


def idx(path: Path, values: np.ndarray) -> None:
    """The idx format of MNIST: magic number, sizes, bytes, all big-endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist(tmp_path, unchecked, name, folder) -> None:
    raw = tmp_path / folder / "raw"
    images, labels = random_images(12, 28, 28), (np.arange(12) % 10).astype(np.uint8)
    for part, n in [("t10k", 12), ("train", 5)]:
        idx(raw / f"{part}-images-idx3-ubyte", images[:n])
        idx(raw / f"{part}-labels-idx1-ubyte", labels[:n])
    data = load_data(name, data_dir=tmp_path)
    assert (data.shape, data.classes) == ((1, 28, 28), 10)
    assert np.array_equal(data.images[:, 0], images)
    assert np.array_equal(data.labels, labels)
    assert len(load_data(name, data_dir=tmp_path, split="train")) == 5


def test_svhn(tmp_path, unchecked) -> None:
    """Its .mat files hold (32, 32, 3, N), and call the digit zero 10."""
    from scipy.io import savemat

    images = random_images(6, 3, 32, 32)
    labels = np.array([10, 1, 2, 9, 10, 3])
    for split in ("test", "train"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": labels[:, None]})
    data = load_data("svhn", data_dir=tmp_path)
    assert np.array_equal(data.images, images)
    assert data.labels.tolist() == [0, 1, 2, 9, 0, 3]
    assert data.images.is_contiguous()


def test_a_missing_dataset_that_cannot_be_fetched(tmp_path, offline) -> None:
    with pytest.raises(DataError, match=r"cifar10: not found in .* cannot be downloaded .*; give --data-dir"):
        load_data("cifar10", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"imagenet: not found"):
        load_data("imagenet", data_dir=tmp_path)


# ---------------------------------------------------------------- folders


def folder(root: Path, sizes: list[tuple[int, int]], classes: int = 3, suffix: str = "png") -> list[np.ndarray]:
    """DIR/CLASS/IMAGE, losslessly; the images in the order of ImageFolder (by class, then by name)."""
    images = []
    for k in range(classes):
        (root / f"class{k}").mkdir(parents=True)
        for i, (width, height) in enumerate(sizes):
            image = random_images(height, width, 3) // (k + 1)
            Image.fromarray(image).save(root / f"class{k}" / f"{i:03}.{suffix}")
            images.append(image.transpose(2, 0, 1))
    return images


def test_folder_of_equal_sizes_is_decoded_as_it_is(tmp_path) -> None:
    images = folder(tmp_path / "data", [(20, 12)] * 4)
    data = load_data(f"folder:{tmp_path / 'data'}")
    assert np.array_equal(data.in_memory().images, np.stack(images))
    assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (data.classes, data.subset, data.ids.tolist()) == (3, False, list(range(12)))


def test_mixed_sizes_are_never_cropped_silently(tmp_path) -> None:
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

    folder(tmp_path / "data", [(300, 280), (260, 400)], classes=2)
    spec = f"folder:{tmp_path / 'data'}"
    with pytest.raises(DataError, match=r"differ in size \(280x300 and 400x260 pixels\).*--resize 256 --crop 224"):
        load_data(spec)
    with pytest.raises(DataError, match="differ in size after they were resized to the shorter side 64"):
        load_data(spec, resize=64)
    data = load_data(spec, resize=256, crop=224)
    usual = Compose([Resize(256), CenterCrop(224), PILToTensor()])
    paths = sorted((tmp_path / "data").rglob("*.png"))
    assert torch.equal(data.in_memory().images, torch.stack([usual(Image.open(path).convert("RGB")) for path in paths]))


@pytest.mark.parametrize("choice", [{"limit": 6}, {"first": 5}])
def test_folder_decodes_only_what_was_chosen(tmp_path, choice, monkeypatch) -> None:
    images = folder(tmp_path / "data", [(8, 8)] * 10)
    opened = set()
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode, **more: opened.add(path) or real(path, *mode, **more))
    data = load_data(f"folder:{tmp_path / 'data'}", **choice)
    chosen = sorted((tmp_path / "data").rglob("*.png"))
    chosen = [chosen[i] for i in data.ids]
    assert len(data) == next(iter(choice.values()))
    assert {path for path in opened if path.suffix == ".png"} == set(chosen)
    assert data.subset
    assert np.array_equal(data.in_memory().images, np.stack([images[i] for i in data.ids]))
    assert data.labels.tolist() == [i // 10 for i in data.ids.tolist()]
    whole = load_data(f"folder:{tmp_path / 'data'}")
    again = whole.limit(6) if "limit" in choice else whole.first(5)
    assert torch.equal(again.ids, data.ids)
    assert data.classes == 3


def test_imagenet_as_it_is_unpacked(tmp_path) -> None:
    """No devkit, only ``val/WNID/IMAGE``: a thousand classes, whatever the subset holds."""
    folder(tmp_path / "val", [(230, 240), (260, 300)], classes=2)
    data = load_data("imagenet", data_dir=tmp_path, resize=256, crop=224)
    assert (len(data), data.classes, data.shape, data.spec) == (4, 1000, (3, 224, 224), "imagenet")


def test_broken_folders(tmp_path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        load_data(f"folder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="find any class folder"):
        load_data(f"folder:{tmp_path}")
    folder(tmp_path / "data", [(8, 8)] * 2)
    (tmp_path / "data" / "class0" / "000.png").write_bytes(b"not an image")
    with pytest.raises(DataError):
        load_data(f"folder:{tmp_path / 'data'}")


# ---------------------------------------------------------------- .npz files and callables

NPZ = {
    "uint8 NHWC": (random_images(6, 9, 8, 3), lambda a: a.transpose(0, 3, 1, 2) / 255),
    "uint8 NHW": (random_images(6, 9, 8), lambda a: a[:, None] / 255),
    "uint8 NCHW": (random_images(6, 3, 9, 8), lambda a: a / 255),
    "float32 NCHW": (random_images(6, 3, 9, 8).astype(np.float32) / 255, lambda a: a),
    "float64 NCHW": (random_images(6, 1, 9, 8) / 255, lambda a: a),
    "float32 NHW": (random_images(6, 9, 8).astype(np.float32) / 255, lambda a: a[:, None]),
    "float16 NCHW": ((random_images(6, 3, 9, 8) / 255).astype(np.float16), lambda a: a),
    "fortran order": (np.asfortranarray(random_images(6, 9, 8, 3)), lambda a: a.transpose(0, 3, 1, 2) / 255),
}


@pytest.mark.parametrize("kind", NPZ)
@pytest.mark.parametrize("label_type", ["int64", "uint8", "int32"])
def test_npz(tmp_path, kind, label_type) -> None:
    images, expected = NPZ[kind]
    labels = np.array([0, 1, 2, 0, 1, 2], dtype=label_type)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    data = load_data(str(tmp_path / "data.npz"))
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == labels.tolist()
    batch, _, _ = data.batch(torch.arange(6), torch.device("cpu"))
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch, expected(images).astype(np.float32), atol=1e-7)


BAD_NPZ = {
    "missing labels": ({"images": random_images(2, 8, 8)}, "expected the arrays 'images' and 'labels'"),
    "lengths": ({"images": random_images(3, 8, 8), "labels": np.zeros(2, int)}, "3 images, but 2 labels"),
    "0 to 255": ({"images": np.full((2, 8, 8), 200.0), "labels": np.zeros(2, int)}, "divide by 255"),
    "normalised": ({"images": np.full((2, 8, 8), -1.0), "labels": np.zeros(2, int)}, "before normalisation"),
    "nan": ({"images": np.full((2, 8, 8), np.nan), "labels": np.zeros(2, int)}, "NaN"),
    "float NHWC": ({"images": np.zeros((2, 8, 8, 3)), "labels": np.zeros(2, int)}, r"should be \(N, C, H, W\)"),
    "int images": ({"images": np.zeros((2, 8, 8), int), "labels": np.zeros(2, int)}, "expected uint8"),
    "float labels": ({"images": random_images(2, 8, 8), "labels": np.zeros(2)}, "integer labels"),
    "one-hot": ({"images": random_images(2, 8, 8), "labels": np.zeros((2, 3), int)}, r"labels \(N,\)"),
    "negative": ({"images": random_images(2, 8, 8), "labels": np.array([-1, 0])}, "labels should run from 0"),
    "empty": ({"images": random_images(0, 8, 8), "labels": np.zeros(0, int)}, "is empty"),
    "objects": ({"images": np.array([{}, {}]), "labels": np.zeros(2, int)}, "cannot be read"),
    "flat": ({"images": random_images(2, 64), "labels": np.zeros(2, int)}, "expected images"),
    "big-endian labels": (
        {"images": random_images(2, 8, 8), "labels": np.array([0, 1], ">i4")},
        "byte order different from the native",
    ),
    "text labels": (
        {"images": random_images(2, 8, 8), "labels": np.array(["a", "b"])},
        r"can't convert .* numpy\.str_",
    ),
}


@pytest.mark.parametrize("how", BAD_NPZ)
def test_bad_npz_is_one_clear_error(tmp_path, how) -> None:
    arrays, match = BAD_NPZ[how]
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(DataError, match=match):
        load_data(str(tmp_path / "data.npz"))


def test_unreadable_npz(tmp_path) -> None:
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 no")
    for spec in (str(tmp_path / "data.npz"), str(tmp_path / "none.npz")):
        with pytest.raises(DataError, match=r"cannot be read|does not exist"):
            load_data(spec)


SOURCE = """
import torch

def pair():
    return torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 1])

class Dataset:
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return torch.full((1, 4, 4), i / 4), i

def nothing():
    return 3
"""


def test_callables_of_files_and_modules(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_data.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    for spec in ("my_data.py:pair", "my_data:pair"):
        data = load_data(spec, first=3)
        assert (len(data), data.classes, data.spec) == (3, 3, spec)
    assert load_data("my_data.py:Dataset").images[:, 0, 0, 0].tolist() == [0, 0.25, 0.5]
    with pytest.raises(DataError, match="no 'piar'; did you mean 'pair'"):
        load_data("my_data.py:piar")
    with pytest.raises(DataError, match="got int"):
        load_data("my_data.py:nothing")


@pytest.mark.parametrize("spec", ["cifra10", "no_such_module_x:f", "missing.py:f", "data.csv"])
def test_unknown_data_is_one_clear_error(spec) -> None:
    with pytest.raises(FreqRobustError, match=r"unknown data|cannot import|does not exist"):
        load_data(spec)
