"""Published corruption files, in both layouts, as data and as attacks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from freqrobust import evaluate, load_data
from freqrobust.attacks.corruption import Corruption
from freqrobust.core.errors import DataError, SpecError
from freqrobust.data.corruption_files import published
from freqrobust.data.dataset import ImageData

N, SIDE = 40, 6
NAMES = ("fog", "snow")


class Mean(nn.Module):
    """The class by the mean of the image, tenths of [0, 1]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        classes = (x.mean(dim=(1, 2, 3)) * 10).long().clamp(0, 9)
        return nn.functional.one_hot(classes, 10).float()


@pytest.fixture(scope="module")
def clean() -> ImageData:
    labels = torch.arange(N) % 10
    images = (labels * 25 + 12).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)
    return ImageData(images.contiguous(), labels, 10, "small")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory, clean: ImageData) -> Path:
    """CIFAR-C's layout; severity s leaves all but the first 4 s images as they are, and blackens those."""
    folder = tmp_path_factory.mktemp("CIFAR-10-C")
    stack = clean.images.permute(0, 2, 3, 1).numpy()
    for name in NAMES:
        parts = [stack.copy() for _ in range(5)]
        for severity, part in enumerate(parts, 1):
            part[: 4 * severity] = 0
        np.save(folder / f"{name}.npy", np.concatenate(parts))
    np.save(folder / "labels.npy", np.tile(clean.labels.numpy().astype(np.uint8), 5))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageData]:
    """ImageNet-C's layout for three classes with two images each, and the clean ones in the same order."""
    folder = tmp_path_factory.mktemp("ImageNet-C")
    for severity in range(1, 6):
        for label in range(3):
            path = folder / "weather" / "fog" / str(severity) / f"n0{label}"
            path.mkdir(parents=True)
            for k in range(2):
                pixels = np.full((SIDE, SIDE, 3), 20 * severity + 50 * label + k, dtype=np.uint8)
                Image.fromarray(pixels).save(path / f"image{k}.png")
    images = torch.zeros(6, 3, SIDE, SIDE, dtype=torch.uint8)
    return folder, ImageData(images, torch.tensor([0, 0, 1, 1, 2, 2]), 1000, "small")


@pytest.mark.parametrize("severity", [1, 2, 5])
def test_a_file_as_the_data(arrays, clean, severity) -> None:
    data = load_data(f"cifar10c:{arrays},name=fog,severity={severity}")
    assert (len(data), data.classes, data.shape) == (N, 10, (3, SIDE, SIDE))
    assert torch.equal(data.labels, clean.labels)
    changed = (data.images != clean.images).any(dim=(1, 2, 3))
    assert int(changed.sum()) == int((clean.images[: 4 * severity] > 0).any(dim=(1, 2, 3)).sum())
    part = load_data(f"cifar10c:{arrays},name=fog,severity={severity}", limit=20)
    assert torch.equal(part.images, data.images[part.ids])


def test_several_files_are_interleaved(arrays) -> None:
    both = load_data(f"cifar100c:{arrays},name=[fog,snow],severity=3")
    one = load_data(f"cifar100c:{arrays},name=snow,severity=3")
    assert (len(both), both.classes) == (2 * N, 100)
    assert torch.equal(both.images[1::2], one.images)


@pytest.mark.parametrize("labels", ["long", "short"])
def test_labels_once_or_for_every_severity(arrays, tmp_path, clean, labels) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.npy").symlink_to(arrays / f"{name}.npy")
    np.save(tmp_path / "labels.npy", np.tile(clean.labels.numpy(), 5 if labels == "long" else 1))
    assert len(load_data(f"cifar10c:{tmp_path},name=fog,severity=5")) == N
    assert torch.equal(published(tmp_path).labels("fog", 1), clean.labels)


def test_all_files_against_the_same_clean_images(arrays, clean) -> None:
    """Cells by file, row by row; a subset takes its own rows."""
    attacks = [f"corruption:name={name},severity={s},files={arrays}" for name in NAMES for s in range(1, 6)]
    for data in (clean, clean.take(torch.tensor([30, 3, 9, 17, 5]))):
        report = evaluate(Mean(), data, attacks=attacks, device="cpu", batch_size=3)
        for cell in report.cells[1:]:
            black = data.ids < 4 * cell.attack_params["severity"]
            expected = ~black | (data.labels == 0)
            assert torch.equal(torch.from_numpy(cell.right()), expected)
            assert cell.attack_params["source"] == "files"
        (summary,) = report.corruptions
        assert (summary.source, summary.constants, summary.part, summary.complete) == ("files", None, "common", False)
        assert [row.name for row in summary.rows] == ["snow", "fog"]
    assert report.cells[1].attack_params["sha256"] != report.cells[2].attack_params["sha256"]


def test_folders_of_images(folders) -> None:
    folder, data = folders
    report = evaluate(Mean(), data, attacks=[f"corruption:name=fog,severity=2,files={folder}"], device="cpu")
    assert report.status == "complete"
    images = published(folder).images("fog", 2, torch.tensor([5, 0]))
    assert images[:, 0, 0, 0].tolist() == [40 + 100 + 1, 40]
    assert published(folder).labels("fog", 2).tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(DataError, match="3 class folders, but ImageNet-C has 1000"):
        load_data(f"imagenetc:{folder},name=fog,severity=2")


def test_the_identity_of_folders_is_that_of_the_contents(folders, tmp_path) -> None:
    folder, _ = folders
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied, copy_function=shutil.copyfile)  # with other times
    first = published(folder).fingerprint("fog", 2)
    assert published(copied).fingerprint("fog", 2) == first != published(copied).fingerprint("fog", 3)
    image = copied / "weather" / "fog" / "2" / "n01" / "image1.png"
    image.touch()
    assert published(copied).fingerprint("fog", 2) == first
    times = image.parent.stat()
    Image.new("RGB", (SIDE, SIDE)).save(image)
    os.utime(image.parent, ns=(times.st_atime_ns, times.st_mtime_ns))  # that of the folder says nothing about its files
    assert published(copied).fingerprint("fog", 2) != first


def test_a_folder_of_all_classes_as_the_data(tmp_path) -> None:
    for label in range(1000):
        path = tmp_path / "blur" / "zoom_blur" / "4" / f"n{label:08}"
        path.mkdir(parents=True)
        Image.new("RGB", (2, 2), (label % 256, label // 256, 7)).save(path / "image.png")
    data = load_data(f"imagenetc:{tmp_path},name=zoom_blur,severity=4", limit=30)
    assert (data.classes, data.shape, len(data)) == (1000, (3, 2, 2), 30)
    images = data.in_memory().images
    assert torch.equal(images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long(), data.labels)


def test_files_of_other_images_are_refused(arrays, folders, clean) -> None:
    attack = [f"corruption:name=fog,severity=1,files={arrays}"]
    other = ImageData(clean.images, clean.labels.flip(0), 10, "other")
    with pytest.raises(DataError, match="was made for other images than other: some labels differ"):
        evaluate(Mean(), other, attacks=attack, device="cpu")
    longer = ImageData(clean.images.repeat(2, 1, 1, 1), clean.labels.repeat(2), 10, "longer")
    with pytest.raises(DataError, match=rf"fog at severity 1 has {N} images, but longer has ids up to {2 * N - 1}"):
        evaluate(Mean(), longer, attacks=attack, device="cpu")
    larger = ImageData(torch.zeros(N, 3, 8, 8, dtype=torch.uint8), clean.labels, 10, "larger")
    with pytest.raises(DataError, match=r"has images \(3, 6, 6\), but larger has \(3, 8, 8\)"):
        evaluate(Mean(), larger, attacks=attack, device="cpu")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar10c:{},name=fogg,severity=1", "unknown corruption 'fogg'; did you mean 'fog'"),
        ("cifar10c:{},name=fog,severity=6", "name a corruption and a severity of 1 to 5"),
        ("cifar10c:{}", "name a corruption and a severity of 1 to 5: cifar10c:DIR,name=fog,severity=3"),
        ("cifar10c:{},name=fog,level=2", r"unknown parameter 'level' \(parameters: name, severity\)"),
        ("imagenetc:{},name=[fog,snow],severity=1", "name one corruption"),
    ],
)
def test_specs_that_cannot_be(arrays, spec, message) -> None:
    with pytest.raises(SpecError, match=message):
        load_data(spec.format(arrays))


def test_missing_and_short_files(arrays, tmp_path, clean) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        load_data(f"cifar10c:{tmp_path}/nowhere,name=fog,severity=1")
    with pytest.raises(DataError, match=r"frost\.npy cannot be read: No such file"):
        load_data(f"cifar10c:{arrays},name=frost,severity=1")
    with pytest.raises(SpecError, match=r"corruption: .*frost\.npy cannot be read: No such file"):
        Corruption.build("corruption", {"name": "frost", "severity": 1, "files": str(arrays)})
    with pytest.raises(SpecError, match=r"corruption: .* contains neither fog\.npy nor fog/3/CLASS/IMAGE"):
        Corruption.build("corruption", {"name": "fog", "severity": 3, "files": str(tmp_path)})
    (tmp_path / "labels.npy").symlink_to(arrays / "labels.npy")
    np.save(tmp_path / "fog.npy", np.load(arrays / "fog.npy")[:-3])
    with pytest.raises(DataError, match=rf"fog\.npy has {5 * N - 3} images, but labels\.npy has {5 * N} labels"):
        load_data(f"cifar10c:{tmp_path},name=fog,severity=1")
    (tmp_path / "snow.npy").write_bytes((arrays / "snow.npy").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"snow\.npy cannot be read"):
        load_data(f"cifar10c:{tmp_path},name=snow,severity=1")
    with pytest.raises(SpecError, match="parameter 'constants' is of no use with 'files'"):
        Corruption.build("corruption", {"name": "fog", "severity": 1, "files": str(arrays), "constants": "cifar"})
