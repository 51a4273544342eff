"""Names of classes, from where they are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from freqrobust import load_data
from freqrobust.data.class_names import published_names, with_names
from freqrobust.data.dataset import ImageData
from freqrobust.harness.provenance import data_record


def data(classes: int) -> ImageData:
    return ImageData(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), classes)


def test_digits_have_names_in_the_record() -> None:
    digits = load_data("digits", first=3)
    assert digits.class_names == tuple("0123456789")
    assert data_record(digits).class_names == list("0123456789")


def test_folders_name_their_classes(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    assert load_data(f"folder:{tmp_path}").class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "spec", ["cifar10c:DIR,name=fog,severity=1", "robustbench:cifar10c:severity=5", "cifar10.1:DIR"]
)
def test_published_sets(spec: str) -> None:
    assert published_names(data(10), spec).class_names[:2] == ("airplane", "automobile")


def test_imagenet_is_not_named_by_wordnet_ids() -> None:
    known = replace(data(1000), class_names=("n01440764",) * 1000)
    assert published_names(known, "imagenet").class_names[0] == "tench"
    some = replace(data(2), class_subset=(1, 999))
    assert published_names(some, "imageneta:DIR").class_names == ("goldfish", "toilet tissue")


def test_other_data_keeps_what_it_has() -> None:
    assert published_names(data(10), "robustbench:cifar100c").class_names == ()
    assert with_names(data(3), ["a", "b"]).class_names == ()  # not as many as classes
    assert with_names(data(2), [("tench", "Tinca tinca"), "b"]).class_names == ("tench", "b")
