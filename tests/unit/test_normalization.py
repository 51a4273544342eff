"""Normalisation: as a layer, as text, and how it is chosen when nobody says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import ImageData, load_model, save_model
from freqrobust.core.errors import ModelError, SpecError
from freqrobust.models.architectures import ARCHITECTURES
from freqrobust.models.normalization import PRESETS, Normalize, parse

FACTORY = """
from torch import nn

def tiny():
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def gray():
    return nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def classes_by_mean(levels: list[float], normalize: str, channels: int = 3) -> tuple[dict, ImageData]:
    """Weights that tell flat images of these three grey levels apart, and only after this normalisation.

    The logits are ``-(z - centre_k)^2`` up to a term that all share, for the normalised first channel ``z``.
    """
    mean, std = PRESETS[normalize]
    centres = [(level - mean[0]) / std[0] for level in levels]
    weight = torch.zeros(3, channels, 1, 1)
    weight[:, 0, 0, 0] = torch.tensor([2 * c for c in centres])
    bias = torch.tensor([-c * c for c in centres])
    labels = torch.arange(300) % 3
    images = torch.tensor(levels)[labels].view(-1, 1, 1, 1).expand(-1, channels, 4, 4).contiguous()
    return {"0.weight": weight, "0.bias": bias}, ImageData(images, labels, 3)


@pytest.fixture
def factory(tmp_path) -> str:
    (tmp_path / "networks.py").write_text(FACTORY)
    return f"{tmp_path / 'networks.py'}"


@pytest.mark.parametrize("name", PRESETS)
def test_layer_is_the_formula(name) -> None:
    mean, std = PRESETS[name]
    images = torch.rand(2, 3, 5, 4)
    found = Normalize(mean, std)(images).numpy()
    for channel in range(3):
        m, s = mean[channel % len(mean)], std[channel % len(std)]
        np.testing.assert_allclose(found[:, channel], (images[:, channel].numpy() - m) / s, rtol=1e-5, atol=1e-6)


def test_published_values() -> None:
    assert PRESETS["imagenet"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert PRESETS["cifar10"][0] == (0.4914, 0.4822, 0.4465)
    assert PRESETS["mnist"] == ((0.1307,), (0.3081,))


def test_text_forms() -> None:
    assert parse("imagenet").preset == "imagenet"
    chosen = parse("0.1,0.2,0.3/0.4,0.5,0.6")
    assert (chosen.mean, chosen.std, chosen.source) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "given")
    assert str(chosen) == "0.1,0.2,0.3/0.4,0.5,0.6"
    assert parse("0.5/0.25").std == (0.25,)


@pytest.mark.parametrize("text", ["imagnet", "0.5", "0.5,0.5/0.1", "0.5/0", "0.5/-1", "a/b", "", "nan/1", "0/inf"])
def test_wrong_texts_are_refused(text) -> None:
    with pytest.raises(SpecError, match="unknown normalisation"):
        parse(text)


@pytest.mark.parametrize("best", ["none", "half", "imagenet", "cifar10"])
def test_trial_takes_the_preset_that_is_clearly_best(tmp_path, factory, best) -> None:
    """Grey levels so close that any other mean and standard deviation confuses them."""
    levels = {"none": [0.3, 0.45, 0.6], "half": [0.47, 0.475, 0.48]}.get(best, [0.48, 0.485, 0.49])
    state, data = classes_by_mean(levels, best)
    torch.save(state, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", arch=f"{factory}:tiny", data=data)
    assert (model.normalization.source, model.normalization.preset) == ("trial", best)
    assert model.normalization.scores[best] == 1.0
    assert set(model.normalization.scores) == {"none", "half", "imagenet", "cifar10"}
    assert all(score < 0.8 for name, score in model.normalization.scores.items() if name != best)
    assert model.normalization.record().source == "trial"


def test_trial_of_grayscale_images_tries_their_presets(tmp_path, factory) -> None:
    state, data = classes_by_mean([0.1, 0.2, 0.3], "mnist", channels=1)
    torch.save(state, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", arch=f"{factory}:gray", data=data)
    assert model.normalization.preset == "mnist"
    assert set(model.normalization.scores) == {"none", "half", "mnist"}


def test_it_is_an_error_when_unclear(tmp_path, factory) -> None:
    state, data = classes_by_mean([0.1, 0.5, 0.9], "none")
    state["0.weight"].zero_()
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"not clear from 256 samples \(.*33\.\d%.*\); give --normalize none"):
        load_model(tmp_path / "model.pt", arch=f"{factory}:tiny", data=data)
    with pytest.raises(ModelError, match=r"not known; give --normalize none"):
        load_model(tmp_path / "model.pt", arch=f"{factory}:tiny")


def test_a_given_normalisation_is_taken_and_doubted_aloud(tmp_path, factory) -> None:
    state, data = classes_by_mean([0.3, 0.45, 0.6], "half")
    torch.save(state, tmp_path / "model.pt")
    load = {"arch": f"{factory}:tiny", "data": data}
    wrong = load_model(tmp_path / "model.pt", normalize="none", **load)
    assert (wrong.normalization.preset, wrong.normalization.source) == ("none", "given")
    assert "half gets 100.0%; consider --normalize half" in wrong.normalization.warning
    right = load_model(tmp_path / "model.pt", normalize="0.5,0.5,0.5/0.5,0.5,0.5", **load)
    assert (right.normalization.preset, right.normalization.source, right.normalization.warning) == (
        None,
        "given",
        None,
    )
    assert right.normalization.scores["taken"] == 1.0


def test_the_order_of_sources(tmp_path) -> None:
    """Given, else what the file says, else what the architecture's published weights use."""
    torch.save(ARCHITECTURES["resnet20"].build().state_dict(), tmp_path / "bare.pt")
    bare = load_model(tmp_path / "bare.pt")
    assert (bare.normalization.preset, bare.normalization.source) == ("imagenet", "architecture")
    save_model(load_model(tmp_path / "bare.pt", normalize="cifar10"), tmp_path / "saved.pt")
    saved = load_model(tmp_path / "saved.pt")
    assert (saved.normalization.preset, saved.normalization.source) == ("cifar10", "checkpoint")
    given = load_model(tmp_path / "saved.pt", normalize="none")
    assert (given.normalization.preset, given.normalization.source) == ("none", "given")
    assert (load_model(tmp_path / "bare.pt", arch="resnet20").normalization.preset) == "imagenet"


def test_channels_have_to_match(tmp_path, factory) -> None:
    state, data = classes_by_mean([0.1, 0.2, 0.3], "mnist", channels=1)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ModelError, match="3 channels, but the images have 1"):
        load_model(tmp_path / "model.pt", arch=f"{factory}:gray", normalize="imagenet", data=data)


def test_in_memory_models_are_never_normalised() -> None:
    from freqrobust import evaluate

    seen = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach().clone())
            return x.flatten(1)[:, :3]

    images = torch.rand(4, 3, 4, 4)
    report = evaluate(Spy(), (images, torch.tensor([0, 1, 2, 0])), attacks=["clean"], device="cpu", batch_size=4)
    assert torch.equal(seen[-1], images)
    assert report.models[0].normalize.source == "none"
