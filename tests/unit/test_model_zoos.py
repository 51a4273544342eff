"""``torchvision:NAME`` and ``timm:NAME``, without a network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from freqrobust import load_model, save_model
from freqrobust.core.errors import ModelError, SpecError

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
    assert (model.arch, model.normalization.source) == (f"torchvision:{name}", "checkpoint")
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
    assert again.input == model.input
    assert again.input is not None
    assert (again.input.resize, again.input.crop, again.input.source) == (
        256,
        (224, 224),
        "torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1",
    )
    assert again.labels == model.labels
    assert (len(model.labels), model.labels[0]) == (1000, "tench")
    content = torch.load(tmp_path / "saved.pt", weights_only=True)
    for wrong in ({"input": {"resize": 0, "source": ""}}, {"input": 3}, {"labels": [1]}, {"input": {"crop": [1]}}):
        torch.save({**content, "freqrobust": {**content["freqrobust"], **wrong}}, tmp_path / "wrong.pt")
        with pytest.raises(ModelError, match="the metadata under 'freqrobust' is damaged"):
            load_model(tmp_path / "wrong.pt")
    with torch.no_grad():
        assert torch.equal(again(IMAGES), model(IMAGES))


def test_unknown_and_unreachable_torchvision_models(hub) -> None:
    with pytest.raises(SpecError, match=r"torchvision has no model 'resnet19'; did you mean 'resnet\d+'"):
        load_model("torchvision:resnet19")
    with pytest.raises(
        ModelError, match=r"weights of torchvision:squeezenet1_1 cannot be downloaded: OSError: no network"
    ):
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
    assert (model.arch, model.normalization.mean, model.normalization.source) == (
        "timm:test_efficientnet",
        mean,
        "checkpoint",
    )
    with torch.no_grad():
        expected = network((IMAGES - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
        torch.testing.assert_close(model(IMAGES), expected)
    with pytest.raises(ModelError, match="timm cannot be saved"):
        save_model(model, tmp_path / "saved.pt")


def test_unknown_timm_model(timm) -> None:
    with pytest.raises(SpecError, match="timm has no model 'test_efficeintnet'; did you mean 'test_efficientnet'"):
        load_model("timm:test_efficeintnet")


REVISION = "0123456789abcdef0123456789abcdef01234567"


def cached(hub: Path, name: str, tag: str) -> torch.nn.Module:
    """Random weights where ``huggingface_hub`` keeps what it downloaded: blobs by content, a link for each revision."""
    from timm import create_model

    torch.manual_seed(0)
    network = create_model(name, pretrained=False).eval()
    folder = hub / f"models--timm--{name}.{tag}"
    files = {
        "model.safetensors": safetensors.torch.save(network.state_dict()),
        "config.json": json.dumps({"architecture": name}).encode(),
    }
    for part in ("blobs", "refs", f"snapshots/{REVISION}"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text(REVISION)
    for file, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (folder / "snapshots" / REVISION / file).symlink_to(Path("..", "..", "blobs", blob.name))
    return network


LOAD = """
import sys, torch
from freqrobust import load_model
model = load_model("timm:test_efficientnet")
torch.save(model(torch.load(sys.argv[1])), sys.argv[2])
"""


@pytest.mark.slow
def test_timm_loads_weights_from_the_cache_of_the_hub_without_a_warning(tmp_path) -> None:
    """Of an interpreter of its own: timm has not been imported there, and its warnings would be printed."""
    pytest.importorskip("timm", reason="the extra 'zoo' is not installed")
    network = cached(tmp_path / "hub", "test_efficientnet", "r160_in1k")
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.save(IMAGES, tmp_path / "images.pt")
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONWARNINGS", None)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "images.pt", tmp_path / "logits.pt"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with torch.no_grad():
        expected = network((IMAGES - mean) / std)
    assert expected.std() > 0
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt").detach(), expected)


def test_timm_weights_that_are_not_there(tmp_path, monkeypatch) -> None:
    pytest.importorskip("timm", reason="the extra 'zoo' is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="weights of timm:test_vit cannot be loaded: ") as raised:
        load_model("timm:test_vit")
    assert "\n" not in str(raised.value)
    assert "huggingface_hub" not in str(raised.value)  # the package is not the reason


def test_timm_and_a_hub_that_it_cannot_use(monkeypatch) -> None:
    """timm itself would advise to install the package, which is installed."""
    pytest.importorskip("timm", reason="the extra 'zoo' is not installed")
    monkeypatch.setattr("timm.models._hub._has_hf_hub", False)
    version = importlib.metadata.version("huggingface_hub")
    match = rf"timm [\d.]+ cannot import what it needs from huggingface_hub {re.escape(version)}"
    with pytest.raises(ModelError, match=match):
        load_model("timm:test_vit")

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(ModelError, match="timm needs the package huggingface_hub"):
        load_model("timm:test_vit")


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "RuntimeError: operator torchvision::nms"),
        ("import a_missing_package", "ModuleNotFoundError: No module named 'a_missing_package'"),
    ],
)
def test_timm_that_cannot_be_imported(tmp_path, monkeypatch, source, match) -> None:
    """It is installed: the error must not advise to install it."""
    (tmp_path / "timm.py").write_text(source)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=f"timm cannot be imported: {match}") as raised:
        load_model("timm:test_efficientnet")
    assert "pip install" not in str(raised.value)


def test_without_timm_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'freqrobust\[zoo\]'"):
        load_model("timm:test_efficientnet")
