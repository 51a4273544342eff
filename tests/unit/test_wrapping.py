"""``wrap``: a module of one's own, with its normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import FreqRobustError, evaluate, load_model, save_model, wrap
from freqrobust.data.input_config import InputConfig
from freqrobust.models.fingerprint import fingerprint
from freqrobust.models.normalization import PRESETS
from support.networks import Tiny

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def test_images_are_normalised() -> None:
    network, images = Tiny().eval(), torch.rand(4, 3, 8, 8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    expected = network((images - mean) / std)
    for given in ((MEAN, STD), (list(MEAN), np.array(STD)), (torch.tensor(MEAN), torch.tensor(STD))):
        torch.testing.assert_close(wrap(network, *given)(images), expected)  # type: ignore[arg-type]
    torch.testing.assert_close(wrap(network, 0.5, 0.25)(images), network((images - 0.5) / 0.25))
    torch.testing.assert_close(wrap(network, 0.5, STD)(images), network((images - 0.5) / std))
    torch.testing.assert_close(wrap(network)(images), network(images))
    torch.testing.assert_close(wrap(network, "imagenet")(images), wrap(network, *PRESETS["imagenet"])(images))


def test_it_is_evaluated_and_recorded() -> None:
    torch.manual_seed(0)
    model, images = wrap(Tiny(), MEAN, STD), torch.rand(12, 3, 8, 8)
    assert model.training
    model.eval()
    labels = model(images).argmax(dim=1)
    report = evaluate(model, (images, labels), attacks=["fgsm:eps=0.01"], defenses=["smooth"], device="cpu")
    assert (report.cells[0].accuracy, report.status) == (1, "complete")
    record = report.models[0]
    assert (record.arch, record.normalize.source, record.normalize.mean) == ("Tiny", "given", list(MEAN))
    assert fingerprint(model) != fingerprint(wrap(model.network, MEAN, MEAN))


def test_the_size_and_the_classes() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert wrap(network).input is None
    assert wrap(network, size=224).input == InputConfig(224, (224, 224), source="wrap(size=...)")
    model = wrap(network, size=(96, 160), labels=["cat", "dog"])
    assert (model.input, model.labels) == (InputConfig(160, (96, 160), source="wrap(size=...)"), ("cat", "dog"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 0.5}, "mean and std are given together, but there is no std"),
        ({"std": 0.5}, "mean and std are given together, but there is no mean"),
        ({"mean": "imagenett"}, "unknown normalisation 'imagenett'; did you mean 'imagenet'"),
        ({"mean": "imagenet", "std": 1.0}, "the preset 'imagenet' includes std"),
        ({"mean": MEAN, "std": (0.2, 0.3)}, "one value for each channel, but have 3 and 2"),
        ({"mean": MEAN, "std": 0}, "std should be positive, but got 0"),
        ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "but got 123.7; divide by 255"),
        ({"mean": (0.5, float("nan")), "std": 1.0}, r"mean should be a number, or one number for each channel"),
        ({"mean": (), "std": 1.0}, "mean should be a number"),
        ({"mean": ("a",), "std": 1.0}, r"but got \('a',\)"),
        ({"mean": True, "std": 1.0}, "but got True"),
        ({"size": 0}, r"size should be a number of pixels, or \(height, width\), but got 0"),
        ({"size": (1, 2, 3)}, r"but got \(1, 2, 3\)"),
        ({"size": 22.4}, "but got 22.4"),
        ({"size": True}, "but got True"),
        ({"labels": "cat"}, "labels should be the names of the classes, but got 'cat'"),
        ({"labels": ["cat"]}, r"at least two names of classes, but got \['cat'\]"),
        ({"labels": [0, 1]}, r"at least two names of classes, but got \[0, 1\]"),
        ({"module": "net.pt"}, "wrap takes an nn.Module, but got str"),
        ({"module": wrap(nn.Flatten(), 0.5, 0.5)}, r"includes its normalisation \(0.5/0.5\)"),
    ],
)
def test_wrong_input_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FreqRobustError, match=message) as error:
        wrap(**{"module": nn.Flatten(), **options})
    assert "\n" not in str(error.value)


def test_images_with_other_channels() -> None:
    with pytest.raises(FreqRobustError, match="contains grayscale images, but the model takes 3 channels"):
        evaluate(wrap(Tiny(), MEAN, STD), (torch.rand(4, 1, 8, 8), torch.arange(4)), attacks=["fgsm"], device="cpu")


def test_it_is_saved_and_loaded_with_its_normalisation(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from support.networks import Tiny\n")
    model, images, path = (
        wrap(Tiny(), MEAN, STD, labels=list("abcdefghij")).eval(),
        torch.rand(4, 3, 8, 8),
        tmp_path / "net.pt",
    )
    with pytest.raises(FreqRobustError, match=r"Tiny is not the name of an architecture .*unnamed=True"):
        save_model(model, path)
    save_model(model, path, unnamed=True)
    loaded = load_model(path, arch=f"{tmp_path / 'nets.py'}:Tiny")
    torch.testing.assert_close(loaded(images), model(images))
    assert loaded.labels == model.labels


def test_labels_name_the_classes_of_example_images() -> None:
    torch.manual_seed(0)
    network, names = Tiny(), [f"class {i}" for i in range(50)]
    images = torch.rand(12, 3, 8, 8)
    outputs = network(images)
    names = names[: outputs.shape[1]]
    data = (images, outputs.argmax(dim=1))
    options = {"attacks": ["fgsm:eps=0.1"], "examples": 2, "diagnose": None, "device": "cpu"}
    (shown,) = evaluate(wrap(network, labels=names), data, **options).examples
    for sample in shown.samples:
        assert sample.name == names[sample.label]
        assert all(p.name == names[p.prediction] for p in sample.pictures if p.prediction is not None)
    with pytest.raises(FreqRobustError, match=rf"has {len(names)} classes, but 2 names of classes \(labels\)"):
        evaluate(wrap(network, labels=names[:2]), data, **options)
