"""``freqrobust.train``: recipes, the split, resuming, and what the directory of a training contains."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import freqrobust
from freqrobust import TrainConfig, evaluate, load_model, train
from freqrobust.core.errors import DataError, JournalError, SpecError, TrainingError
from freqrobust.core.progress import Silent
from freqrobust.core.training_config import Recipe
from freqrobust.experiments.train import opened
from freqrobust.experiments.training_setup import Setup, prepare_setup
from freqrobust.models.fingerprint import state_hash
from freqrobust.training.plan import plan
from freqrobust.training.recipes import read_recipe, recipe_about, recipe_names, resolve
from support.waiting import PATIENCE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CPU = torch.device("cpu")
#: As little as a training can be.
TINY: dict[str, Any] = {"epochs": 2, "batch_size": 32, "probe": ["clean"], "probe_samples": 20, "device": "cpu"}


def images(n: int = 80, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose class is a bright quadrant."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    pixels = torch.rand(n, 1, 8, 8, generator=generator) * 0.4
    for i, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        pixels[i, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.5
    return pixels, labels


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these trainings."""
    if request.function is not test_a_training_and_its_files:
        monkeypatch.setattr("freqrobust.experiments.train.can_draw", lambda: False)


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    return images()


def setup(data: Any, **options: Any) -> Setup:
    return prepare_setup(None, TrainConfig(**{**TINY, "data": data, **options}), CPU)


# Recipes


@pytest.mark.parametrize("name", recipe_names())
def test_every_named_recipe_is_valid_and_described(name: str) -> None:
    recipe = resolve(TrainConfig(recipe=name))
    assert recipe.epochs > 1
    assert recipe_about(name).endswith(".")
    assert set(read_recipe(name)) <= set(Recipe.model_fields)


def test_options_lie_on_top_of_set_on_top_of_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('# Mine.\nepochs = 3\nbatch-size = 7\nema = 0.5\naugment = ["none"]\ncompile = true\n')
    recipe = resolve(TrainConfig(recipe=file, set=["batch-size=9", "ema=none", "compile=false"], epochs=10))
    assert (recipe.epochs, recipe.batch_size, recipe.ema, recipe.augment) == (10, 9, None, ["none"])
    assert recipe.compile is False
    assert resolve(TrainConfig(recipe=file)).epochs == 3
    config = TrainConfig(recipe=file)
    assert resolve(TrainConfig.of(config, {"seed": 3})).epochs == 3  # a copy does not turn defaults into options
    assert resolve(config.replace(epochs=4)).epochs == 4
    assert resolve(TrainConfig(set=['probe=["clean", "lfc:radius=2"]'])).probe == ["clean", "lfc:radius=2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "epochs = 3\n\nbatchsize = 4\n",
            "line 3: unknown key 'batchsize'; did you mean 'batch-size'? (keys of a recipe:",
        ),
        ("[train]\nepochs = 3\n", "line 1: unknown key 'train'"),
        ("# one\nepochs = 0\n", "line 2: epochs should be at least 1, but got 0"),
        ("hold-out = 1.5\n", "line 1: hold-out should be less than 1, but got 1.5"),
        ("batch_size = 1\nbatch-size = 2\n", "line 2: 'batch-size' is given twice"),
        ("epochs = \n", "is not TOML"),
    ],
)
def test_a_wrong_recipe_file_names_the_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(SpecError) as error:
        resolve(TrainConfig(recipe=file))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "natral"}, "unknown recipe 'natral'; did you mean 'natural'?"),
        ({"recipe": "no/such.toml"}, "the recipe no/such.toml does not exist"),
        ({"set": ["epochs"]}, "--set epochs: expected key=value"),
        ({"set": ["epoch=3"]}, "--set epoch=3: unknown key 'epoch'; did you mean 'epochs'?"),
        ({"set": ["epochs=0"]}, "--set epochs=0: epochs should be at least 1"),
        ({"set": ["compile=yes"]}, "--set compile=yes: expected true or false"),
        ({"set": ["probe=[clean"]}, "--set probe=[clean: expected a list such as"),
    ],
)
def test_a_wrong_recipe_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        resolve(TrainConfig(**options))
    assert str(error.value).startswith(message)


def test_the_hash_of_a_recipe_depends_on_its_values_and_not_on_how_they_were_given(data: Any) -> None:
    first = setup(data, optimizer="sgd:lr=0.1")
    assert setup(data, set=["optimizer=sgd:lr=1e-1"]).recipe_sha256 == first.recipe_sha256
    one, other = (setup(data, labels=spelled) for spelled in ("corrupted:p=0.2", "corrupted: p=1/5"))
    assert one.recipe_sha256 == other.recipe_sha256 != first.recipe_sha256
    assert setup(data, optimizer="sgd:lr=0.2").recipe_sha256 != first.recipe_sha256
    assert first.written["optimizer"] == "sgd:lr=0.1"
    assert Recipe(**{name.replace("-", "_"): value for name, value in first.written.items()}).epochs == 2


# Data


def test_held_out_images_are_stratified_and_not_trained_on(data: Any) -> None:
    made = setup(data, hold_out=0.25, probe_samples=8)
    assert made.all_held_out is not None
    assert made.held_out is not None
    assert (len(made.train), len(made.all_held_out), len(made.held_out), len(made.probed)) == (60, 20, 8, 8)
    assert not set(made.train.ids.tolist()) & set(made.all_held_out.ids.tolist())
    assert made.all_held_out.labels.bincount().tolist() == [5, 5, 5, 5]
    assert setup(data, hold_out=0.25, seed=1).all_held_out.ids.tolist() != made.all_held_out.ids.tolist()


def test_labels_are_randomised_on_training_images_only_and_shifts_not_on_probes(data: Any) -> None:
    plain = setup(data, hold_out=0.25)
    made = setup(data, hold_out=0.25, labels="shuffled", train_shift="lfc:radius=1")
    assert made.held_out is not None
    assert plain.held_out is not None
    assert not torch.equal(made.train.labels, plain.train.labels)
    assert made.train.labels.bincount().tolist() == plain.train.labels.bincount().tolist()
    assert torch.equal(made.held_out.labels, plain.held_out.labels)
    assert torch.equal(made.held_out.images, plain.held_out.images)
    assert torch.equal(made.probed.images, plain.probed.images)
    taken = torch.isin(made.train.ids, made.probed.ids)
    assert torch.equal(made.train.labels[taken], made.probed.labels)  # probes use the labels that are trained on
    assert not torch.allclose(made.train.images, plain.train.images)


def test_pixels_are_randomised_in_the_same_way_on_training_and_held_out_images(data: Any) -> None:
    made = setup(data, hold_out=0.25, pixels="shuffled")
    assert made.held_out is not None
    pixels, _ = data
    for part in (made.train, made.held_out):
        original = pixels[part.ids]
        assert not torch.equal(part.images, original)
        assert torch.equal(part.images.flatten(1).sort(dim=1).values, original.flatten(1).sort(dim=1).values)


def test_the_network_gets_the_normalisation_of_the_training_images(data: Any) -> None:
    made = setup(data, hold_out=0.25)
    normalised = made.model.normalize(made.train.images)
    assert float(normalised.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normalised.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert made.model.arch == "small_cnn"
    assert setup(data, normalize="half").model.normalization.preset == "half"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"data": (torch.rand(20, 1, 8, 8), torch.full((20,), 3))},
            "the training data: all 18 training images have the label 3",
        ),
        ({"arch": "nothing"}, "unknown architecture 'nothing'"),
        ({"labels": "corupted:p=0.1"}, "labels should be true, shuffled or corrupted:p=0.2, but got 'corupted:p=0.1'"),
        ({"pixels": "noise"}, "pixels should be true, shuffled, random or gaussian, but got 'noise'"),
        ({"probe": ["smooth"]}, "probe 'smooth': unknown attack 'smooth'"),
        ({"best": "pgd"}, "the best checkpoint is chosen by one of the probes clean, but got 'pgd'"),
        ({"hold_out": 0, "best": "clean"}, "the best checkpoint is chosen on held-out data, but hold-out is 0"),
        ({"train_shift": ["pgd"]}, "train-shift pgd is no shift of the input"),
        ({"method": "natral"}, "unknown training method 'natral'; did you mean 'natural'?"),
        ({"normalize": "0.1,0.2/1,1"}, "the normalisation 0.1,0.2/1,1 has 2 channels, but the images have 1"),
        (
            {"arch": "torchvision:resnet18"},
            "the training data contains grayscale images, but the model takes 3 channels",
        ),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    options: dict[str, Any], message: str, data: Any, tmp_path: Path
) -> None:
    with pytest.raises((SpecError, DataError, freqrobust.FreqRobustError)) as error:
        train(**{**TINY, "data": data, "out": tmp_path / "run", **options})
    assert str(error.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_more_classes_than_outputs(data: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 4 classes, but the network Sequential has 3 outputs"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), data=data, out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


# The training


def test_a_training_and_its_files(data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    run = train(data=data, out=out, hold_out=0.25, **{**TINY, "epochs": 4})
    assert capsys.readouterr() == ("", "")
    assert run.record.best_epoch is not None
    best = run.record.epochs[run.record.best_epoch - 1]
    assert best.best
    assert best.probes[0].held_out is not None
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert json.loads((out / "training.json").read_text())["epochs"] == lines
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    # the checkpoint needs nothing else
    loaded = load_model(out / "best.pt")
    assert state_hash(loaded) == state_hash(run.model)
    assert (loaded.arch, loaded.normalization.source) == ("small_cnn", "checkpoint")
    about = torch.load(out / "best.pt", weights_only=True)["freqrobust"]["training"]
    assert about["recipe"] == run.record.recipe
    assert about["epoch"] == run.record.best_epoch
    assert about["chosen_by"] == "clean"
    # the probe is what evaluate measures
    made = setup(data, hold_out=0.25, epochs=4)
    report = evaluate(run.model, made.held_out, attacks=["clean"], device="cpu")
    assert report.cells[0].correct == best.probes[0].held_out.correct


def test_a_finished_training_is_served_at_once(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(data=data, out=tmp_path, **TINY)
    monkeypatch.setattr("freqrobust.training.loop.Training.run_epoch", None)
    again = train(data=data, out=tmp_path, **TINY)
    assert again.record == first.record
    assert again.resumed == 2
    assert state_hash(again.model) == state_hash(first.model)


def test_the_default_directory_is_found_again(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = train(data=data, **TINY)
    assert first.out.parent == Path("runs")
    assert first.out.name.startswith("train-small_cnn-")
    assert train(data=data, **TINY).out == first.out
    assert train(data=data, **{**TINY, "epochs": 1}).out != first.out


def test_the_best_epoch_is_the_last_one_without_held_out_images(data: Any, tmp_path: Path) -> None:
    run = train(data=data, out=tmp_path, hold_out=0, **TINY)
    assert run.record.best_epoch == 2
    assert run.record.held_out_data is None
    last = torch.load(tmp_path / "last.pt", weights_only=True)["training"]["model"]
    assert all(torch.equal(last[name], value) for name, value in run.model.state_dict().items())


def test_the_best_epoch_is_one_after_which_its_probe_was_measured(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then a warning does not name a checkpoint that does not exist."""
    said: list[tuple[str, bool]] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            said.append((text, (tmp_path / "best.pt").exists()))

    monkeypatch.setattr("freqrobust.experiments.train.catastrophic_overfitting", lambda *given: "it overfits")
    probe = "lfc:radius=2@every=2"
    options = {**TINY, "epochs": 3, "probe": [probe], "best": "lfc:radius=2"}
    run = train(data=data, out=tmp_path, progress=Heard(), **options)
    assert run.record.best_epoch in (2, 3)
    assert said[0] == ("warning: it overfits; lfc:radius=2 has chosen no best.pt yet", False)
    assert said[1] == ("warning: it overfits; best.pt is of epoch 2", True)


def test_a_model_of_the_caller_is_copied(data: Any, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    before = state_hash(network)
    run = train(network, data=data, out=tmp_path / "a", **TINY)
    assert state_hash(network) == before
    assert run.model.normalization.preset == "none"
    assert state_hash(run.model) != state_hash(train(network, data=data, out=tmp_path / "b", seed=1, **TINY).model)
    fine = train(run.model, data=data, out=tmp_path / "c", **TINY)  # training goes on from a classifier
    assert fine.model.normalization == run.model.normalization
    with pytest.raises(SpecError, match="give either a model or arch='resnet8', not both"):
        train(network, data=data, arch="resnet8", out=tmp_path / "d", **TINY)
    with pytest.raises(SpecError, match=r"model should be an nn\.Module or None, but got str"):
        train("resnet8", data=data, out=tmp_path / "d", **TINY)  # type: ignore[arg-type]


def test_which_parameters_are_frozen_is_part_of_the_run(data: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    network[1].requires_grad_(False)
    run = train(network, data=data, out=tmp_path, **TINY)
    assert torch.equal(run.model.network[1].weight, network[1].weight)
    assert not torch.equal(run.model.network[3].weight, network[3].weight)
    with pytest.raises(JournalError, match="another run: the initial network differs"):
        train(network.requires_grad_(True), data=data, out=tmp_path, **TINY)


# The directory


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 3}, "contains another run: epochs was 2 and is 3; give another --out"),
        ({"seed": 1}, "contains another run: seed was 0 and is 1"),
        ({"arch": "resnet8"}, "arch was auto and is resnet8"),
        ({"data": images(seed=1)}, "the training data differs"),
        ({"probe": ["clean", "lfc:radius=2"]}, "probe was clean and is clean lfc:radius=2"),
    ],
)
def test_another_run_in_the_directory(options: dict[str, Any], message: str, data: Any, tmp_path: Path) -> None:
    train(data=data, out=tmp_path, **TINY)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(JournalError) as error:
        train(**{**TINY, "data": data, "out": tmp_path, **options})
    assert message in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_directory_with_a_checkpoint_of_something_else(data: Any, tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"precious")
    with pytest.raises(JournalError, match=r"contains best.pt, but no run.json that names its run; give another --out"):
        train(data=data, out=tmp_path, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_two_processes_do_not_train_in_one_directory(data: Any, tmp_path: Path) -> None:
    config = TrainConfig(**{**TINY, "data": data, "out": tmp_path / "run"})
    with opened(None, config) as first:
        with pytest.raises(
            JournalError, match=r"another process trains in .*run; wait until it has ended, or give another"
        ):
            train(config=config)
        first.run()
    assert train(config=config).resumed == 2  # it is free again
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"run.json", "best.pt", "last.pt", "log.jsonl"}


def test_a_run_file_of_another_program_is_not_overwritten(data: Any, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"experiment": 7}')
    with pytest.raises(JournalError, match=r"run.json is not that of a training; give another --out"):
        train(data=data, out=tmp_path, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == '{"experiment": 7}'


@pytest.mark.parametrize("damage", [b"", b"nothing", "half"])
def test_a_damaged_checkpoint_says_what_to_do(damage: Any, data: Any, tmp_path: Path) -> None:
    train(data=data, out=tmp_path, **TINY)
    last = tmp_path / "last.pt"
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2] if damage == "half" else damage)
    (tmp_path / "training.json").unlink()
    with pytest.raises(JournalError) as error:
        train(data=data, out=tmp_path, **TINY)
    assert str(error.value).startswith(
        f"{last} is truncated or damaged, and the training cannot be resumed from it; remove"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("log.jsonl", "should have epochs 1 to 2, but has 0 records"), ("best.pt", "best.pt is missing or damaged")],
)
def test_a_missing_file_says_what_to_do(name: str, message: str, data: Any, tmp_path: Path) -> None:
    train(data=data, out=tmp_path, **TINY)
    (tmp_path / "training.json").unlink()
    (tmp_path / name).unlink()
    with pytest.raises(JournalError, match=message):
        train(data=data, out=tmp_path, **TINY)


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(data: Any, tmp_path: Path) -> None:
    options = {**TINY, "epochs": 3, "optimizer": "sgd:lr=1e30", "schedule": "constant"}
    with pytest.raises(TrainingError, match=r"not finite in step \d+ \(epoch 1\); .*; no epoch was finished") as error:
        train(data=data, out=tmp_path / "first", **options)
    assert error.value.exit_code == 3
    train(data=data, out=tmp_path / "first", **TINY)  # nothing was kept there, so that another run can have it
    late = {**TINY, "epochs": 3, "optimizer": "sgd:lr=1", "schedule": "diverging.py:Late"}
    (tmp_path / "diverging.py").write_text(LATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(
            TrainingError, match=r"not finite in step 6 \(epoch 2\); .*last.pt is the checkpoint of epoch 1"
        ):
            train(data=data, out="late", **late)
        kept = torch.load("late/last.pt", weights_only=True)["training"]
        assert kept["epoch"] == 1
        assert all(bool(torch.isfinite(v).all()) for v in kept["model"].values())
        assert load_model("late/best.pt").arch == "small_cnn"


LATE = """
from freqrobust.plugins.training import Schedule
class Late(Schedule):
    def factor(self, step, steps, per_epoch):
        return 0.01 if step < per_epoch + 1 else 1e30
"""


@pytest.mark.parametrize("when", [1, 3, 5])
def test_a_full_disk_leaves_whole_files(when: int, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(data=data, out=tmp_path / "undisturbed", **TINY)
    real, calls = os.fsync, []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) > when:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    out = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(JournalError, match=r"cannot write .*No space left on device"):
            train(data=data, out=out, **TINY)
    assert not list(out.glob(".freqrobust-*"))
    for path in out.glob("*.pt"):
        torch.load(path, weights_only=True)
    again = train(data=data, out=out, **TINY)
    assert state_hash(again.model) == state_hash(expected.model)


KILLED = '''
"""Train again and again, each time killed at a random operation, until the training is finished."""
import os, random, signal, sys
import torch
import freqrobust.experiments.train
torch.set_num_threads(1)  # a process that forks has to have one thread
freqrobust.experiments.train.can_draw = lambda: False
from freqrobust import train
from freqrobust.training.loop import Training

options = eval(sys.argv[1])
generator = torch.Generator().manual_seed(0)
options["data"] = torch.rand(96, 1, 8, 8, generator=generator), torch.arange(96) % 4
random.seed(0)
train(out="undisturbed", **options)


def killed_after(operations):
    """A training in a process of its own that kills itself at this step, or before or after a file is written."""
    left = [operations]

    def counted(function):
        def call(*arguments, **keywords):
            for moment in ("before", "after"):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                if moment == "before":
                    result = function(*arguments, **keywords)
            return result
        return call

    child = os.fork()
    if child == 0:
        Training._step = counted(Training._step)
        os.fsync, os.replace = counted(os.fsync), counted(os.replace)
        try:
            train(out="killed", **options)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


kills = 0
while (code := killed_after(random.randint(1, 30) if kills < 7 else 10**6)) == -signal.SIGKILL:
    kills += 1
print(kills)
sys.exit(code)
'''
MULTI_STEP = """
import torch
import torch.nn.functional as F
from torch import nn
from freqrobust.plugins.training import TrainingMethod

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 4))

class Twice(TrainingMethod):
    @property
    def steps_per_batch(self):
        return 2
    def losses(self, model, batch, context):
        noise = context.normal(tuple(batch.images.shape[1:]), f"twice {context.replay}")
        context.memory["shift"] = context.memory.get("shift", 0) + 0.01
        logits = model(batch.images + 0.1 * noise + context.memory["shift"])
        return F.cross_entropy(logits, batch.targets, reduction="none"), logits
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"method": "madry:eps=0.1,steps=2", "probe": ["clean", "pgd:eps=0.1,steps=2@every=2"]},
        {"method": "mine.py:Twice", "arch": "mine.py:build", "ema": 0.9, "optimizer": "adam", "probe": ["clean"]},
    ],
    ids=["adversarial", "dropout, average and several steps"],
)
def test_killed_at_random_moments(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, and before and after each write: the final weights are the same, bit for bit."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MULTI_STEP)
    options = {"epochs": 5, "batch_size": 24, "hold_out": 0.25, "device": "cpu", **options}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, repr(options)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(96, 1, 8, 8, generator=generator), torch.arange(96) % 4
    expected = train(data=data, out="undisturbed", **options)
    assert expected.resumed == 5
    for name in ("last.pt", "best.pt"):
        ours, theirs = (torch.load(f"{run}/{name}", weights_only=True) for run in ("undisturbed", "killed"))
        assert same(ours, theirs), name
    killed = train(data=data, out="killed", **options)
    assert timeless(killed.record.model_dump()) == timeless(expected.record.model_dump())
    assert not list(Path("killed").glob(".freqrobust-*"))


def same(a: Any, b: Any) -> bool:
    """Whether two nested values are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def timeless(record: Any) -> Any:
    """A record without times."""
    if isinstance(record, dict):
        return {k: timeless(v) for k, v in record.items() if k not in ("seconds", "probe_seconds", "created", "git")}
    return [timeless(item) for item in record] if isinstance(record, list) else record


# The page


def test_the_page_names_every_key_and_every_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    for name, field in Recipe.model_fields.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name.replace('_', '-')}` |"))
        if isinstance(field.default, str | int | float) and not isinstance(field.default, bool):
            assert f"| `{field.default}` |" in row
    for name in recipe_names():
        assert f"| `{name}` | {recipe_about(name)} |" in page
    for block in re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL):
        values = tomllib.loads(block)
        assert set(values) <= {name.replace("_", "-") for name in Recipe.model_fields}
        plan(Recipe(**{name.replace("-", "_"): value for name, value in values.items()}))
