"""Test sets for ImageNet models from folders: which class a folder is, and predictions restricted to a subset."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from freqrobust import ImageData, Report, evaluate, load_data, load_model
from freqrobust.cli.main import main
from freqrobust.core.errors import DataError
from freqrobust.data.sources.imagenet_corruptions import _severity
from freqrobust.data.wordnet_ids import class_indices
from freqrobust.harness.save_adversarial import save_adversarial
from freqrobust.harness.verify import verify

IDS = [f"n{10 * i:08}" for i in range(1000)]
SOME = IDS[3::5]


def picture(path: Path, red: int, green: int, blue: int = 128) -> None:
    """A JPEG of one colour; its values change by at most 1, and not at all where the colour is grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (red, green, blue)).save(buffer, "JPEG", quality=100, subsampling=0)
    path.write_bytes(buffer.getvalue())


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The list of classes, a set of 200 classes, and sets of all classes."""
    home = tmp_path_factory.mktemp("imagenet")
    (home / "classes.txt").write_text("".join(f"{name} a name\n" for name in reversed(IDS)))
    for label, name in enumerate(SOME):
        picture(home / "some" / name / "image.JPEG", label, label, label)
    (home / "some" / "README.txt").write_text("about")
    for index, name in enumerate(IDS):
        picture(home / "all" / name / "image.JPEG", index % 250, 60 * (index // 250))
    (home / "v2").mkdir()
    (home / "cbar" / "sparkles").mkdir(parents=True)
    (home / "3dcc" / "fog_3d").mkdir(parents=True)
    for index, name in enumerate(IDS):
        (home / "v2" / str(index)).symlink_to(home / "all" / name)
    for severity in ("10.00", "2.35", "3.20", "4.90", "6.60"):
        (home / "cbar" / "sparkles" / severity).mkdir()
    for folder in (home / "cbar" / "sparkles" / "10.00", home / "3dcc" / "fog_3d" / "5"):
        if folder.exists():
            folder.rmdir()
        folder.symlink_to(home / "all")
    return home


def decoded(data: ImageData) -> torch.Tensor:
    images = data.in_memory().images
    return (images[:, 0, 0, 0].int() + (images[:, 1, 0, 0].float() / 60).round().int() * 250).int()


class Thousand(nn.Module):
    """Predicts class 0, which is not in the subset; without it the class 3 + 5 * red."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = x[:, 0].mean(dim=(1, 2)) * 255
        logits = -self.scale * (torch.arange(1000.0) - 3 - 5 * (red[:, None] - 0.3)) ** 2
        return torch.cat([logits.new_full((len(x), 1), 1000.0), logits[:, 1:]], dim=1)


@pytest.fixture
def some(home) -> ImageData:
    return load_data(f"imageneta:{home}/some,classes={home}/classes.txt")


@pytest.mark.parametrize("name", ["imageneta", "imagenetr"])
def test_labels_number_the_classes_of_the_subset(home, name) -> None:
    data = load_data(f"{name}:{home}/some,classes={home}/classes.txt")
    assert data.classes == 200
    assert data.class_subset == tuple(range(3, 1000, 5))
    assert torch.equal(data.in_memory().images[:, 0, 0, 0].long(), data.labels)
    limited = load_data(f"{name}:{home}/some,classes={home}/classes.txt", limit=30)
    assert limited.class_subset == data.class_subset
    assert torch.equal(limited.labels, data.labels[limited.ids])


def test_folders_of_all_classes(home) -> None:
    for spec in (f"imagenetsketch:{home}/all,classes={home}/classes.txt", f"imagenetv2:{home}/v2"):
        data = load_data(spec)
        assert (data.classes, data.class_subset, len(data)) == (1000, (), 1000)
        assert sorted(data.labels.tolist()) == list(range(1000))
        assert (decoded(data) - data.labels).abs().max() <= 1
    assert data.labels[:3].tolist() == [0, 1, 10]  # files are in the order of the names


def test_corruptions_in_folders(home) -> None:
    data = load_data(f"imagenet3dcc:{home}/3dcc,name=fog_3d,severity=5", first=40)
    assert (data.classes, len(data), data.labels.tolist()) == (1000, 40, list(range(40)))
    assert len(load_data(f"imagenetcbar:{home}/cbar,name=sparkles,severity=5", limit=50)) == 50
    with pytest.raises(DataError, match=r"2\.35: Couldn't find any class folder"):
        load_data(f"imagenetcbar:{home}/cbar,name=sparkles,severity=1")


def test_severities_that_are_named_by_other_whole_numbers(tmp_path) -> None:
    """The folder ``3`` is severity 1 where the five are named 3, 5, 8, 9 and 10, and not severity 3."""
    for name in ("10", "3", "5", "8", "9"):
        (tmp_path / name).mkdir()
    assert [_severity(tmp_path, severity).name for severity in range(1, 6)] == ["3", "5", "8", "9", "10"]
    (tmp_path / "10").rmdir()
    assert _severity(tmp_path, 3).name == "3"
    with pytest.raises(DataError, match="has no severity 1; expected"):
        _severity(tmp_path, 1)


def test_predictions_are_restricted(some, tmp_path) -> None:
    model = Thousand().eval()
    assert (model(some.batch(torch.arange(200), torch.device("cpu"))[0]).argmax(dim=1) == 0).all()
    report = evaluate(
        model,
        some,
        attacks=["fgsm:eps=3/255"],
        defenses=["undefended", "bit-depth:bits=8"],
        device="cpu",
        diagnose="quick",
    )
    assert report.status == "complete"
    assert report.data.class_subset == list(some.class_subset)
    assert report.data.classes == 200
    clean, attacked = report.cells[:2]
    assert clean.accuracy > 0.95
    assert attacked.accuracy < 0.05
    assert report.cells[2].accuracy > 0.95
    report.to_json(tmp_path / "report.json")
    assert Report.from_json(tmp_path / "report.json").data == report.data


def test_a_model_with_too_few_classes_is_refused(some) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 200))
    with pytest.raises(DataError, match="200 classes up to class 998 of ImageNet, but the model has 200 classes"):
        evaluate(model, some, attacks=["clean"], device="cpu")


def test_saved_examples_of_a_subset_are_verified(some, tmp_path) -> None:
    model = Thousand().eval()
    save_adversarial(model, some, attacks=["fgsm:eps=3/255"], directory=tmp_path, device="cpu")
    (verified,) = verify(tmp_path, model, some, device="cpu")
    assert verified.same_predictions == 200
    report = evaluate(model, some, attacks=[f"replay:dir={tmp_path}"], device="cpu", diagnose=None)
    assert report.cells[1].accuracy < 0.05


def test_classes_are_a_part_of_the_hash(some) -> None:
    other = ImageData(some.images, some.labels, 200, class_subset=tuple(range(200)))
    plain = ImageData(some.images, some.labels, 200)
    assert len({some.sha256, other.sha256, plain.sha256}) == 3


def test_normalisations_are_compared_on_all_classes(some, monkeypatch) -> None:
    seen = []

    def trial(network, images, labels, also):
        seen.append(labels)
        raise DataError("enough")

    monkeypatch.setattr("freqrobust.models.normalization.trial", trial)
    with pytest.raises(DataError, match="enough"):
        load_model(f"{Path(__file__).parents[1]}/support/networks.py:Tiny", data=some)
    assert torch.equal(seen[0], 3 + 5 * some.labels)


def test_the_list_of_timm() -> None:
    pytest.importorskip("timm", reason="the extra 'zoo' is not installed")
    indices = class_indices(None, "imageneta:DIR")
    assert sorted(indices.values()) == list(range(1000))
    assert (indices["n01440764"], indices["n15075141"]) == (0, 999)


def test_without_timm_the_error_says_what_to_give(home, monkeypatch) -> None:
    monkeypatch.setattr("freqrobust.data.wordnet_ids.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"not known without timm \(pip install .*\); or give classes=FILE"):
        load_data(f"imageneta:{home}/some")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imageneta:{home}/none,classes={home}/classes.txt", "is not a folder; expected imageneta:DIR"),
        ("imageneta:{bad}/empty,classes={home}/classes.txt", "has no class folders; expected"),
        ("imageneta:{bad}/cats,classes={home}/classes.txt", "the folder 'cats' is not named by a WordNet id"),
        ("imageneta:{home}/all,classes={home}/classes.txt", "1000 class folders, but ImageNet-A has 200"),
        ("imagenetr:{bad}/two,classes={home}/classes.txt", "2 class folders, but ImageNet-R has 200"),
        ("imagenetsketch:{home}/some,classes={home}/classes.txt", "200 class folders, but ImageNet-Sketch has 1000"),
        ("imageneta:{home}/some,classes={home}/some/README.txt", "README.txt has 0 WordNet ids; expected classes=FILE"),
        ("imageneta:{home}/some,classes={home}/none.txt", "none.txt"),
        ("imageneta:{home}/some,class=1", "unknown parameter 'class'; did you mean 'classes'?"),
        ("imagenetv2:{home}/some", "the folder 'n00000030' is not named by a class index of 0 to 999"),
        ("imagenetv2:{bad}/large", "the folder '1000' is not named by a class index of 0 to 999"),
        ("imagenetv2:{bad}/numbers", "2 class folders, but ImageNetV2 has 1000"),
        ("imagenetv2:", "expected imagenetv2:DIR"),
        (
            "imagenetcbar:{home}/cbar",
            "name a corruption and a severity of 1 to 5: imagenetcbar:DIR,name=sparkles,severity=3",
        ),
        ("imagenetcbar:{home}/cbar,name=sparkles", "name a corruption and a severity of 1 to 5"),
        ("imagenetcbar:{home}/cbar,name=sparkles,severity=6", "name a corruption and a severity of 1 to 5"),
        (
            "imagenetcbar:{home}/cbar,name=sparkels,severity=1",
            "no folder 'sparkels'; did you mean 'sparkles'? (sparkles)",
        ),
        ("imagenet3dcc:{home}/3dcc,name=fog_3d,severity=1", "has no severity 1; expected"),
        ("imagenet3dcc:{home}/none,name=fog_3d,severity=1", "is not a folder; expected imagenet3dcc:DIR,name=fog_3d"),
        (
            "imagenet3dcc:{bad}/short,name=fog_3d,severity=1",
            "2 class folders, but 3D Common Corruptions of ImageNet has 1000",
        ),
    ],
)
def test_other_folders_are_refused_in_one_line(home, tmp_path, capsys, spec, message) -> None:
    for name in (f"two/{IDS[0]}", f"two/{IDS[1]}", "cats/cats", "large/1000", "numbers/0", "numbers/1"):
        picture(tmp_path / name / "image.JPEG", 0, 0)
    for name in IDS[:2]:
        picture(tmp_path / "short" / "fog_3d" / "1" / name / "image.JPEG", 0, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(
            ["eval", "--data", spec.format(home=home, bad=tmp_path), "--model", "demo", "--attack", "clean", "--quiet"]
        )
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
