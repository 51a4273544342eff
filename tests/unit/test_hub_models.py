"""``timm:`` and ``hf:`` models from local folders and the cache of the hub, with the preprocessing of their library."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from freqrobust import load_model, save_model
from freqrobust.core.config import EvalConfig
from freqrobust.core.errors import ModelError, SpecError
from freqrobust.harness.inputs import open_inputs
from freqrobust.models import hub
from freqrobust.models.image_processor import processor_input
from support.hub import place_in_cache, timm_folder, transformers_folder

CPU = torch.device("cpu")
SIZES = [(37, 50), (64, 41), (90, 33), (48, 48), (51, 77), (33, 120), (200, 160)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of seven sizes, PNG and JPEG."""
    generator = np.random.default_rng(0)
    for index, size in enumerate(SIZES):
        path = tmp_path / "images" / f"class{index % 3}" / f"{index}.{'png' if index % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(path)
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that does not answer."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    for name in (*hub._PROXIES, "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def never_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the hub would wait and repeat its requests, which takes 30 to 60 seconds."""

    def waits(seconds: float) -> None:
        raise AssertionError(f"it waits for {seconds} s")

    monkeypatch.setattr(time, "sleep", waits)


def opened(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(folder.rglob("*.*g"))]


def logits_here(spec: str, images: Path) -> torch.Tensor:
    (network,), data = open_inputs([spec], f"folder:{images}", EvalConfig(), CPU)
    assert data is not None
    with torch.no_grad():
        return torch.cat([network(batch) for batch in data.image_batches(4, CPU)])


def check_same(spec: str, images: Path, expected: torch.Tensor) -> None:
    """Logits, and with them predictions, are those of the library."""
    assert expected.std() > 0
    found = logits_here(spec, images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))


class TestTimm:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("timm", reason="the extra 'zoo' is not installed")

    def expected(self, network: nn.Module, images: Path) -> torch.Tensor:
        import timm

        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
        with torch.no_grad():
            logits: torch.Tensor = network(torch.stack([transform(image) for image in opened(images)]))
        return logits

    @pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
    def test_a_folder(self, tmp_path, images, weights) -> None:
        folder = tmp_path / "own"
        network = timm_folder(folder, weights=weights)
        check_same(f"timm:{folder}", images, self.expected(network, images))
        model = load_model(f"timm:{folder}")
        assert model.labels == ("cat", "dog", "owl")
        assert model.normalization.mean == (0.5, 0.4, 0.3)
        assert model.input is not None
        assert (model.input.resize, model.input.crop, model.input.interpolation) == (53, (48, 48), "bicubic")
        assert model.input.source == f"timm's configuration of {folder}"

    def test_a_repository_in_the_cache(self, tmp_path, images, hub_cache) -> None:
        network = timm_folder(tmp_path / "own")
        place_in_cache(hub_cache, "someone/birds", tmp_path / "own")
        check_same("timm:someone/birds", images, self.expected(network, images))
        assert load_model("timm:someone/birds").labels == ("cat", "dog", "owl")

    def test_a_name_of_timm_in_the_cache(self, tmp_path, images, hub_cache) -> None:
        import timm

        timm_folder(tmp_path / "own")
        torch.manual_seed(1)
        network = timm.create_model("test_efficientnet").eval()
        torch.save(network.state_dict(), tmp_path / "own" / "pytorch_model.bin")
        (tmp_path / "own" / "model.safetensors").unlink()
        place_in_cache(hub_cache, "timm/test_efficientnet.r160_in1k", tmp_path / "own")
        check_same("timm:test_efficientnet", images, self.expected(network, images))
        model = load_model("timm:test_efficientnet")
        assert model.input is not None
        assert (model.input.resize, model.input.crop) == (182, (160, 160))
        assert model.input.source == "timm's configuration of test_efficientnet.r160_in1k"
        assert (len(model.labels), model.labels[0]) == (1000, "tench, Tinca tinca")

    def test_errors(self, tmp_path) -> None:
        with pytest.raises(ModelError, match=r"expected a folder with config\.json and model\.safetensors"):
            load_model(f"timm:{tmp_path}")
        with pytest.raises(ModelError, match="expected a folder"):
            load_model("timm:./nowhere")
        timm_folder(tmp_path / "own")
        config = tmp_path / "own" / "config.json"
        values = json.loads(config.read_text())
        for text, match in (
            ("{", "is not a configuration of timm"),
            ("{}", "is not a configuration of timm: KeyError"),
            (json.dumps({**values, "architecture": "resnot"}), "'resnot', which timm does not have"),
            (json.dumps({**values, "num_classes": 4}), "cannot be loaded: RuntimeError"),
        ):
            config.write_text(text)
            with pytest.raises(ModelError, match=match):
                load_model(f"timm:{tmp_path / 'own'}")

    def test_weights_that_can_run_code_are_refused(self, tmp_path) -> None:
        class Evil:
            def __reduce__(self) -> object:
                return Path.touch, (tmp_path / "touched",)

        timm_folder(tmp_path / "own", weights="pytorch_model.bin")
        torch.save({"weight": Evil()}, tmp_path / "own" / "pytorch_model.bin")
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_model(f"timm:{tmp_path / 'own'}")
        assert not (tmp_path / "touched").exists()


class TestTransformers:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("transformers", reason="the extra 'hf' is not installed")

    def expected(self, network: nn.Module, processor: object, images: Path) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat(
                [network(**processor(images=image, return_tensors="pt")).logits for image in opened(images)]  # type: ignore[operator]
            )

    @pytest.mark.parametrize(
        "processor",
        [
            {},
            {"resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
            {"do_normalize": False},
            {"do_rescale": False, "do_normalize": False},
            {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        ],
    )
    def test_a_folder(self, tmp_path, images, processor) -> None:
        network, images_of = transformers_folder(tmp_path / "own", **processor)
        spec = f"hf:{tmp_path / 'own'}"
        torch.testing.assert_close(
            logits_here(spec, images), self.expected(network, images_of, images), rtol=1e-4, atol=1e-5
        )

    def test_what_is_known_of_a_model(self, tmp_path, images, capfd) -> None:
        network, processor = transformers_folder(tmp_path / "own")
        capfd.readouterr()
        spec = f"hf:{tmp_path / 'own'}"
        check_same(spec, images, self.expected(network, processor, images))
        model = load_model(spec)
        assert model.labels == ("cat", "dog", "owl")
        assert model.normalization.mean == (0.5, 0.5, 0.5)
        assert model.input is not None
        assert str(model.input) == "resized to 32x32 (bilinear), by ViTImageProcessor"
        assert capfd.readouterr() == ("", "")

    def test_a_repository_in_the_cache(self, tmp_path, images, hub_cache, never_tried_again) -> None:
        network, processor = transformers_folder(tmp_path / "own")
        place_in_cache(hub_cache, "someone/birds", tmp_path / "own")
        check_same("hf:someone/birds", images, self.expected(network, processor, images))
        with pytest.raises(
            ModelError, match=r"hf:someone/birds@v2 cannot be loaded: .*someone/birds@v2 is not in its cache"
        ):
            load_model("hf:someone/birds@v2")

    def test_gradients_reach_the_pixels(self, tmp_path) -> None:
        transformers_folder(tmp_path / "own")
        x = torch.rand(2, 3, 32, 32, requires_grad=True)
        load_model(f"hf:{tmp_path / 'own'}")(x).sum().backward()
        assert x.grad is not None
        assert float(x.grad.abs().min(dim=1).values.max()) > 0

    def test_it_is_not_saved_as_weights(self, tmp_path) -> None:
        transformers_folder(tmp_path / "own")
        with pytest.raises(ModelError, match="models from hf cannot be saved here"):
            save_model(load_model(f"hf:{tmp_path / 'own'}"), tmp_path / "saved.pt")

    def test_errors(self, tmp_path) -> None:
        import transformers

        with pytest.raises(ModelError, match=r"expected a folder with config\.json, the weights"):
            load_model(f"hf:{tmp_path}")
        network, _ = transformers_folder(tmp_path / "own")
        network.vit.save_pretrained(tmp_path / "headless")
        transformers.ViTImageProcessor().save_pretrained(tmp_path / "headless")
        with pytest.raises(ModelError, match=r"no weights for 2 parameters of ViTForImageClassification \(classifier"):
            load_model(f"hf:{tmp_path / 'headless'}")
        (tmp_path / "own" / "preprocessor_config.json").unlink()
        with pytest.raises(ModelError, match="cannot be loaded: ") as raised:
            load_model(f"hf:{tmp_path / 'own'}")
        assert "\n" not in str(raised.value)
        timm_folder(tmp_path / "timm")
        with pytest.raises(ModelError, match="is a model of timm: give timm:"):
            load_model(f"hf:{tmp_path / 'timm'}")

    def test_without_transformers(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ModelError, match=r"pip install 'freqrobust\[hf\]'"):
            load_model("hf:someone/birds")

    @pytest.mark.parametrize("name", ["ConvNextImageProcessor", "EfficientNetImageProcessor", "DeiTImageProcessor"])
    def test_the_normalisation_is_what_the_processor_computes(self, name) -> None:
        """EfficientNet's divides by the standard deviation twice."""
        import transformers

        processor = getattr(transformers, name)()
        config, known = processor_input(processor, "hf:x")
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
        pixels = config.decoded(image).float() / 255
        expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(known.layer()(pixels[None])[0], expected, rtol=1e-4, atol=1e-4)

    def test_a_processor_that_does_something_else(self) -> None:
        class Squaring:
            do_rescale, do_normalize = True, False

            def __call__(self, images: Image.Image, do_rescale: bool = True, **_: object) -> dict[str, torch.Tensor]:
                pixels = torch.from_numpy(np.array(images)).permute(2, 0, 1)[None]
                return {"pixel_values": (pixels / 255) ** 2 if do_rescale else pixels}

            rescale_factor = 1 / 255

        with pytest.raises(ModelError, match="Squaring does more than resizing, cropping and a normalisation"):
            processor_input(Squaring(), "hf:x")


@pytest.mark.parametrize("spec", ["timm:test_vit", "timm:someone/birds", "hf:someone/birds"])
def test_nothing_in_the_cache_and_no_network(spec, hub_cache, monkeypatch, never_tried_again) -> None:
    pytest.importorskip("timm", reason="the extra 'zoo' is not installed")
    pytest.importorskip("transformers", reason="the extra 'hf' is not installed")
    name = spec.partition(":")[2]
    with pytest.raises(
        ModelError, match=rf"the Hugging Face hub cannot be reached, and .*{name} is not in its cache, {hub_cache}"
    ):
        load_model(spec)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set, and"):
        load_model(spec)


def test_whether_a_server_answers(monkeypatch) -> None:
    import socket

    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hub._reachable(f"http://127.0.0.1:{port}")
    assert not hub._reachable(f"http://127.0.0.1:{port}")


def test_names_and_folders(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    assert hub.local_folder("birds") == Path("birds")
    assert hub.local_folder("./fish") == Path("./fish")
    assert hub.local_folder("someone/fish") is None
    with pytest.raises(SpecError, match=r"a folder is given as timm:\./DIR"):
        load_model("timm:fish")
