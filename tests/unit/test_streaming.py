"""Images in files that are decoded when they are used: the same pixels, few of them in memory, and nothing unnoticed."""

from __future__ import annotations

import copy
import errno
import gc
import itertools
import os
import shutil
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from freqrobust import Defense, ImageData, analyze, evaluate, load_data
from freqrobust.core.config import EvalConfig
from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.progress import Silent
from freqrobust.data import arrays, manifest, pixel_cache
from freqrobust.data.decoding import from_samples
from freqrobust.data.image_folders import image_folder
from freqrobust.data.image_store import ImageFiles, ImageStore
from freqrobust.data.input_config import InputConfig
from freqrobust.data.loading import as_data
from freqrobust.data.pixel_cache import FileCache
from freqrobust.harness.batches import Batches
from freqrobust.harness.blocks import Block
from freqrobust.harness.inputs import open_data, say_data
from freqrobust.plugins.context import DefenseContext
from support.peak_memory import GIVEN_BACK, PEAK, needs_peaks
from support.waiting import PATIENCE, wait_until

CPU = torch.device("cpu")
CROPPED = InputConfig(20, (16, 16), source="a test", channels=3)
COUNT = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of 24 to 35 pixels in three classes, in files that are old enough to be remembered."""
    for index in range(COUNT):
        path = tmp_path / "images" / f"class{index % 3}" / f"{index:02}.{('png', 'jpg')[index % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (24 + index, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert("L" if index == 5 else "RGB").save(path)
    return tmp_path / "images"


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are remembered at once, and not only two seconds after they were written."""
    monkeypatch.setattr(manifest, "_RECENT_NS", -(10**18))


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded, in no order."""
    names: list[str] = []
    real = manifest.decoded

    def noted(content: bytes, path: Path) -> Image.Image:
        names.append(path.name)
        return real(content, path)

    monkeypatch.setattr("freqrobust.data.folder_data.decoded", noted)
    return names


def opened(folder: Path, **options: object) -> ImageData:
    return load_data(f"folder:{folder}", **{"input": CROPPED, **options})  # type: ignore[arg-type]


def damage(path: Path) -> None:
    """Cut off the end of a file: its header can still be read."""
    path.write_bytes(path.read_bytes()[:-200])


class Brightness(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-1.0, 0.0, 1.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.mean(dim=(1, 2, 3)) - 0.5)[:, None] * self.weight


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("cache", ["off", "memory", "directory"])
def test_the_pixels_are_those_of_the_files_decoded_at_once(folder, tmp_path, cache) -> None:
    eager = from_samples(image_folder(folder), "eager", config=CROPPED)
    where = tmp_path / "cache" if cache == "directory" else cache
    for _ in range(2):  # the second time from the directory
        data = opened(folder, data_cache=where)
        store = data.images
        assert isinstance(store, ImageStore)
        assert (data.shape, store.dtype, len(store)) == (eager.shape, eager.images.dtype, len(eager))
        order = torch.tensor([7, 3, 3, 11])
        for _ in range(2):
            assert torch.equal(store[order], eager.images[order])
        assert torch.equal(store[2:9:3], eager.images[2:9:3])
        assert torch.equal(store[eager.labels == 1], eager.images[eager.labels == 1])
        assert torch.equal(store[4], eager.images[4])
        assert torch.equal(data.take(order).first(3).batch(torch.tensor([2, 0]), CPU)[0] * 255, eager.images[[3, 7]])
        assert torch.equal(torch.cat(list(data.image_batches(5, CPU))) * 255, eager.images)
        assert torch.equal(data.in_memory().images, eager.images)
        assert torch.equal(data.labels, eager.labels)
        assert data.class_names == eager.class_names == ("class0", "class1", "class2")
        assert data.preprocessing == eager.preprocessing == CROPPED


def test_the_sizes_come_from_the_headers() -> None:
    for config in (
        InputConfig(20, None),
        InputConfig((21, 17), None),
        InputConfig(31, (19, 23)),
        InputConfig(None, None),
        InputConfig(20, None, pipeline=lambda image: torch.zeros(3, image.height // 2, 7, dtype=torch.uint8)),
    ):
        for width, height in ((40, 33), (33, 40), (51, 51), (47, 101)):
            assert config.output_size(height, width) == tuple(
                config.decoded(Image.new("RGB", (width, height))).shape[1:]
            )


def test_images_are_found_from_another_directory(folder, tmp_path, monkeypatch) -> None:
    """As in a notebook that changes its directory after it has opened the data."""
    monkeypatch.chdir(folder.parent)
    data = opened(Path(folder.name), data_cache="off")
    monkeypatch.chdir(tmp_path.parent)
    assert torch.equal(data.in_memory().images, opened(folder).in_memory().images)  # type: ignore[arg-type]
    assert data.sha256 == opened(folder).sha256


def test_what_a_tensor_has_and_a_store_has_not_is_named(folder) -> None:
    data = opened(folder)
    for use in (lambda: data.images.float(), lambda: torch.stack([data.images]), lambda: np.asarray(data.images)):
        with pytest.raises((AttributeError, TypeError), match=r"take data\.batch\(index, device\), or data\.in_memory"):
            use()


def test_a_copy_reads_the_same_files(folder) -> None:
    data = opened(folder)
    other = copy.deepcopy(data)
    assert torch.equal(other.in_memory().images, data.in_memory().images)  # type: ignore[arg-type]
    assert other.sha256 == data.sha256


def test_other_sizes_in_python_are_applied_to_the_decoded_images(folder) -> None:
    sizes = InputConfig(8, (8, 8), given=True)
    data = as_data(opened(folder), config=sizes)
    assert torch.equal(data.images, sizes.applied(opened(folder).in_memory().images))  # type: ignore[arg-type]


def test_a_library_that_changes_the_shape_is_named(folder) -> None:
    config = InputConfig(
        None, (4, 4), pipeline=lambda image: torch.zeros(3, 4, 4 + (image.height > 30), dtype=torch.uint8)
    )
    data = opened(folder, input=config)
    with pytest.raises(DataError, match=r"09\.jpg: the preprocessing gives uint8 \(3, 4, 5\), but uint8 \(3, 4, 4\)"):
        data.batch(torch.arange(COUNT), CPU)


# ---------------------------------------------------------------- identity


def test_the_identity_is_that_of_the_content_and_not_of_its_place(folder, tmp_path, remembering) -> None:
    data = opened(folder)
    there = shutil.copytree(folder, tmp_path / "copy")
    for path in there.rglob("*.png"):
        os.utime(path, (1, 1))
    assert opened(there).sha256 == data.sha256
    assert opened(there, data_cache="off").sha256 == data.sha256
    others = [
        opened(folder, first=11),
        opened(folder, resize=20, crop=15),
        data.take(torch.arange(COUNT).flip(0)),
        replace(data, labels=2 - data.labels),
        replace(data, class_subset=(1, 2, 5)),
    ]
    (there / "class1" / "01.jpg").rename(there / "class1" / "02.jpg")
    others.append(opened(there))
    assert len({data.sha256, *(other.sha256 for other in others)}) == 1 + len(others)


def test_names_that_are_no_text_are_hashed_like_others(folder) -> None:
    """Such as those from an archive of another system: bytes that are not UTF-8."""
    before = opened(folder).sha256
    os.rename(folder / "class1" / "04.png", os.fsencode(folder / "class1") + b"/04\xe9.png")
    report = evaluate(Brightness(), opened(folder), attacks=["clean"], diagnose=None, device="cpu")
    assert report.data.n == COUNT
    assert report.data.sha256 != before


def test_an_edited_file_is_other_data_in_the_next_run(folder, remembering) -> None:
    before = opened(folder)
    path = folder / "class0" / "00.png"
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the end of its checksum, which Pillow does not compare
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and modification time are as before
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert opened(folder).sha256 != before.sha256


def test_a_file_that_changes_during_the_run_is_named(folder, tmp_path, remembering) -> None:
    for cache in ("off", "memory", tmp_path / "cache"):
        data = opened(folder, data_cache=cache)
        Image.new("RGB", (30, 30)).save(folder / "class1" / "04.png")
        with pytest.raises(DataError, match=r"class1/04\.png has changed since the run began; start the run again"):
            evaluate(Brightness(), data, attacks=["clean"], device="cpu")
        data = opened(folder, data_cache=cache)
        (folder / "class1" / "04.png").unlink()
        with pytest.raises(DataError, match=r"04\.png could be read when the run began, but now: No such file"):
            data.batch(torch.arange(COUNT), CPU)
        Image.fromarray(np.full((30, 30, 3), 7, dtype=np.uint8)).save(folder / "class1" / "04.png")


def test_known_files_are_not_read_again(folder, remembering, monkeypatch) -> None:
    before = opened(folder).sha256
    (folder / "class2" / "02.png").write_bytes((folder / "class0" / "00.png").read_bytes())
    read: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode, **more: read.append(path.name) or real(path, *mode, **more))
    data = opened(folder)
    assert sorted(name for name in set(read) if name.endswith(("png", "jpg"))) == ["00.png", "02.png"]  # 00: the shape
    assert data.sha256 != before


def test_a_file_that_was_just_written_is_read_again(folder, monkeypatch) -> None:
    """A second change within the resolution of the clock would have the same times."""
    opened(folder)
    read: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode, **more: read.append(path.name) or real(path, *mode, **more))
    opened(folder)
    assert len({name for name in read if name.endswith(("png", "jpg"))}) == COUNT


def test_a_damaged_manifest_is_no_manifest(folder, cache, remembering) -> None:
    before = opened(folder).sha256
    for path in (cache / "manifests").glob("*.json"):
        for content in ("{", "[]", '{"class0/00.png": [[1], "x", 1]}'):
            path.write_text(content)
            assert opened(folder).sha256 == before


# ---------------------------------------------------------------- unreadable files


def test_an_unreadable_file_is_named(folder) -> None:
    damage(folder / "class1" / "07.jpg")
    data = opened(folder)  # the header is all right
    with pytest.raises(DataError, match=r"class1/07\.jpg cannot be read: .*truncated.*--skip-unreadable"):
        evaluate(Brightness(), data, attacks=["clean"], device="cpu")
    (folder / "class0" / "06.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"class0/06\.png cannot be read: no image of a known format; .*--skip-unr"):
        opened(folder)
    Image.new("I;16", (30, 30)).save(folder / "class0" / "06.png")
    with pytest.raises(DataError, match=r"06\.png cannot be read: expected images with 8 bits, but one has the mode I"):
        opened(folder)
    assert len(opened(folder, first=2)) == 2  # only these are looked at


@pytest.mark.parametrize("cache", ["off", "memory", "directory"])
def test_unreadable_files_are_left_out_before_anything_is_measured(
    folder, tmp_path, cache, remembering, decodings
) -> None:
    damage(folder / "class1" / "07.jpg")
    (folder / "class0" / "00.png").write_bytes(b"")
    (folder / "class2" / "11.jpg").write_bytes(b"no image")
    options = {"data_cache": tmp_path / "cache" if cache == "directory" else cache, "skip_unreadable": True}
    data = opened(folder, **options)
    assert data.unreadable == ("class0/00.png", "class1/07.jpg", "class2/11.jpg")
    left = [1, 2, 3, 4, 5, 7, 8, 9, 10]  # 00 is the first file, 07 the seventh and 11 the last one
    assert (data.ids.tolist(), data.subset, len(data)) == (left, True, 9)
    paths = sorted(folder.rglob("*.*g"))
    expected = torch.stack([CROPPED.decoded(Image.open(paths[i]).convert("RGB")) for i in left])
    assert torch.equal(data.in_memory().images, expected)
    decodings.clear()
    again = opened(folder, **options)
    assert decodings in (["03.jpg"], ["03.jpg", "03.jpg"])  # its shape; what can be decoded is remembered
    assert again.sha256 == data.sha256
    report = evaluate(Brightness(), f"folder:{folder}", attacks=["clean"], resize=20, crop=16, device="cpu", **options)
    (warning,) = [one for one in report.warnings if one.code == "unreadable-images"]
    assert warning.message == "3 images cannot be read and were left out: class0/00.png, class1/07.jpg, class2/11.jpg"
    assert report.data.ids == left
    part = data.part(2, 5)
    assert (part.ids.tolist(), part.unreadable) == ([3, 4, 5], data.unreadable)


def test_what_is_left_out_of_the_training_data_is_a_warning_too(folder, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "training")
    damage(tmp_path / "training" / "class1" / "07.jpg")
    options = {"train_data": f"folder:{tmp_path / 'training'}", "skip_unreadable": True, "resize": 20, "crop": 16}
    report = evaluate(Brightness(), f"folder:{folder}", attacks=["clean"], device="cpu", **options)  # type: ignore[arg-type]
    expected = "training data: 1 image cannot be read and was left out: class1/07.jpg"
    assert [one.message for one in report.warnings if one.code == "unreadable-images"] == [expected]
    said: list[str] = []
    say_data(opened(folder), SimpleNamespace(say=said.append), opened(tmp_path / "training", skip_unreadable=True))  # type: ignore[arg-type]
    assert said[-1] == f"warning: {expected}"


def test_an_analysis_of_the_data_alone_says_what_was_left_out(folder) -> None:
    damage(folder / "class1" / "07.jpg")
    aum, sizes = "aum:epochs=1,network=resnet8,augment=none", {"resize": 20, "crop": 8}
    record = analyze(None, f"folder:{folder}", aum, device="cpu", skip_unreadable=True, **sizes)  # type: ignore[arg-type]
    assert [one.message for one in record.warnings] == ["1 image cannot be read and was left out: class1/07.jpg"]


class Retrained(Defense):
    """Returns the network; needs training data."""

    trains: ClassVar[bool] = True

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        return model


def test_an_analysis_of_weights_says_what_was_left_out_of_the_training_data(folder) -> None:
    damage(folder / "class1" / "07.jpg")
    options = {"train_data": f"folder:{folder}", "resize": 20, "crop": 16, "skip_unreadable": True}
    record = analyze(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 3)),
        None,
        "kernels",
        defenses=[Retrained()],
        device="cpu",
        **options,
    )
    expected = "training data: 1 image cannot be read and was left out: class1/07.jpg"
    assert [one.message for one in record.warnings if one.code == "unreadable-images"] == [expected]


def test_where_nothing_can_be_read(folder) -> None:
    for path in folder.rglob("*.*g"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="none of the images can be read"):
        opened(folder, skip_unreadable=True)


def test_what_is_left_out_does_not_depend_on_the_subset(folder) -> None:
    damage(folder / "class1" / "07.jpg")
    whole = opened(folder, skip_unreadable=True)
    part = opened(folder, limit=9, skip_unreadable=True)
    drawn = opened(folder, limit=9).ids
    assert part.ids.tolist() == [i for i in drawn.tolist() if i in whole.ids.tolist()]


# ---------------------------------------------------------------- caches


@pytest.fixture
def stored(tmp_path) -> FileCache:
    return FileCache(tmp_path / "cache" / "key", (4, 3, 5, 5), {"spec": "x"})


def pixels(value: int) -> np.ndarray:
    return np.full((3, 5, 5), value, dtype=np.uint8)


def test_images_are_decoded_once_into_a_directory(folder, tmp_path, decodings) -> None:
    first = opened(folder, data_cache=tmp_path / "cache")
    first.batch(torch.arange(5), CPU)
    first.batch(torch.tensor([11, 2]), CPU)
    del first
    decodings.clear()
    second = opened(folder, data_cache=tmp_path / "cache")
    second.batch(torch.arange(COUNT), CPU)
    read_again = {"00.png", "03.jpg", "06.png", "09.jpg", "01.jpg", "11.jpg"}
    assert len(decodings) == 1 + 6  # the shape of the first one, and those that were not there
    assert not read_again & (set(decodings) - {"00.png"})
    decodings.clear()
    opened(folder, data_cache=tmp_path / "cache").batch(torch.arange(COUNT), CPU)
    assert decodings == ["00.png"]


def test_memory_is_filled_on_first_use(folder, decodings) -> None:
    data = opened(folder, data_cache="memory")
    assert len(decodings) == 1
    assert data.images.growth == COUNT * 3 * 16 * 16
    for _ in range(3):
        data.batch(torch.arange(COUNT), CPU)
        data.take(torch.tensor([5])).batch(torch.tensor([0]), CPU)
    assert len(decodings) == 1 + COUNT
    assert data.images.growth == 0
    assert opened(folder, data_cache="off").images.growth == 0


def test_other_preprocessing_has_another_place(folder, tmp_path) -> None:
    for crop in (16, 12, 16):
        opened(folder, data_cache=tmp_path / "cache", crop=crop, resize=20).batch(torch.arange(3), CPU)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.name != "manifests"]) == 2


def test_two_writers_of_one_cache_and_one_that_was_killed(stored, tmp_path) -> None:
    other = FileCache(tmp_path / "cache" / "key", (4, 3, 5, 5), {"spec": "x"})
    assert stored.read(1) is None
    stored.write(1, pixels(7))
    other.write(1, pixels(7))
    assert np.array_equal(other.read(1), pixels(7))
    other.write(3, pixels(9))
    assert np.array_equal(stored.read(3), pixels(9))
    size = stored.size
    content = bytearray((stored.folder / "pixels.bin").read_bytes())
    content[3 * size + 5] = 8  # another image than its checksum says, as after a crash of the system
    content[2 * size] = 1  # pixels without an entry, as after a process was killed
    (stored.folder / "pixels.bin").write_bytes(content)
    assert (stored.read(2), stored.read(3)) == (None, None)
    assert np.array_equal(stored.read(1), pixels(7))
    (stored.folder / "pixels.bin").write_bytes(content[:size])  # shorter
    assert stored.read(1) is None


def test_a_full_disk_is_said_in_one_line(folder, tmp_path, stored, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DataError, match=r"--data-cache .*No space left on device; give another --data-cache"):
            stored.write(0, pixels(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 100))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"the decoded images take 9\.2 kB, but 100 bytes are free; give another"):
        opened(folder, data_cache=tmp_path / "full")


def test_a_cache_that_cannot_be_opened_leaves_no_open_file(tmp_path, monkeypatch) -> None:
    handles: list[int] = []
    real = os.ftruncate

    def full(handle: int, size: int) -> None:
        handles.append(handle)
        if len(handles) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle, size)

    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(DataError, match="No space left"):
        FileCache(tmp_path / "cache" / "key", (4, 3, 5, 5), {})
    for handle in handles:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)


def test_what_is_kept_without_being_asked(folder, monkeypatch) -> None:
    size = COUNT * 3 * 16 * 16
    monkeypatch.setattr(pixel_cache, "free_memory", lambda: 4 * size)
    assert str(opened(folder).images) == f"decoded once and kept in memory ({arrays.in_bytes(size)})"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert str(opened(folder).images) == "decoded when they are used"
    monkeypatch.setattr(arrays, "free_memory", lambda: size)
    with pytest.raises(
        DataError, match=r"--data-cache memory: the decoded images take 9\.2 kB; expected at most 4\.6 kB"
    ):
        opened(folder, data_cache="memory")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("of", r"there is no directory of; did you mean 'off'\?; expected auto, memory, off or a directory"),
        ("none/deep", "there is no directory none/deep; expected auto, memory, off or a directory"),
        ("file", "file is a file; expected auto, memory, off or a directory"),
        ("", "expected a path, but got an empty one"),
    ],
)
def test_wrong_values_of_the_option(folder, tmp_path, value, message, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    for given in (value, Path(value)) if value else (value,):
        with pytest.raises(SpecError, match=f"^--data-cache: {message}"):
            open_data(f"folder:{folder}", EvalConfig(data_cache=given))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "images"]


def test_a_directory_among_the_images_is_refused(folder, tmp_path, monkeypatch) -> None:
    """It would be a class of the next run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    for inside in (folder, folder / "decoded", folder / "class1" / "decoded", "images/decoded", "link"):
        with pytest.raises(DataError, match=r"--data-cache .* is in the folder of images .*; give a directory outside"):
            opened(folder, data_cache=inside)
    assert sorted(path.name for path in folder.rglob("*") if path.is_dir()) == ["class0", "class1", "class2"]
    opened(folder, data_cache=tmp_path)


def test_a_directory_in_a_file_of_options_is_relative_to_it(tmp_path, monkeypatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for word, expected in (("memory", "memory"), ("off", "off"), ("decoded", "../decoded")):
        (tmp_path / "run.toml").write_text(f'data-cache = "{word}"\n')
        assert EvalConfig.from_toml(tmp_path / "run.toml").data_cache == expected


# ---------------------------------------------------------------- decoding ahead


class Steps(ImageFiles):
    """Rows of one pixel whose decoding is noted, and waits where a test says so."""

    def __init__(self, count: int) -> None:
        super().__init__([None] * count, (1, 1, 1), self._pixel)  # type: ignore[list-item, arg-type]
        self.begun = [threading.Event() for _ in range(count)]
        self.gate = threading.Event()
        self.gate.set()
        self.times = [0] * count

    def _pixel(self, file: object) -> np.ndarray:
        raise NotImplementedError

    def load(self, row: int) -> np.ndarray:
        self.begun[row].set()
        self.times[row] += 1
        assert self.gate.wait(PATIENCE)
        return np.full((1, 1, 1), row % 256, dtype=np.uint8)

    def data(self) -> ImageData:
        count = len(self.times)
        return ImageData(ImageStore(self, torch.arange(count), "none"), torch.zeros(count, dtype=torch.int64), 1)


def batches_of(data: ImageData, size: int) -> Batches:
    return Batches(data, CPU, size, False, Silent())


def test_the_next_batch_is_decoded_while_this_one_is_at_work() -> None:
    steps = Steps(6)
    data = steps.data()
    seen: list[int] = []

    def work(chunk: torch.Tensor) -> None:
        images, _, _ = data.batch(chunk, CPU)
        seen.extend((images.flatten() * 255).round().int().tolist())
        following = int(chunk[-1]) + 1
        if following < 6:  # its decoding has begun, although nobody has asked for it
            assert steps.begun[following].wait(PATIENCE)

    batches_of(data, 2).each(torch.arange(6), work)
    assert seen == list(range(6))
    assert steps.times[2:] == [1, 1, 1, 1]
    assert set(steps.times[:2]) <= {1, 2}  # again for the next cell, as far as that has begun


def test_the_next_block_is_decoded_while_the_last_batch_of_this_one_is_at_work() -> None:
    steps = Steps(8)
    part = batches_of(steps.data(), 2).part(Block(2, 6))

    def work(chunk: torch.Tensor) -> None:
        part.data.batch(chunk, CPU)
        if chunk.tolist() == [2, 3]:
            assert steps.begun[6].wait(PATIENCE)

    part.each(torch.arange(4), work)
    assert not steps.begun[0].is_set()
    assert steps.times[2:6] == [1] * 4


def test_samples_that_are_left_out_are_not_decoded() -> None:
    steps = Steps(20)
    data = steps.data()
    rows = torch.tensor([1, 5, 9, 13])
    batches_of(data, 2).each(rows, lambda chunk: data.batch(chunk, CPU))
    assert [row for row in range(2, 20) if steps.times[row]] == [5, 9, 13]
    batches_of(data, 2).each(torch.arange(20), lambda chunk: None, samples=torch.arange(0))
    assert sum(steps.times[2:]) == 3


def test_what_was_announced_and_is_not_wanted_any_more_is_given_up() -> None:
    steps = Steps(400)
    steps.gate.clear()
    data = steps.data()
    data.prefetch(torch.arange(400))  # all threads wait in the first ones
    data.prefetch(torch.tensor([399]))
    steps.gate.set()
    assert data.batch(torch.tensor([399]), CPU)[0].item() == pytest.approx(143 / 255)
    assert sum(steps.times) < 100


def test_what_another_thread_gives_up_is_read_all_the_same() -> None:
    """Two threads may evaluate the same data: one of them gives up what only the other one wants."""
    steps = Steps(400)
    steps.gate.clear()
    data, found = steps.data(), []
    reading = threading.Thread(target=lambda: found.append(data.batch(torch.arange(200), CPU)[0]), daemon=True)
    reading.start()
    assert steps.begun[0].wait(PATIENCE)  # all decoders wait, and most of the rows have not begun
    other = threading.Thread(target=lambda: data.batch(torch.tensor([398]), CPU), daemon=True)
    other.start()
    wait_until(lambda: 398 in steps._waiting)
    steps.gate.set()
    reading.join(PATIENCE)
    assert torch.equal((found[0].flatten() * 255).round().int(), torch.arange(200, dtype=torch.int32))


def test_a_batch_that_is_read_twice_is_decoded_once() -> None:
    steps = Steps(6)
    data = steps.data()
    for _ in range(3):
        data.batch(torch.tensor([4, 2, 4]), CPU)
    assert steps.times == [0, 0, 1, 0, 1, 0]


def test_few_images_are_in_memory_however_many_there_are(folder, monkeypatch) -> None:
    """At any time at most those of three batches: what is read, what is next, and what is being decoded."""
    alive: dict[int, object] = {}
    numbers = itertools.count()
    most = 0
    real = ImageFiles.decode

    def decode(files: ImageFiles, row: int) -> np.ndarray:
        nonlocal most
        found = real(files, row)
        number = next(numbers)
        alive[number] = weakref.ref(found, lambda _: alive.pop(number))
        most = max(most, len(alive))
        return found

    monkeypatch.setattr(ImageFiles, "decode", decode)
    data = opened(folder, data_cache="off")
    for _ in range(3):
        for images in data.image_batches(2, CPU):
            assert len(images) == 2
    gc.collect()
    assert most <= 6
    assert len(alive) <= 6


ONE_RUN = """
import hashlib, sys
from freqrobust import load_data
from freqrobust.data.image_store import ImageFiles
real, count = ImageFiles.decode, []
ImageFiles.decode = lambda files, row: (count.append(row), real(files, row))[1]
data = load_data(f"folder:{sys.argv[1]}", resize=20, crop=16, data_cache=sys.argv[2])
found = data.in_memory().images
print(data.sha256, hashlib.sha256(found.numpy().tobytes()).hexdigest(), len(count))
"""


@pytest.mark.slow
def test_two_processes_fill_one_directory_at_the_same_time(folder, tmp_path) -> None:
    for index in range(60):
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
            folder / "class0" / f"x{index}.png"
        )
    command = [sys.executable, "-c", ONE_RUN, str(folder), str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {tuple(one[:2]) for one in found} == {tuple(last[:2])}
    assert last[2] == "0"
    eager = opened(folder, input=None, resize=20, crop=16, data_cache="off")
    assert eager.sha256 == last[0]


@pytest.fixture
def many(tmp_path) -> Path:
    for index in range(480):
        path = tmp_path / "many" / f"class{index % 3}" / f"{index:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((256, 256, 3), index % 256, dtype=np.uint8)).save(path)
    return tmp_path / "many"


EVALUATED = f"""
import sys, torch
from torch import nn
from freqrobust import evaluate
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
def work(count):
    evaluate(model, f"folder:{{sys.argv[1]}}", attacks=["clean", "lfc:radius=8"], diagnose=None, device="cpu", batch_size=16,
             first=count, resize=256, crop=224, data_cache=sys.argv[2])
{PEAK}
work(96)
print(peak(lambda: work(96)), peak(lambda: work(480)))
"""


@pytest.mark.slow
@needs_peaks
@pytest.mark.parametrize("cache", ["off", "directory"])
def test_the_peak_memory_does_not_grow_with_the_number_of_images(many, tmp_path, cache) -> None:
    """By less than a quarter of the pixels that the larger run has more; in memory, it would grow by all of them."""
    where = str(tmp_path / "cache") if cache == "directory" else cache
    command = [sys.executable, "-c", EVALUATED, str(many), where]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **GIVEN_BACK})
    peaks = [int(one) for one in done.stdout.split()]
    growth, pixels = 1024 * (peaks[1] - peaks[0]), (480 - 96) * 3 * 224 * 224
    assert growth <= 0.25 * pixels
    assert peaks[1] <= 1.1 * peaks[0]


def test_partners_of_images_do_not_give_up_the_next_batch(folder, monkeypatch) -> None:
    """A clean pass and an exchange of frequencies: every image is decoded for each, and once more as a partner."""
    times: dict[str, int] = {}
    real = ImageFiles.decode

    def decode(files: ImageFiles, row: int) -> np.ndarray:
        times[files.files[row].name] = times.get(files.files[row].name, 0) + 1
        return real(files, row)

    monkeypatch.setattr(ImageFiles, "decode", decode)
    data = opened(folder, data_cache="off")
    plain = evaluate(Brightness(), data, attacks=["clean"], diagnose=None, device="cpu", batch_size=2)
    clean = sum(times.values())
    both = evaluate(Brightness(), data, attacks=["hybrid:radius=2"], diagnose=None, device="cpu", batch_size=2)
    assert plain.cells[0].correct == both.cells[0].correct
    assert sum(times.values()) <= 2 * clean + 2 * COUNT
