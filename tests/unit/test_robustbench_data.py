"""``robustbench:cifar10c`` and friends, from local folders."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from freqrobust import load_data
from freqrobust.core.errors import DataError, SpecError
from freqrobust.data.robustbench_package import package

if find_spec("robustbench") is None:
    pytest.skip("the extra 'zoo' is not installed", allow_module_level=True)

N, NAMES = 10000, ("fog", "snow")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10-C as published, but for images of 2 x 2 pixels."""
    folder = tmp_path_factory.mktemp("data") / "CIFAR-10-C"
    folder.mkdir()
    draw = np.random.default_rng(0)
    np.save(folder / "labels.npy", np.tile(draw.integers(0, 10, N), 5))
    for name in NAMES:
        np.save(folder / f"{name}.npy", draw.integers(0, 256, (5 * N, 2, 2, 3), dtype=np.uint8))
    return folder.parent


@pytest.mark.parametrize("severity", [1, 5])
def test_the_images_are_those_that_robustbench_loads(root, severity) -> None:
    spec = f"robustbench:cifar10c:severity={severity},corruptions=[fog,snow]"
    data = load_data(spec, data_dir=root, first=20)
    images, labels = package("robustbench.data").load_cifar10c(20, severity, str(root), False, NAMES)
    assert (data.classes, data.spec, len(data)) == (10, spec, 20)
    for i in range(len(NAMES)):  # ours image by image, theirs corruption by corruption
        ours = data.take(torch.arange(i, 20, 2))
        torch.testing.assert_close(ours.images.float() / 255, images[10 * i : 10 * i + 10])
        assert torch.equal(ours.labels, labels[10 * i : 10 * i + 10])


def test_a_subset_has_the_ids_of_the_whole(root) -> None:
    whole = load_data("robustbench:cifar10c:corruptions=[fog,snow]", data_dir=root)
    part = load_data("robustbench:cifar10c:corruptions=[fog,snow]", data_dir=root, limit=50)
    assert (len(whole), len(part), part.subset) == (2 * N, 50, True)
    assert torch.equal(whole.images[part.ids], part.images)
    assert torch.equal(whole.labels[part.ids], part.labels)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("robustbench:cifar10d", "no data 'cifar10d'; did you mean 'cifar10c'"),
        ("robustbench:cifar10c:severity=6", "severity should be 1 to 5"),
        ("robustbench:cifar10c:corruptions=[fogg]", "unknown corruption 'fogg'; did you mean 'fog'"),
        ("robustbench:cifar10c:level=2", r"unknown parameter 'level' \(parameters: severity, corruptions\)"),
    ],
)
def test_what_is_not_there_to_be_loaded(root, spec, message) -> None:
    with pytest.raises(SpecError, match=message):
        load_data(spec, data_dir=root)


def test_folders_and_files_that_are_missing_or_wrong(root, tmp_path) -> None:
    with pytest.raises(DataError, match=r"CIFAR-100-C is not a folder; give --data-dir"):
        load_data("robustbench:cifar100c", data_dir=root)
    with pytest.raises(DataError, match=r"shot_noise\.npy cannot be read: No such file"):
        load_data("robustbench:cifar10c", data_dir=root)
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.zeros(7, dtype=np.int64))
    np.save(folder / "fog.npy", np.zeros((10, 2, 2, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"fog\.npy has 10 images, but labels\.npy has 7 labels"):
        load_data("robustbench:cifar10c:corruptions=fog", data_dir=tmp_path)
    np.save(folder / "fog.npy", np.zeros((10, 2, 2, 3)))
    with pytest.raises(DataError, match="images as uint8, but got float64"):
        load_data("robustbench:cifar10c:corruptions=fog", data_dir=tmp_path)


def test_imagenet_c_takes_the_images_of_robustbench(tmp_path, monkeypatch) -> None:
    loaders = package("robustbench.loaders")
    listed = [("n01440764/a.JPEG", 10), ("n01443537/b.JPEG", 200)]
    monkeypatch.setattr(
        loaders, "make_custom_dataset", lambda root, names, known: [(f"{root}/{f}", known[f[:9]]) for f, _ in listed]
    )
    for file, grey in listed:
        path = tmp_path / "ImageNet-C" / "fog" / "3" / file
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(path)
        Image.new("RGB", (8, 8)).save(path.with_name("other.JPEG"))
    data = load_data("robustbench:imagenetc:severity=3,corruptions=fog", data_dir=tmp_path)
    assert (data.classes, data.shape, data.labels.tolist()) == (1000, (3, 8, 8), [0, 1])
    assert (data.in_memory().images.float().mean(dim=(1, 2, 3)) - torch.tensor([10.0, 200.0])).abs().max() < 3
    with pytest.raises(SpecError, match="name one corruption"):
        load_data("robustbench:imagenetc", data_dir=tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        load_data("robustbench:imagenetc:corruptions=fog", data_dir=tmp_path)
