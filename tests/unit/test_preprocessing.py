"""How images are resized and cropped: as the model's library does, or as the options say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from freqrobust import ImageData, evaluate, load_data
from freqrobust.cli.main import main
from freqrobust.core.config import EvalConfig
from freqrobust.core.errors import DataError, FreqRobustError, SpecError
from freqrobust.core.image_size import parse_size
from freqrobust.core.progress import Silent
from freqrobust.data.decoding import from_samples
from freqrobust.data.input_config import InputConfig, requested
from freqrobust.data.loading import as_data
from freqrobust.harness.inputs import open_inputs, open_train_data
from freqrobust.harness.provenance import data_record
from freqrobust.models.loading import LoadedNetwork
from freqrobust.models.normalization import preset
from freqrobust.models.source_table import LoadedModel

CPU = torch.device("cpu")
SIZES = [(37, 50), (64, 41), (90, 33), (48, 48), (51, 77), (33, 120)]


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


class Mean(nn.Module):
    """A classifier of two classes for images of any size: whether red exceeds green, on average."""

    def __init__(self, config: InputConfig | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]))
        self.input = config

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) @ self.weight.T


def picture(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of six sizes in two classes."""
    for index, (width, height) in enumerate(SIZES):
        path = tmp_path / "images" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(width, height, index).save(path)
    return tmp_path / "images"


def opened(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(folder.rglob("*.png"))]


def torchvision_config(resize: int, crop: int, interpolation: str = "bilinear") -> InputConfig:
    return InputConfig(resize, (crop, crop), interpolation, source="a test", channels=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("resize", "crop", "interpolation"), [(36, 32, "bilinear"), (41, 33, "bicubic"), (20, 20, "bicubic")]
)
def test_pixels_are_those_of_torchvision(folder, resize, crop, interpolation) -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    usual = ImageClassification(
        crop_size=crop,
        resize_size=resize,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=InterpolationMode(interpolation),
    )
    config = torchvision_config(resize, crop, interpolation)
    (_,), data = open_inputs([Mean(config)], f"folder:{folder}", EvalConfig(), CPU)
    assert data is not None
    assert data.images.dtype == torch.uint8
    assert torch.equal(data.in_memory().images.float() / 255, torch.stack([usual(image) for image in opened(folder)]))


def test_the_report_says_what_was_applied_and_so_does_a_line(folder) -> None:
    said = Said()
    config = torchvision_config(36, 32)
    report = evaluate(Mean(config), f"folder:{folder}", attacks=["clean"], device="cpu", progress=said)
    assert (
        "images: resized to the shorter side 36 (bilinear), cropped to 32x32 at the centre, source: a test"
        in said.lines
    )
    record = report.data.preprocessing
    assert record is not None
    assert (record.resize, record.crop, record.interpolation, record.source) == (36, [32, 32], "bilinear", "a test")
    assert report.data.shape == [3, 32, 32]
    said = Said()
    other = evaluate(
        Mean(config), f"folder:{folder}", resize="40x36", crop=24, attacks=["clean"], device="cpu", progress=said
    )
    assert other.data.sha256 != report.data.sha256  # and with it the keys of the journal and the directory of the run
    assert other.data.preprocessing is not None
    assert (other.data.preprocessing.resize, other.data.preprocessing.crop) == ([40, 36], [24, 24])
    assert other.data.preprocessing.source == "--resize and --crop, otherwise a test"
    assert (other.config["resize"], other.config["crop"]) == ("40x36", "24")


def test_one_of_the_two_options_leaves_the_other_to_the_model(folder) -> None:
    config = torchvision_config(36, 32, "bicubic")
    changed = requested(config, None, "20")
    assert changed is not None
    assert (changed.resize, changed.crop, changed.interpolation) == (36, (20, 20), "bicubic")
    uncropped = requested(config, "30x28", "none")
    assert uncropped is not None
    assert (uncropped.resize, uncropped.crop, uncropped.size) == ((30, 28), None, (30, 28))
    assert load_data(f"folder:{folder}", input=uncropped).shape == (3, 30, 28)
    assert requested(None, None, None) is None
    assert requested(config, None, None) is config


def test_arrays_are_used_as_they_are_and_a_warning_names_the_options(folder) -> None:
    images = torch.stack([torch.from_numpy(np.array(picture(20, 24, i))).permute(2, 0, 1) for i in range(4)])
    labels = torch.tensor([0, 1, 0, 1])
    said = Said()
    model = Mean(torchvision_config(36, 32))
    _, data = open_inputs([model], (images, labels), EvalConfig(), CPU, progress=said)
    assert data is not None
    assert torch.equal(data.images, images)
    assert data.preprocessing is None
    (note,) = said.lines
    message = (
        "the images have 24x20 pixels and are used as they are, but the model expects 32x32 (source: a test); "
        "--resize and --crop change their size"
    )
    assert note == f"warning: {message}"
    report = evaluate(model, (images, labels), attacks=["clean"], device="cpu")  # also without progress
    assert [(one.code, one.message) for one in report.warnings if one.code == "image-size"] == [("image-size", message)]
    for_another = replace(as_data((images, labels)), preprocessing=torchvision_config(24, 20))
    report = evaluate(model, for_another, attacks=["clean"], device="cpu")
    assert "image-size" in {one.code for one in report.warnings}
    said = Said()
    _, data = open_inputs([model], (images, labels), EvalConfig(resize=36, crop=32), CPU, progress=said)
    assert data is not None
    assert data.shape == (3, 32, 32)
    assert not [line for line in said.lines if line.startswith("warning")]
    expected = [load_resized(image) for image in images]
    assert torch.equal(data.images, torch.stack(expected))  # as from files, pixel by pixel
    again, _ = open_inputs([model], data, EvalConfig(resize=36, crop=32), CPU)
    _, twice = open_inputs(again, data, EvalConfig(resize=36, crop=32), CPU)
    assert twice is data


def load_resized(image: torch.Tensor) -> torch.Tensor:
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize, ToPILImage

    resized: torch.Tensor = Compose([ToPILImage(), Resize(36), CenterCrop(32), PILToTensor()])(image)
    return resized


def test_float_arrays_stay_in_the_range_of_pixels() -> None:
    images = (torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    config = requested(InputConfig(None, None, "bicubic"), "48", "none")
    assert config is not None
    resized = config.applied(images)
    assert resized.shape == (3, 3, 48, 48)
    assert (float(resized.min()), float(resized.max())) == (0.0, 1.0)
    with pytest.raises(DataError, match="lanczos resizes only uint8 images"):
        requested(InputConfig(None, None, "lanczos"), "48", None).applied(images)  # type: ignore[union-attr]


def test_tensors_of_several_sizes_are_resized_only_where_the_user_says_so() -> None:
    pairs = [(torch.rand(3, 8, 8), 0), (torch.rand(3, 9, 8), 1)]
    config = torchvision_config(8, 8)
    with pytest.raises(DataError, match=r"differ in size.*--resize 256 --crop 224"):
        from_samples(pairs, "pairs", config=config)
    assert from_samples(pairs, "pairs", config=requested(config, "8", "8")).shape == (3, 8, 8)


def test_a_crop_is_never_filled_up(folder) -> None:
    with pytest.raises(DataError, match=r"crop 40x40 is larger than the image of 48x36 pixels after resizing"):
        load_data(f"folder:{folder}", resize=36, crop=40)
    with pytest.raises(DataError, match="crop 9x9 is larger than the image of 8x8 pixels; give a larger --resize"):
        load_data("digits", limit=4, crop=9)


def test_models_that_expect_different_images(folder) -> None:
    models = [Mean(torchvision_config(36, 32)), Mean(torchvision_config(40, 32))]
    with pytest.raises(SpecError, match=r"different images: .*side 36.*side 40.*--resize and --crop"):
        evaluate(models, f"folder:{folder}", attacks=["clean"], device="cpu")
    report = evaluate(models, f"folder:{folder}", attacks=["clean"], device="cpu", resize=40, crop=32)
    assert [len(report.models), report.data.shape] == [2, [3, 32, 32]]
    equal = [Mean(torchvision_config(36, 32)), Mean(None), Mean(torchvision_config(36, 32))]
    assert evaluate(equal, f"folder:{folder}", attacks=["clean"], device="cpu").data.shape == [3, 32, 32]
    # arrays need no resizing, whatever the models expect
    assert evaluate(models, (torch.rand(2, 3, 8, 8), torch.arange(2)), attacks=["clean"], device="cpu").data.n == 2


def test_training_images_are_prepared_like_the_others(folder) -> None:
    _, data = open_inputs([Mean(torchvision_config(36, 32))], f"folder:{folder}", EvalConfig(), CPU)
    train = open_train_data(EvalConfig(train_data=f"folder:{folder}"), data)
    assert data is not None
    assert train is not None
    assert torch.equal(train.in_memory().images, data.in_memory().images)


def test_published_files_of_the_right_size_are_not_resized_again() -> None:
    pairs = [(picture(32, 32, 0), 0), (picture(32, 32, 1), 1)]
    config = torchvision_config(36, 32)
    kept = from_samples(pairs, "published", config=config, sized=True)
    assert torch.equal(kept.images[0], torch.from_numpy(np.array(pairs[0][0])).permute(2, 0, 1))
    assert kept.preprocessing is None
    assert not torch.equal(from_samples(pairs, "plain", config=config).images, kept.images)
    asked = from_samples(pairs, "published", config=requested(config, "36", None), sized=True)
    assert not torch.equal(asked.images, kept.images)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_images_of_other_modes(mode) -> None:
    pairs = [(picture(16, 16, i, mode), i) for i in range(2)]
    colours = from_samples(pairs, "pairs", config=torchvision_config(8, 8))
    assert colours.shape == (3, 8, 8)
    gray = mode in ("L", "1", "LA")
    assert from_samples(pairs, "pairs").shape == ((1 if gray else 3), 16, 16)


def test_timm_modules_say_how_they_expect_images(folder) -> None:
    timm = pytest.importorskip("timm", reason="the extra 'zoo' is not installed")
    network = timm.create_model("test_efficientnet", num_classes=2).eval()
    network.pretrained_cfg |= {"input_size": (3, 64, 64), "crop_pct": 0.9}
    model = nn.Sequential(nn.Identity(), network)
    _, data = open_inputs([model], f"folder:{folder}", EvalConfig(), CPU)
    usual = timm.data.create_transform(**timm.data.resolve_model_data_config(network), normalize=False)
    assert data is not None
    assert torch.equal(data.in_memory().images, torch.stack([usual(image) for image in opened(folder)]))
    assert data.preprocessing is not None
    assert (data.preprocessing.resize, data.preprocessing.crop) == (math.floor(64 / 0.9), (64, 64))


@pytest.mark.parametrize("mode", ["squash", "border", "center"])
def test_the_ways_in_which_timm_crops(folder, mode) -> None:
    timm = pytest.importorskip("timm", reason="the extra 'zoo' is not installed")
    network = timm.create_model("test_efficientnet", num_classes=2).eval()
    network.pretrained_cfg |= {"input_size": (3, 40, 48), "crop_pct": 0.95, "crop_mode": mode}
    data = load_data(f"folder:{folder}", input=open_config(network))
    usual = timm.data.create_transform(**timm.data.resolve_model_data_config(network), normalize=False)
    assert torch.equal(data.in_memory().images, torch.stack([usual(image) for image in opened(folder)]))
    assert ("borders" in str(data.preprocessing)) == (mode == "border")


def open_config(network: nn.Module) -> InputConfig | None:
    from freqrobust.models.timm_config import input_of

    return input_of(network)


def test_the_normalisation_is_chosen_on_images_that_were_resized(folder) -> None:
    """The data need the network's configuration, and the trial of normalisations needs the data."""
    from freqrobust.models.loading import with_normalization

    config = torchvision_config(36, 32)
    loaded = LoadedModel(Mean(), "mean", preset("none", "checkpoint"), input=config, labels=("red", "green"))
    part = LoadedNetwork("mean", loaded, None)
    data = load_data(f"folder:{folder}", input=part.input)
    model = with_normalization(part, data)
    assert (model.input, model.labels) == (config, ("red", "green"))
    assert set(model.normalization.scores) == {"none", "half", "imagenet", "cifar10"}


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("text", "size"), [("256", 256), ("224x288", (224, 288)), ("none", None), ("1", 1), ("16384", 16384)]
)
def test_sizes(text, size) -> None:
    assert parse_size(text) == size


WRONG = ["", "0", "-3", "1.5", "256x", "x256", "3x4x5", "256X256", "16385", "0x5", "1e3", "auto", "٣"]


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("flag", ["resize", "crop"])
def test_wrong_sizes(text, flag) -> None:
    with pytest.raises(ValueError, match="should be"):
        parse_size(text)
    with pytest.raises(FreqRobustError, match=f"^{flag} should be .*but got"):
        evaluate("demo", "digits", **{flag: text})
    with pytest.raises(FreqRobustError, match=f"^{flag} should be"):
        load_data("digits", **{flag: text})
    with pytest.raises(SpecError, match=f"^{flag} should be"):
        requested(None, **{"resize": None, "crop": None, flag: text})


@pytest.mark.parametrize("value", [True, 2.5, (3,), (3, 4, 5), [True, 5], b"5", {}])
def test_wrong_types_of_sizes(value) -> None:
    with pytest.raises(FreqRobustError, match="resize should be"):
        EvalConfig(resize=value)


@pytest.mark.parametrize("value", [(40, 36), [40, 36], "40x36"])
def test_forms_of_a_size_in_python_and_toml(value) -> None:
    assert EvalConfig(resize=value).resize == "40x36"
    assert EvalConfig(crop=24).crop == "24"


def test_a_wrong_size_on_the_command_line(capsys) -> None:
    for command in (["eval"], ["analyze", "heatmap"], ["train"], ["verify", "x"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--resize", "big"])
        assert ended.value.code == 2
        assert "--resize should be a number of pixels, HEIGHTxWIDTH such as 224x288, or none, but got 'big'" in (
            capsys.readouterr().err
        )


def test_train_takes_sizes(folder, tmp_path) -> None:
    from freqrobust.core.training_config import TrainConfig
    from freqrobust.experiments.training_setup import open_training_data

    with pytest.raises(DataError, match="differ in size"):
        open_training_data(TrainConfig(data=f"folder:{folder}"))
    data = open_training_data(TrainConfig(data=f"folder:{folder}", resize=16, crop=16))
    assert data.shape == (3, 16, 16)
    assert data_record(data).preprocessing is not None
    pairs = [(image, index % 2) for index, image in enumerate(opened(folder))]
    assert open_training_data(TrainConfig(data=pairs, resize="12x10")).shape == (3, 12, 10)


def test_the_project_file_takes_sizes(tmp_path, monkeypatch) -> None:
    from freqrobust.gate.project import read_project

    path = tmp_path / "freqrobust.toml"
    path.write_text('[eval]\nmodel = "demo"\nresize = 10\ncrop = "8x8"\n[thresholds]\nclean = 0.5\n')
    assert EvalConfig(**dict(read_project(path).eval)).resize == "10"


def test_a_record_without_preprocessing_is_still_read() -> None:
    from freqrobust.results.records import DataRecord

    record = data_record(ImageData(torch.rand(2, 3, 4, 4), torch.arange(2), 2))
    old = json.loads(record.model_dump_json())
    assert old.pop("preprocessing") is None
    assert DataRecord.model_validate(old) == record
