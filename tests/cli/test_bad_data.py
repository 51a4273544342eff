"""Data that cannot be read, or does not fit the model: exit code 2 and one line that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freqrobust.models.architectures import SmallCNN

Rejected = Callable[..., str]

GREY = np.zeros((6, 8, 8), dtype=np.uint8)
FLOAT = np.full((6, 1, 8, 8), 0.5, dtype=np.float32)
LABELS = np.arange(6)


def one(value: float) -> np.ndarray:
    """Good float images, but for one pixel."""
    images = FLOAT.copy()
    images[3, 0, 2, 5] = value
    return images


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"images": GREY, "labels": LABELS - 1}, "labels should run from 0, but are in [-1, 4]"),
        ({"images": GREY, "labels": LABELS + 5}, "labels up to 10, but the model has 10 classes"),
        ({"images": GREY, "labels": LABELS[:5]}, "6 images, but 5 labels"),
        ({"images": GREY, "labels": LABELS.astype(float)}, "expected integer labels"),
        ({"images": GREY, "labels": LABELS.astype(str)}, "bad.npz"),
        ({"images": GREY, "labels": np.eye(10, dtype=int)[LABELS]}, "expected labels (N,), but got shape (6, 10)"),
        ({"images": one(np.nan), "labels": LABELS}, "NaN"),
        ({"images": one(np.inf), "labels": LABELS}, "infinite"),
        ({"images": FLOAT * 255, "labels": LABELS}, "divide by 255, or give uint8"),
        ({"images": FLOAT - 1, "labels": LABELS}, "give them before normalisation"),
        ({"images": one(1.5), "labels": LABELS}, "should be in [0, 1], but are in [0.5, 1.5]"),
        ({"images": GREY.astype(np.int64), "labels": LABELS}, "expected uint8 images, or float images in [0, 1]"),
        ({"images": FLOAT.transpose(0, 2, 3, 1), "labels": LABELS}, "float images should be (N, C, H, W)"),
        ({"images": GREY.reshape(6, 64), "labels": LABELS}, "expected images (N, C, H, W) or (N, H, W)"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "is empty"),
        ({"images": GREY[:, :0], "labels": LABELS}, "is empty"),
        ({"images": GREY}, "expected the arrays 'images' and 'labels', but found images"),
        ({"x": GREY, "y": LABELS}, "but found x, y"),
        ({}, "but found nothing"),
        ({"images": np.array([GREY, None], dtype=object), "labels": LABELS[:2]}, "cannot be read as .npz"),
        ({"images": np.zeros((6, 8, 8, 3), dtype=np.uint8), "labels": LABELS}, "contains RGB images"),
    ],
)
def test_bad_arrays(arrays: dict[str, Any], expected: str, trained: Path, rejected: Rejected) -> None:
    np.savez("bad.npz", **arrays)
    message = rejected("eval", "--model", trained, "--data", "bad.npz", "--attack", "fgsm")
    assert "bad.npz" in message
    assert expected in message


def test_the_good_arrays_are_accepted(trained: Path, command: Callable[..., Any]) -> None:
    for images in (GREY, FLOAT):
        np.savez("good.npz", images=images, labels=LABELS)
        assert command("eval", "--model", trained, "--data", "good.npz", "--attack", "lfc:radius=2").code == 0


def test_grayscale_data_on_an_rgb_model(digits: Path, rejected: Rejected) -> None:
    torch.manual_seed(0)
    torch.save(SmallCNN(num_classes=10, in_channels=3).state_dict(), "rgb.pt")
    message = rejected("eval", "--model", "rgb.pt", "--normalize", "none", "--data", digits, "--attack", "fgsm")
    assert "contains grayscale images, but the model takes 3 channels" in message


def test_too_few_classes(digits: Path, rejected: Rejected) -> None:
    torch.manual_seed(0)
    torch.save(SmallCNN(num_classes=4, in_channels=1).state_dict(), "four.pt")
    message = rejected("eval", "--model", "four.pt", "--normalize", "none", "--data", digits, "--attack", "fgsm")
    assert "has labels up to 9, but the model has 4 classes" in message


def test_images_too_small_for_the_network(digits: Path, rejected: Rejected) -> None:
    code = "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    Path("nets.py").write_text(code, encoding="utf-8")
    for normalize in ("none", "auto"):
        message = rejected("eval", "--model", "nets.py:net", "--data", digits, "--normalize", normalize)
        assert "images of shape (1, 8, 8)" in message


def saved() -> bytes:
    np.savez_compressed("whole.npz", images=np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8), labels=LABELS)
    content = Path("whole.npz").read_bytes()
    Path("whole.npz").unlink()
    return content


def scratched(content: bytes) -> bytes:
    """A hole in the compressed pixels; the directory of the archive stays whole."""
    start = content.index(b"images.npy") + 60
    return content[:start] + bytes(byte ^ 0xFF for byte in content[start : start + 40]) + content[start + 40 :]


def as_npy(content: bytes) -> bytes:
    np.save("array.npy", GREY)
    array = Path("array.npy").read_bytes()
    Path("array.npy").unlink()
    return array


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not an archive",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-10],
        scratched,
        as_npy,
    ],
    ids=["empty file", "garbage", "half", "tail missing", "scratched", "npy"],
)
def test_garbage_instead_of_an_archive(damage: Callable[[bytes], bytes], trained: Path, rejected: Rejected) -> None:
    Path("bad.npz").write_bytes(damage(saved()))
    assert "bad.npz" in rejected("eval", "--model", trained, "--data", "bad.npz", "--attack", "fgsm")


SOURCES = """
import torch
def nothing(): return None
def broken(): raise OSError("boom")
def empty(): return []
def strange(): return [("not an image", 0)]
def uneven(): return [(torch.zeros(1, 8, 8), 0), (torch.zeros(1, 9, 9), 1)]
def three(): return torch.zeros(2, 1, 8, 8), torch.zeros(2), 3
number = 7
"""


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("absent.npz", "absent.npz does not exist"),
        ("cifar11", "unknown data 'cifar11'; did you mean 'cifar10'?"),
        ("", "unknown data ''"),
        ("folder:absent", "absent is not a folder"),
        ("folder:void", "void"),
        ("sources.py:nothing", "but got NoneType"),
        ("sources.py:number", "but got int"),
        ("sources.py:broken", "boom"),
        ("sources.py:empty", "sources.py:empty is empty"),
        ("sources.py:strange", "expected PIL images or tensors, but got str"),
        ("sources.py:uneven", "images differ in size"),
        ("sources.py:three", "sources.py:three"),
        ("sources.py:missing", "sources.py has no 'missing'"),
        ("absent.py:images", "absent.py does not exist"),
        ("no_such_module:images", "cannot import 'no_such_module'"),
    ],
)
def test_bad_data_spec(
    spec: str, expected: str, trained: Path, rejected: Rejected, write: Callable[[str, str], str]
) -> None:
    write("sources.py", SOURCES)
    Path("void").mkdir()
    assert expected in rejected("eval", "--model", trained, "--data", spec, "--attack", "fgsm")


def test_a_model_needs_data(trained: Path, rejected: Rejected) -> None:
    assert "--model needs --data" in rejected("eval", "--model", trained)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--limit", "0"], "--limit should be at least 1, but got '0'"),
        (["--limit", "-3"], "--limit should be at least 1, but got '-3'"),
        (["--first", "0"], "--first should be at least 1, but got '0'"),
        (["--first", "2", "--limit", "2"], "either"),
        (["--limit", "many"], "--limit should be a whole number, but got 'many'"),
        (["--split", "validation"], "split should be 'test' or 'train', but got 'validation'"),
        (["--train-data", "cifar11"], "unknown data 'cifar11'"),
    ],
)
def test_bad_choice_of_samples(arguments: list[str], expected: str, base: list[str], rejected: Rejected) -> None:
    assert expected in rejected(*base, "--attack", "fgsm", *arguments)
