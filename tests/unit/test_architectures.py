"""The known networks: published sizes, published names, any number of classes and channels."""

from __future__ import annotations

import pytest
import torch

from freqrobust.models.architectures import ARCHITECTURES, OptionAShortcut, PreActivationBlock

#: Parameters with 10 classes and 3 channels; the ResNets as in He et al. 2016, table 6 (0.27M to 1.7M).
PARAMETERS = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "cifar_resnet18": 11_173_962,
    "preact_resnet32": 464_154,  # as ResNet-32: the shifted batch norms have as many channels
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name) -> None:
    with torch.device("meta"):
        model = ARCHITECTURES[name].build()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["resnet20", "cifar_resnet18", "preact_resnet32", "small_cnn"])
@pytest.mark.parametrize(("classes", "channels", "side"), [(10, 3, 32), (7, 1, 28), (2, 4, 9)])
def test_any_number_of_classes_and_channels(name, classes, channels, side) -> None:
    model = ARCHITECTURES[name].build(num_classes=classes, in_channels=channels).eval()
    with torch.no_grad():
        logits = model(torch.rand(2, channels, side, side))
    assert logits.shape == (2, classes)
    assert torch.isfinite(logits).all()


def test_names_are_those_of_the_published_checkpoints() -> None:
    with torch.device("meta"):
        small, large = (
            ARCHITECTURES["resnet20"].build().state_dict(),
            ARCHITECTURES["cifar_resnet18"].build().state_dict(),
        )
    for key in ["conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.bias"]:
        assert key in small
    assert not [key for key in small if "shortcut" in key]
    assert {"layer2.0.shortcut.0.weight", "layer2.0.shortcut.1.running_mean"} <= set(large)


def test_option_a_shortcut_subsamples_and_pads_both_sides() -> None:
    x = torch.rand(2, 16, 8, 8)
    found = OptionAShortcut(16, 32, 2)(x)
    expected = torch.zeros(2, 32, 4, 4)
    expected[:, 8:24] = x[:, :, ::2, ::2]
    assert torch.equal(found, expected)


def test_a_pre_activation_network_without_batch_norm_starts_as_its_shortcuts() -> None:
    """Stem, two strided shortcuts with zero channels around, ReLU, mean, linear layer."""
    torch.manual_seed(0)
    model = ARCHITECTURES["preact_resnet32"].build(in_channels=1, norm=False).eval()
    assert not [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(m.bias is not None for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    x = torch.rand(2, 1, 8, 8)
    stem = model.conv1(x)[:, :, ::4, ::4]
    features = torch.zeros(2, 64, 2, 2)
    features[:, 24:40] = stem
    torch.testing.assert_close(model(x), model.linear(features.relu().mean(dim=(2, 3))))


def test_a_pre_activation_block_normalises_before_it_convolves() -> None:
    block = PreActivationBlock(4, 8, 2, norm=True).eval()
    x = torch.randn(2, 4, 6, 6)
    inner = block.conv1(torch.relu(block.bn1(x)))
    outer = block.conv2(torch.relu(block.bn2(inner)))
    expected = torch.zeros(2, 8, 3, 3)
    expected[:, 2:6] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), outer + expected)
