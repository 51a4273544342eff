"""Training from images in files: what training from their pixels in memory gives, bit for bit, with few of them in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from freqrobust import ImageData, load_data, load_model, train
from freqrobust.core.errors import FreqRobustError
from freqrobust.core.progress import Silent
from freqrobust.core.training_config import TrainConfig
from freqrobust.data import pixel_cache
from freqrobust.data.changed_images import ChangedImages
from freqrobust.data.image_store import ImageFiles, ImageStore
from freqrobust.experiments.training_setup import prepare_setup
from freqrobust.models.architectures import SmallCNN
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.registry import attacks, defenses
from freqrobust.training.loop import Training, fit
from freqrobust.training.plan import sgd_plan
from freqrobust.training.randomization import randomized_pixels
from freqrobust.training.shifts import shifted
from support.peak_memory import GIVEN_BACK, PEAK, needs_peaks
from support.waiting import PATIENCE, wait_until

CPU = torch.device("cpu")
COUNT = 36
TINY: dict[str, Any] = {"epochs": 2, "batch_size": 8, "device": "cpu", "hold_out": 0.25, "probe": ["clean"]}


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freqrobust.experiments.train.can_draw", lambda: False)


def write(folder: Path, count: int = COUNT, side: int = 12) -> Path:
    """Images of noise in three classes that differ in brightness."""
    for index in range(count):
        path = folder / f"class{index % 3}" / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(60 * (index % 3), 136 + 60 * (index % 3), (side, side, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("training") / "images")


@pytest.fixture(scope="module")
def arrays(folder: Path) -> Path:
    """The same images as arrays."""
    data = load_data(f"folder:{folder}", data_cache="off").in_memory()
    path = folder.parent / "images.npz"
    np.savez(path, images=data.images, labels=data.labels.numpy())
    return path


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was decoded."""
    counted: Counter[str] = Counter()
    real = ImageFiles.decode

    def decode(files: ImageFiles, row: int) -> np.ndarray:
        counted[files.files[row].name] += 1
        return real(files, row)

    monkeypatch.setattr(ImageFiles, "decode", decode)
    return counted


def log(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("seconds")} for line in lines]


def assert_equal_runs(one: Path, other: Path) -> None:
    assert log(one) == log(other)
    last = [torch.load(run / "last.pt", weights_only=True)["training"]["model"] for run in (one, other)]
    best = [load_model(run / "best.pt", trust=True).state_dict() for run in (one, other)]
    for found, expected in (last, best):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert torch.equal(value, expected[name]), name


# ---------------------------------------------------------------- the same training


@pytest.mark.parametrize(
    "options",
    [
        {"data_cache": "off"},
        {"data_cache": "memory", "augment": ["flip-crop", "mixup:alpha=1"]},
        {"data_cache": "directory", "method": "madry:eps=0.05,steps=1", "probe": ["fgsm:eps=0.05", "lfc:radius=2"]},
        {
            "data_cache": "off",
            "pixels": "random",
            "train_shift": ["lfc:radius=3", "corruption:name=gaussian_noise,severity=2"],
        },
        {"data_cache": "memory", "pixels": "gaussian", "train_shift": ["hfc:radius=2"], "labels": "shuffled"},
        {"data_cache": "off", "pixels": "shuffled", "method": "free:eps=0.05,replays=2", "hold_out": 0},
    ],
    ids=lambda options: "-".join(f"{value}" for value in options.values()),
)
def test_files_train_the_network_that_their_pixels_train(folder, arrays, tmp_path, options) -> None:
    cache = options.pop("data_cache")
    where = tmp_path / "cache" if cache == "directory" else cache
    streamed = train(data=f"folder:{folder}", out=tmp_path / "files", **{**TINY, **options}, data_cache=where)
    train(data=arrays, out=tmp_path / "arrays", **{**TINY, **options})
    assert_equal_runs(tmp_path / "files", tmp_path / "arrays")
    assert streamed.record.train_data.n == (27 if options.get("hold_out") != 0 else COUNT)


def test_the_option_is_not_part_of_the_training(folder, tmp_path, monkeypatch) -> None:
    """A training that was interrupted goes on with another cache, from the same epoch and to the same weights."""
    real, epochs = Training.run_epoch, []

    def interrupted(self: Training, *given: Any) -> Any:
        if self.epoch == 1 and not epochs:
            epochs.append(1)
            raise KeyboardInterrupt
        return real(self, *given)

    whole = train(data=f"folder:{folder}", out=tmp_path / "whole", **{**TINY, "epochs": 3}, data_cache="off")
    monkeypatch.setattr(Training, "run_epoch", interrupted)
    options = {**TINY, "epochs": 3, "out": tmp_path / "resumed", "data": f"folder:{folder}"}
    with pytest.raises(KeyboardInterrupt):
        train(**options, data_cache="off")
    again = train(**options, data_cache=tmp_path / "cache")
    assert (whole.resumed, again.resumed) == (0, 1)
    assert_equal_runs(tmp_path / "whole", tmp_path / "resumed")
    assert again.record.train_data.sha256 == whole.record.train_data.sha256


def test_a_defense_that_trains_takes_files(folder, arrays) -> None:
    defense = defenses.parse("madry:eps=0.05,steps=1,epochs=1,train_batch=8")[0].plugin
    found = []
    for data in (load_data(f"folder:{folder}", data_cache="off"), load_data(str(arrays))):
        torch.manual_seed(0)
        network = SmallCNN(num_classes=3, in_channels=3)
        found.append(defense.apply(network, DefenseContext(device=CPU, train_data=data)).state_dict())
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


# ---------------------------------------------------------------- changed images


def data_of(folder: Path, cache: Any = "off") -> ImageData:
    data = load_data(f"folder:{folder}", data_cache=cache)
    return replace(data, ids=data.ids * 7 + 3)


CHANGES = {
    "shuffled": lambda data, seed: randomized_pixels(data, "shuffled", seed),
    "random": lambda data, seed: randomized_pixels(data, "random", seed),
    "gaussian": lambda data, seed: randomized_pixels(data, "gaussian", seed),
    "filter": lambda data, seed: shifted(
        data, [*attacks.parse("hfc:radius=2"), *attacks.parse("corruption:name=snow,severity=3")], seed
    ),
}


@pytest.mark.parametrize("cache", ["off", "memory"])
@pytest.mark.parametrize("kind", CHANGES)
def test_changed_images_are_those_that_are_changed_at_once(folder, kind, cache) -> None:
    change = CHANGES[kind]
    eager, lazy = change(data_of(folder).in_memory(), 1), change(data_of(folder, cache), 1)
    assert isinstance(lazy.images, ChangedImages)
    assert (lazy.images.dtype, lazy.images.shape, lazy.spec.rpartition("+")[2]) == (
        eager.images.dtype, eager.images.shape, eager.spec.rpartition("+")[2],
    )  # fmt: skip
    order = torch.tensor([7, 3, 3, 30])
    for _ in range(2):
        for ours, theirs in zip(lazy.batch(order, CPU), eager.batch(order, CPU), strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(lazy.images[5], eager.images[5])
    assert torch.equal(lazy.take(order).first(3).images[1:], eager.images[[3, 3]])
    assert torch.equal(lazy.part(4, 9).images[:], eager.images[4:9])
    assert torch.equal(lazy.in_memory().images, eager.images)
    hashes = {change(data_of(folder, cache), seed).sha256 for seed in (1, 1, 2)}
    assert len(hashes) == 2
    assert lazy.sha256 in hashes
    assert lazy.take(torch.arange(COUNT)).sha256 == lazy.sha256
    assert lazy.take(order).sha256 != lazy.sha256 != data_of(folder).sha256


def test_changed_images_are_kept_where_there_is_room(folder, decodings, monkeypatch) -> None:
    pixels = COUNT * 3 * 12 * 12
    monkeypatch.setattr(pixel_cache, "free_memory", lambda: 4 * 5 * pixels)
    data = data_of(folder, "memory")
    assert data.images.growth == pixels
    kept = CHANGES["filter"](data, 0)
    assert (kept.images.stays, kept.images.growth) == (True, 5 * pixels)
    assert str(kept.images) == "changed once and kept in memory (62.2 kB)"
    first = kept.images[:]
    assert kept.images.growth == 0
    monkeypatch.setattr(kept.images, "_change", None)
    assert torch.equal(kept.images[:], first)
    monkeypatch.setattr(pixel_cache, "free_memory", lambda: 4 * 5 * pixels - 1)
    computed = CHANGES["filter"](data_of(folder, "memory"), 0)
    assert not computed.images.stays
    assert str(computed.images) == "changed when they are used"
    assert torch.equal(computed.images[:], first)


# ---------------------------------------------------------------- when images are decoded


@pytest.mark.parametrize(("cache", "times"), [("off", 3), ("memory", 1), ("directory", 1)])
def test_each_epoch_decodes_each_image_once(folder, tmp_path, decodings, cache, times) -> None:
    """And mean and standard deviation of the training images once more."""
    where = tmp_path / "cache" if cache == "directory" else cache
    config = TrainConfig(data=f"folder:{folder}", data_cache=where, epochs=2, batch_size=8, hold_out=0)
    made = prepare_setup(None, config, CPU)
    fit(made.model, made.train, made.plan, device=CPU)
    assert len(decodings) == COUNT
    assert max(decodings.values()) == times
    still_there = 16 + 8 if cache == "off" else 0  # from the pass or the epoch before
    assert decodings.total() >= times * COUNT - still_there


def test_the_next_batch_is_decoded_while_this_one_trains(monkeypatch) -> None:
    class Steps(ImageFiles):
        def __init__(self) -> None:
            super().__init__([], (1, 8, 8), lambda file: np.empty(0))
            self.begun = [threading.Event() for _ in range(12)]

        def load(self, row: int) -> np.ndarray:
            self.begun[row].set()
            return np.full((1, 8, 8), row, dtype=np.uint8)

    steps = Steps()
    data = ImageData(ImageStore(steps, torch.arange(12), "none"), torch.arange(12) % 2, 2)
    training = Training(SmallCNN(num_classes=2, in_channels=1), data, sgd_plan(1, 0.1, batch_size=4), device=CPU)
    used: list[int] = []
    real = Training._step

    def step(self: Training, batch: Any, *given: Any) -> None:
        used.extend(batch.ids.tolist())
        following = 4 * (len(used) // 4 + 1)
        assert all(event.wait(PATIENCE) for event in np.array(steps.begun)[used])
        wait_until(lambda: sum(event.is_set() for event in steps.begun) >= min(following, 12))
        real(self, batch, *given)

    monkeypatch.setattr(Training, "_step", step)
    training.run_epoch(Silent())
    assert sorted(used) == list(range(12))


def test_a_damaged_file_is_named_or_left_out(tmp_path, capsys) -> None:
    folder = write(tmp_path / "images")
    damaged = folder / "class1" / "016.png"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    options = {"data": f"folder:{folder}", "out": tmp_path / "run", **TINY, "data_cache": "off"}
    with pytest.raises(FreqRobustError, match=r"class1/016\.png cannot be read: .*--skip-unreadable"):
        train(**options)
    run = train(**options, skip_unreadable=True)
    assert run.record.train_data.n + run.record.held_out_data.n == COUNT - 1
    assert run.record.notes[-1] == "1 image cannot be read and was left out: class1/016.png"


def test_the_command_says_how_images_are_kept(command, folder, tmp_path) -> None:
    options = ["--epochs", "1", "--batch-size", "8", "--probe", "clean", "--device", "cpu", "--out", tmp_path / "run"]
    done = command(
        "train", "--data", f"folder:{folder}", "--data-cache", "off", "--train-shift", "lfc:radius=2", *options
    )
    assert "images: decoded when they are used" in done.err
    assert "changed training images: changed when they are used" in done.err


# ---------------------------------------------------------------- several processes, and memory


TRAIN = f"""
import sys
from freqrobust import train
def work(count, out):
    train(data=sys.argv[1], limit=count, arch="net.py:build", epochs=1, batch_size=16, hold_out=0.1, probe=["clean"], probe_samples=64,
          device="cpu", train_shift=sys.argv[3:], out=out, data_cache=sys.argv[2])
{PEAK}
work(200, "before")
print(peak(lambda: work(200, "small")), peak(lambda: work(1000, "large")))
"""
NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


def python(folder: Path, *command: object) -> str:
    (folder / "net.py").write_text(NETWORK)
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=PATIENCE, cwd=folder, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **GIVEN_BACK},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_processes_train_from_files_as_from_arrays(folder, arrays, tmp_path) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "freqrobust", "train"]
    options = ["--arch", "net.py:build", "--epochs", 2, "--batch-size", 8, "--device", "cpu", "--probe", "clean"]
    for out, data in (("files", f"folder:{folder}"), ("arrays", arrays)):
        python(
            tmp_path,
            *launch,
            "--data",
            data,
            *options,
            "--out",
            out,
            *(["--data-cache", "off"] if out == "files" else []),
        )
    assert_equal_runs(tmp_path / "files", tmp_path / "arrays")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for index in range(1000):
        path = folder / f"class{index % 3}" / f"{index:04}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((224, 224, 3), index % 256, dtype=np.uint8)).save(path)
    return folder


@pytest.mark.slow
@needs_peaks
@pytest.mark.parametrize("options", [["off"], ["directory"], ["off", "lfc:radius=8"]], ids="-".join)
def test_the_peak_memory_does_not_grow_with_the_number_of_images(many, tmp_path, options) -> None:
    """By less than 0.4 of the pixels that the larger run has more; in memory, it would grow by all of them."""
    peaks = [int(one) for one in python(tmp_path, "-c", TRAIN, f"folder:{many}", *options).splitlines()[-1].split()]
    assert 1024 * (peaks[1] - peaks[0]) <= 0.4 * (1000 - 200) * 3 * 224 * 224
    assert peaks[1] <= 1.1 * peaks[0]
