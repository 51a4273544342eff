"""Files that claim more than they hold, and files that are no files: refused at once, before anything is read."""

from __future__ import annotations

import io
import os
import socket
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from freqrobust.core.errors import DataError, ModelError
from freqrobust.data import arrays, image_folders
from freqrobust.data.adversarial_sets import read_all
from freqrobust.data.loading import load_data
from freqrobust.models.architectures import SmallCNN
from freqrobust.models.checkpoints import check_storage

Rejected = Callable[..., str]
HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"


@contextmanager
def at_most(megabytes: int) -> Iterator[None]:
    """Fail where more memory than that is taken at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()


def npy(header: str, content: bytes = b"", version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """An array file with a header of any text."""
    text = header.encode() + b"\n"
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + size.to_bytes(2 if version == (1, 0) else 4, "little") + text + content


def write_npz(name: str, images: bytes) -> None:
    labels = io.BytesIO()
    np.save(labels, np.arange(6))
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", labels.getvalue())


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (npy(HEADER.format("|u1", "(3000000000, 1, 32, 32)"), b"\0" * 9), "3072000000000 bytes, but has 9"),
        (npy(HEADER.format("|u1", "(99999999999999999999, 8, 8)"), b"\0" * 9), "is damaged"),
        (npy(HEADER.format("|u1", "(6, 8, 8)"), b"\0" * 383), "384 bytes, but has 383"),
        (npy(HEADER.format("|u1", "(6, 8, 8)"), b"\0" * 385), "384 bytes, but has 385"),
        (npy(HEADER.format("|u1", "(-6, -8, 8)"), b"\0" * 384), "the shape (-6, -8, 8)"),
        (npy(HEADER.format("|u1", "(6, 8.5, 8)"), b"\0" * 384), "cannot be read as .npz"),
        (npy(HEADER.format("|u1", f"({'9' * 5000}, 8)"), b"\0" * 384), "cannot be read as .npz"),
        (npy(HEADER.format("|z9", "(6, 8, 8)"), b"\0" * 384), "cannot be read as .npz"),
        (npy(HEADER.format("|O", "(6, 8, 8)"), b"\0" * 384), "contains Python objects"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (6, 8, 8", b"\0" * 384), "cannot be read as .npz"),
        (npy("{'descr': '''|u1", b"\0" * 384), "cannot be read as .npz"),
        (npy("(" * 5000), "cannot be read as .npz"),
        (npy("\\" * 50), "cannot be read as .npz"),
        (npy("x", version=(2, 0), length=2**32 - 1), "cannot be read as .npz"),
        (npy("x", version=(9, 9)), "cannot be read as .npz"),
        (b"", "cannot be read as .npz"),
    ],
)
def test_damaged_headers(images: bytes, expected: str, trained: Path, rejected: Rejected) -> None:
    write_npz("bad.npz", images)
    message = rejected("eval", "--model", trained, "--data", "bad.npz", "--attack", "fgsm")
    assert "bad.npz" in message
    assert expected in message
    assert len(message) < 600


def test_every_damaged_byte_of_a_header_is_bad_input(workspace: Path) -> None:
    """Whatever numpy's parser says about it; some of it is no ``ValueError``."""
    np.savez("good.npz", images=np.zeros((6, 8, 8), np.uint8), labels=np.arange(6))
    content = Path("good.npz").read_bytes()
    start = content.index(b"\x93NUMPY")
    for position in range(start, start + 64):
        for byte in (b"'", b"(", b"\\", b"\0", b"{", b"9"):
            if content[position : position + 1] == byte:
                continue
            Path("bad.npz").write_bytes(content[:position] + byte + content[position + 1 :])
            with pytest.raises(DataError):
                load_data("bad.npz")


@pytest.mark.slow
def test_an_archive_that_unpacks_to_gigabytes(trained: Path, rejected: Rejected) -> None:
    labels = io.BytesIO()
    np.save(labels, np.arange(6))
    chunk = b"\0" * 2**24
    with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            member.write(npy(HEADER.format("|u1", f"({65 * 2**14}, 1, 32, 32)")))
            for _ in range(65):
                member.write(chunk)
        archive.writestr("labels.npy", labels.getvalue())
    with at_most(50):
        message = rejected("eval", "--model", trained, "--data", "bomb.npz")
    assert "would grow from" in message
    assert "to 1.1 GB" in message


def test_arrays_that_do_not_fit_into_memory(
    digits: Path, trained: Path, rejected: Rejected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "free_memory", lambda: 5000)
    message = rejected("eval", "--model", trained, "--data", digits)
    assert "the arrays take 4.3 kB; expected at most 2.5 kB, half of the free memory" in message


def test_thefree_memory_of_this_machine_is_known() -> None:
    free = arrays.free_memory()
    assert free is not None
    assert free > 2**26


@pytest.fixture
def weights(untrained: SmallCNN) -> dict[str, Any]:
    return dict(untrained.state_dict())


def refuse(content: object, digits: Path, rejected: Rejected) -> str:
    torch.save(content, "bad.pt")
    return rejected("eval", "--model", "bad.pt", "--normalize", "none", "--data", digits, "--attack", "lfc:radius=2")


def test_a_checkpoint_that_refers_to_itself(digits: Path, rejected: Rejected) -> None:
    inside: dict[str, Any] = {}
    inside["state_dict"] = inside
    listed: list[Any] = []
    listed.append({"model": listed})
    for content in (inside, listed):
        assert "does the checkpoint refer to itself?" in refuse(content, digits, rejected)


def test_sparse_tensors(weights: dict[str, Any], digits: Path, rejected: Rejected) -> None:
    weights["linear.weight"] = weights["linear.weight"].to_sparse()
    assert "linear.weight is a sparse tensor" in refuse(weights, digits, rejected)
    assert "linear.weight is a sparse tensor" in refuse({"state_dict": weights}, digits, rejected)


def test_tensors_without_values(weights: dict[str, Any], digits: Path, rejected: Rejected) -> None:
    weights["linear.weight"] = weights["linear.weight"].to("meta")
    assert "linear.weight has a shape but no values" in refuse(weights, digits, rejected)


@pytest.mark.parametrize("shape", [(10**6, 10**6), (10**9,), (2**20, 2**10)])
def test_tensors_that_are_expanded(
    shape: tuple[int, ...], weights: dict[str, Any], digits: Path, rejected: Rejected
) -> None:
    weights["linear.weight"] = torch.zeros(1).expand(shape)
    message = refuse(weights, digits, rejected)
    assert "some were expanded; save them with .contiguous()" in message


def test_many_tensors_that_are_expanded_a_little() -> None:
    some = {f"w{i}": torch.zeros(1).expand(2**24) for i in range(8)}
    with pytest.raises(ModelError, match="some were expanded"):
        check_storage(some, Path("x.pt"))


def test_small_expanded_tensors_are_good(weights: dict[str, Any], digits: Path, command: Callable[..., Any]) -> None:
    weights["linear.bias"] = torch.zeros(1).expand(10)
    torch.save(weights, "good.pt")
    done = command("eval", "--model", "good.pt", "--normalize", "none", "--data", digits, "--attack", "lfc:radius=2")
    assert done.code == 0, done


@pytest.mark.slow
def test_a_checkpoint_that_unpacks_to_gigabytes(weights: dict[str, Any], digits: Path, rejected: Rejected) -> None:
    torch.save(weights, "bad.pt")
    with (
        zipfile.ZipFile("bad.pt", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("more", "w", force_zip64=True) as member,
    ):
        for _ in range(65):
            member.write(b"\0" * 2**24)
    assert "would grow from" in rejected("eval", "--model", "bad.pt", "--data", digits)


def classes(folder: str) -> Path:
    for name in ("a", "b"):
        (Path(folder) / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(Path(folder) / name / f"{i}.png")
    return Path(folder)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_pipes_among_images(kind: str, trained: Path, rejected: Rejected) -> None:
    path = classes("images") / "a" / "x.png"
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            server.bind(str(path))
        else:
            path.symlink_to("/dev/zero")
        message = rejected("eval", "--model", trained, "--data", "folder:images")
    assert "images/a/x.png is named like an image, but is not a file" in message


def test_folders_that_lead_round_in_a_circle() -> None:
    (classes("images") / "a" / "up").symlink_to("..")
    with pytest.raises(DataError, match="folders go more than 16 deep"):
        load_data("folder:images")


def test_the_root_of_the_file_system_is_no_folder_of_classes(trained: Path, rejected: Rejected) -> None:
    assert "/ is not a folder of classes: expected /CLASS/IMAGE" in rejected(
        "eval", "--model", trained, "--data", "folder:/"
    )


def test_a_few_other_files_among_images_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folders, "_OTHERS", 10)
    folder = classes("images")
    for i in range(6):
        (folder / f"note{i}.txt").touch()
    assert len(load_data("folder:images")) == 4
    for i in range(6):
        (folder / "a" / f"note{i}.txt").touch()
    with pytest.raises(DataError, match="is not a folder of classes"):
        load_data("folder:images")


@pytest.fixture
def pipe(workspace: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        os.mkfifo(name)
        return name

    return make


def test_pipes_in_place_of_files(
    pipe: Callable[[str], str], base: list[str], trained: Path, digits: Path, rejected: Rejected
) -> None:
    """Opening one would wait for a writer that never comes."""
    assert "is a named pipe" in rejected("eval", "--model", trained, "--data", pipe("x.npz"))
    assert "is a named pipe" in rejected("eval", "--model", pipe("x.pt"), "--data", digits)
    assert "is a named pipe" in rejected("eval", "--model", pipe("x.py") + ":make", "--data", digits)
    assert "unknown suite" in rejected(*base, "--suite", pipe("suite.txt"))


def test_pipes_among_other_files(pipe: Callable[[str], str]) -> None:
    Path("saved").mkdir()
    pipe("saved/x.npz")
    with pytest.raises(DataError, match="is a named pipe"):
        read_all(Path("saved"))
    Path("corrupted").mkdir()
    pipe("corrupted/fog.npy")
    np.save("corrupted/labels.npy", np.arange(5))
    with pytest.raises(DataError, match="is a named pipe"):
        load_data("cifar10c:corrupted,name=fog,severity=1")


def test_saved_examples_that_claim_terabytes(workspace: Path) -> None:
    with zipfile.ZipFile("bad.npz", "w") as archive:
        for name in ("images", "ids", "labels", "predictions", "meta"):
            archive.writestr(f"{name}.npy", npy(HEADER.format("<f4", "(3000000000, 1, 32, 32)"), b"\0" * 9))
    with pytest.raises(DataError, match="is damaged"):
        read_all(Path("bad.npz"))
