"""``torchvision:NAME`` and ``timm:NAME``, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from freqrobust import load_model, save_model
from freqrobust.errors import ModelError, SpecError

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty hub, and nothing that could be fetched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def downloaded(hub: Path, name: str, weights: str = "DEFAULT") -> torch.nn.Module:
    """Random weights under the file name that torchvision looks for."""
    from torchvision.models import get_model, get_model_weights

    torch.manual_seed(0)
    network = get_model(name, weights=None).eval()
    url = get_model_weights(name)[weights].url
    torch.save(network.state_dict(), hub / url.rpartition("/")[2])
    return network


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvision_model_with_its_own_normalisation(hub, name) -> None:
    network = downloaded(hub, name)
    model = load_model(f"torchvision:{name}")
    assert (model.arch, model.chosen.source) == (f"torchvision:{name}", "checkpoint")
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), network((IMAGES - MEAN) / STD))
    given = load_model(f"torchvision:{name}", normalize="none")
    with torch.no_grad():
        torch.testing.assert_close(given(IMAGES), network(IMAGES))


def test_torchvision_weights_by_name(hub) -> None:
    network = downloaded(hub, "mobilenet_v3_small", "IMAGENET1K_V1")
    model = load_model("torchvision:mobilenet_v3_small:weights=IMAGENET1K_V1")
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), network((IMAGES - MEAN) / STD))
    with pytest.raises(SpecError, match=r"no weights 'IMAGENET1K_V9' \(IMAGENET1K_V1"):
        load_model("torchvision:mobilenet_v3_small:weights=IMAGENET1K_V9")


def test_a_torchvision_model_can_be_saved_and_loaded_again(hub, tmp_path) -> None:
    downloaded(hub, "squeezenet1_1")
    model = load_model("torchvision:squeezenet1_1")
    save_model(model, tmp_path / "saved.pt")
    again = load_model(tmp_path / "saved.pt")
    assert again.arch == "torchvision:squeezenet1_1"
    with torch.no_grad():
        assert torch.equal(again(IMAGES), model(IMAGES))


def test_unknown_and_unreachable_torchvision_models(hub) -> None:
    with pytest.raises(SpecError, match=r"torchvision has no model 'resnet19'; did you mean 'resnet\d+'"):
        load_model("torchvision:resnet19")
    with pytest.raises(ModelError, match=r"weights of torchvision:squeezenet1_1 cannot be fetched: OSError: no network"):
        load_model("torchvision:squeezenet1_1")


@pytest.fixture
def timm(monkeypatch):
    """timm with random weights where it would fetch trained ones."""
    pytest.importorskip("timm", reason="the extra 'zoo' is not installed")
    import timm

    create = timm.create_model

    def made(name: str, pretrained: bool = False, **options: object) -> torch.nn.Module:
        assert pretrained
        torch.manual_seed(0)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", made)
    return timm


def test_timm_model_with_its_own_normalisation(timm, tmp_path) -> None:
    model = load_model("timm:test_efficientnet")
    network = timm.create_model("test_efficientnet", pretrained=True).eval()
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    assert (model.arch, model.chosen.mean, model.chosen.source) == ("timm:test_efficientnet", mean, "checkpoint")
    with torch.no_grad():
        expected = network((IMAGES - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
        torch.testing.assert_close(model(IMAGES), expected)
    with pytest.raises(ModelError, match="timm cannot be saved"):
        save_model(model, tmp_path / "saved.pt")


def test_unknown_timm_model(timm) -> None:
    with pytest.raises(SpecError, match="timm has no model 'test_efficeintnet'; did you mean 'test_efficientnet'"):
        load_model("timm:test_efficeintnet")


def test_without_timm_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'freqrobust\[zoo\]'"):
        load_model("timm:test_efficientnet")
