"""Models that cannot be loaded, or are not classifiers of these images: exit code 2 and one line that says why."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust.models.architectures import SmallCNN

Rejected = Callable[..., str]


def evaluate(model: object, data: object, *more: object) -> list[object]:
    return ["eval", "--model", model, "--data", data, "--attack", "fgsm", *more]


class Payload:
    """Unpickling it makes a folder named ``canary``."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("canary",)


def test_a_good_checkpoint_is_accepted(base: list[str], command: Callable[..., Any]) -> None:
    assert command(*base, "--attack", "fgsm").code == 0


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.th", "model.ckpt", "model.safetensors", "model.pt2"])
@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint at all", bytes(range(256)) * 20])
def test_no_checkpoint(name: str, content: bytes | None, digits: Path, rejected: Rejected) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    message = rejected(*evaluate(name, digits))
    assert name in message
    if not content:
        assert ("does not exist" if content is None else "is empty") in message


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_truncated_checkpoint(kept: float, zipped: bool, untrained: SmallCNN, digits: Path, rejected: Rejected) -> None:
    torch.save(untrained.state_dict(), "model.pt", _use_new_zipfile_serialization=zipped)
    content = Path("model.pt").read_bytes()
    Path("model.pt").write_bytes(content[: int(kept * len(content))])
    message = rejected(*evaluate("model.pt", digits))
    assert "model.pt" in message
    assert "truncated" in message or "not a checkpoint" in message


def test_truncated_safetensors(untrained: SmallCNN, digits: Path, rejected: Rejected) -> None:
    from safetensors.torch import save_file

    save_file(untrained.state_dict(), "model.safetensors")
    content = Path("model.safetensors").read_bytes()
    Path("model.safetensors").write_bytes(content[:-100])
    assert "model.safetensors cannot be read as safetensors" in rejected(*evaluate("model.safetensors", digits))


@pytest.mark.parametrize(
    "content", [{"epoch": 3, "note": "no weights"}, [torch.zeros(3), torch.zeros(3)], torch.zeros(3), {}, None]
)
def test_checkpoint_without_a_state_dict(content: Any, digits: Path, rejected: Rejected) -> None:
    torch.save(content, "model.pt")
    message = rejected(*evaluate("model.pt", digits))
    assert "model.pt" in message
    assert "state dict" in message


def test_a_folder_is_not_a_checkpoint(digits: Path, rejected: Rejected) -> None:
    Path("model.pt").mkdir()
    assert "is a folder" in rejected(*evaluate("model.pt", digits))


def test_a_pickled_model_needs_trust(
    untrained: SmallCNN, digits: Path, rejected: Rejected, report: Callable[..., dict[str, Any]]
) -> None:
    torch.save(untrained, "whole.pt")
    message = rejected(*evaluate("whole.pt", digits, "--normalize", "none"))
    assert "whole.pt" in message
    assert "SmallCNN" in message
    assert "--trust-checkpoint" in message
    found = report(*evaluate("whole.pt", digits, "--normalize", "none", "--trust-checkpoint"))
    assert found["models"][0]["arch"] == "SmallCNN"
    images = torch.from_numpy(np.load(digits)["images"])[:, None] / 255
    right = untrained.eval()(images).argmax(1) == torch.from_numpy(np.load(digits)["labels"])
    assert found["cells"][0]["correct"] == int(right.sum())


@pytest.mark.parametrize("beside_weights", [True, False])
@pytest.mark.parametrize("save", [torch.save, lambda content, name: Path(name).write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_does_not_run(
    save: Callable[[Any, str], Any], beside_weights: bool, untrained: SmallCNN, digits: Path, rejected: Rejected
) -> None:
    save({"state_dict": untrained.state_dict(), "extra": Payload()} if beside_weights else Payload(), "evil.pth")
    message = rejected(*evaluate("evil.pth", digits))
    assert "--trust-checkpoint" in message
    assert not Path("canary").exists()


def test_the_canary_of_the_test_above_can_sing(untrained: SmallCNN, command: Callable[..., Any], digits: Path) -> None:
    torch.save({"state_dict": untrained.state_dict(), "extra": Payload()}, "evil.pth")
    command(*evaluate("evil.pth", digits, "--trust-checkpoint", "--normalize", "none"))
    assert Path("canary").exists()


@pytest.mark.slow
def test_unknown_architecture_shows_the_closest(untrained: SmallCNN, digits: Path, rejected: Rejected) -> None:
    state = untrained.state_dict()
    state["head.weight"] = state.pop("linear.weight")
    torch.save(state, "model.pt")
    message = rejected(*evaluate("model.pt", digits))
    assert "the closest is small_cnn, where 2 keys differ" in message
    assert "linear.weight is missing; head.weight is not expected" in message
    assert "--arch" in message


def test_given_architecture_does_not_fit(untrained: SmallCNN, digits: Path, rejected: Rejected) -> None:
    torch.save(untrained.state_dict(), "model.pt")
    message = rejected(*evaluate("model.pt", digits, "--arch", "resnet20"))
    assert "does not fit resnet20" in message
    assert "layer1.0.conv1.weight is missing" in message


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("smal_cnn", "unknown architecture 'smal_cnn'; did you mean 'small_cnn'?"),
        ("torchvision:resnet19", "unknown architecture 'torchvision:resnet19'"),
        ("nets.py:missing", "nets.py has no 'missing'"),
        ("nets.py:number", "should return an nn.Module, but returned int"),
        ("nets.py:broken", "boom"),
        ("absent.py:make", "absent.py does not exist"),
        ("no_such_module:make", "cannot import 'no_such_module'"),
    ],
)
def test_bad_arch(
    arch: str, expected: str, untrained: SmallCNN, digits: Path, rejected: Rejected, write: Callable[[str, str], str]
) -> None:
    write("nets.py", "def number(): return 1\ndef broken(): raise OSError('boom')\n")
    torch.save(untrained.state_dict(), "model.pt")
    assert expected in rejected(*evaluate("model.pt", digits, "--arch", arch))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("nets.py:missing", "nets.py has no 'missing'"),
        ("nets.py:number", "should return an nn.Module, but returned int"),
        ("nets.py:broken", "boom"),
        ("nets.py:needs_more", "width"),
        ("absent.py:make", "absent.py does not exist"),
        ("syntax.py:make", "SyntaxError"),
        ("no_such_module:make", "cannot import 'no_such_module'"),
        ("torchvision:resnet19", "torchvision has no model 'resnet19'; did you mean 'resnet18'?"),
        ("resnet20", "unknown model 'resnet20'"),
        ("nets.py", "nets.py"),
        ("", "unknown model ''"),
    ],
)
def test_bad_model_spec(
    spec: str, expected: str, digits: Path, rejected: Rejected, write: Callable[[str, str], str]
) -> None:
    write(
        "nets.py", "def number(): return 1\ndef broken(): raise OSError('boom')\ndef needs_more(width): return width\n"
    )
    write("syntax.py", "def make(:\n")
    assert expected in rejected(*evaluate(spec, digits))


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x.flatten(1)[:, :10])

class Fail(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error("boom in forward")

def nan(): return Net(lambda z: z * float("nan"))
def pair(): return Net(lambda z: (z, z[:, :2]))
def mapping(): return Net(lambda z: {"features": z, "more": z})
def vector(): return Net(lambda z: z[:, 0])
def one_class(): return Net(lambda z: z[:, :1])
def spatial(): return Net(lambda z: z[:, :, None])
def half(): return Net(lambda z: z[::2])
def integers(): return Net(lambda z: (z * 100).int())
def runtime_error(): return Fail(RuntimeError)
def value_error(): return Fail(ValueError)
def key_error(): return Fail(KeyError)
def attribute_error(): return Fail(AttributeError)
"""


@pytest.mark.parametrize("normalize", ["none", "auto"])
@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("nan", "NaN"),
        ("pair", "returned a tuple"),
        ("mapping", "returned a dict"),
        ("vector", "but returned (N,)"),
        ("one_class", "but returned (N, 1)"),
        ("spatial", "but returned (N, 10, 1)"),
        ("half", "but returned (N, 10)"),
        ("integers", "float logits"),
        ("runtime_error", "boom in forward"),
        ("value_error", "boom in forward"),
        ("key_error", "boom in forward"),
        ("attribute_error", "boom in forward"),
    ],
)
def test_not_a_classifier(
    net: str, expected: str, normalize: str, digits: Path, rejected: Rejected, write: Callable[[str, str], str]
) -> None:
    write("nets.py", NETS)
    message = rejected(*evaluate(f"nets.py:{net}", digits, "--normalize", normalize))
    assert expected in re.sub(r"returned \(\d+,", "returned (N,", message)  # whatever the size of the batch


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        ("imagnet", "unknown normalisation 'imagnet'; did you mean 'imagenet'?"),
        ("0.5", "unknown normalisation '0.5'"),
        ("0.5/0", "with positive s"),
        ("0.5,0.5/0.2", "unknown normalisation"),
        ("0.5/nan", "unknown normalisation"),
        ("imagenet", "has 3 channels, but the images have 1"),
        ("0.5,0.5/0.2,0.2", "has 2 channels, but the images have 1"),
    ],
)
def test_bad_normalisation(normalize: str, expected: str, trained: Path, digits: Path, rejected: Rejected) -> None:
    assert expected in rejected(*evaluate(trained, digits, "--normalize", normalize))


def test_unclear_normalisation_asks(untrained: SmallCNN, digits: Path, rejected: Rejected) -> None:
    nn.init.zeros_(untrained.linear.weight)
    torch.save(untrained.state_dict(), "model.pt")
    message = rejected(*evaluate("model.pt", digits))
    assert "not clear from 60 samples" in message
    assert "--normalize none" in message


def test_an_architecture_of_torchvision_is_suggested(trained: Path, digits: Path, rejected: Callable[..., str]) -> None:
    message = rejected("eval", "--model", trained, "--data", digits, "--arch", "resnet18")
    assert (
        "unknown architecture 'resnet18'; torchvision has a model of that name: give --arch torchvision:resnet18"
        in message
    )
    assert "did you mean 'resnet110'?" in rejected("eval", "--model", trained, "--data", digits, "--arch", "resnet111")
