"""Which network a state dict belongs to: found out from names and shapes, or given."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from freqrobust import load_model
from freqrobust.core.errors import ModelError, SpecError
from freqrobust.models import checkpoints
from freqrobust.models.architectures import ARCHITECTURES, TORCHVISION

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IMAGES)


def renamed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_auto_recognises_every_network_of_ours(arch) -> None:
    for classes, channels in [(10, 3), (100, 1)]:
        with torch.device("meta"):
            state = ARCHITECTURES[arch].build(num_classes=classes, in_channels=channels).state_dict()
            found, network, _ = checkpoints.recognise([state], Path("x.pt"))
        assert found.name == arch
        assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in state.items()}


@pytest.fixture(scope="module")
def remembered() -> pytest.MonkeyPatch:
    """Build each candidate on the meta device once, not once a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "torchvision_architecture", functools.cache(checkpoints.torchvision_architecture))
        patch.setattr(checkpoints, "shapes_of", functools.cache(checkpoints.shapes_of))
        yield patch


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("classes", [1000, 37])
def test_auto_recognises_torchvision(remembered, name, classes) -> None:
    from torchvision.models import get_model

    # RegNets compute their widths from tensors, which have to exist; the others are too large to be built for this
    place = torch.device("cpu" if name.startswith("regnet") else "meta")
    with place:
        state = get_model(name, weights=None, num_classes=classes).state_dict()
        found, network, _ = checkpoints.recognise([state], Path("x.pt"))
    assert found.name == f"torchvision:{name}"
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in state.items()}


def test_torchvision_resnet18_from_a_file(tmp_path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = resnet18(num_classes=5).eval()
    torch.save({"model": renamed(network.state_dict(), "module.")}, tmp_path / "model.pth")
    model = load_model(tmp_path / "model.pth")
    assert (model.arch, model.normalization.source, model.normalization.preset) == (
        "torchvision:resnet18",
        "architecture",
        "imagenet",
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = (IMAGES - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), network(normal))


def test_an_unknown_network_names_the_closest_and_what_differs(tmp_path) -> None:
    state = ARCHITECTURES["resnet20"].build().state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(16, 16, 5, 5)
    state["extra.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"closest is resnet20, where 2 keys differ .*\(16, 16, 5, 5\), expected") as e:
        load_model(tmp_path / "model.pt")
    assert "extra.weight is not expected" in str(e.value)
    with pytest.raises(ModelError, match="does not fit resnet32"):
        load_model(tmp_path / "model.pt", arch="resnet32")


FACTORY = """
import torch
from torch import nn

class Wrapped(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.add_module(name, nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5)))
        self.name = name

    def forward(self, x):
        return self.get_submodule(self.name)(x)

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5))

def not_a_model():
    return 3
"""


def factory_file(tmp_path: Path, extra: str = "") -> Path:
    path = tmp_path / "networks.py"
    path.write_text(FACTORY + extra)
    return path


def test_arch_from_a_file(tmp_path) -> None:
    path = factory_file(tmp_path)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5)).eval()
    torch.save({"state_dict": renamed(network.state_dict(), "module.")}, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", arch=f"{path}:plain", normalize="none")
    assert torch.equal(logits(model), logits(network))
    with pytest.raises(SpecError, match=r"has no 'plian'; did you mean 'plain'"):
        load_model(tmp_path / "model.pt", arch=f"{path}:plian", normalize="none")
    with pytest.raises(ModelError, match=r"should return an nn.Module, but returned int"):
        load_model(tmp_path / "model.pt", arch=f"{path}:not_a_model", normalize="none")
    with pytest.raises(SpecError, match="unknown architecture 'resnet21'; did you mean"):
        load_model(tmp_path / "model.pt", arch="resnet21", normalize="none")


@pytest.mark.parametrize("name", ["model", "net", "backbone", "module"])
def test_a_network_whose_own_names_look_like_a_prefix(tmp_path, name) -> None:
    """Everything of the user's class lies in ``self.model``: its names are no wrapper's prefix."""
    path = factory_file(tmp_path, f"def wrapped():\n    return Wrapped({name!r})\n")
    namespace: dict = {}
    exec(path.read_text(), namespace)
    torch.manual_seed(0)
    network = namespace["wrapped"]().eval()
    for prefix in ("", "module."):
        torch.save(renamed(network.state_dict(), prefix), tmp_path / "model.pt")
        model = load_model(tmp_path / "model.pt", arch=f"{path}:wrapped", normalize="none")
        assert torch.equal(logits(model), logits(network))
