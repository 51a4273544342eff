"""Networks that checkpoints are matched against, written from their papers.

Parameter names are those of the published checkpoints, so that state dicts load as they are. Inputs are
already normalised here; :mod:`freqrobust.models` puts the normalisation in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


class OptionAShortcut(nn.Module):
    """Identity shortcut without parameters: every second pixel, new channels zero (He et al. 2016, option A)."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.missing = planes - in_planes
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.missing // 2
        return F.pad(x, (0, 0, 0, 0, before, self.missing - before))


def projection_shortcut(in_planes: int, planes: int, stride: int) -> nn.Module:
    """1x1 convolution and batch norm (option B)."""
    return nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, fig. 2)."""

    def __init__(
        self, in_planes: int, planes: int, stride: int, shortcut: Callable[[int, int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        same = stride == 1 and in_planes == planes
        self.shortcut = nn.Sequential() if same else shortcut(in_planes, planes, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet for small images: a 3x3 stem, no max pooling, stages of basic blocks, global average pooling."""

    def __init__(
        self,
        blocks: list[int],
        widths: list[int],
        shortcut: Callable[[int, int, int], nn.Module],
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        planes = widths[0]
        self.conv1 = nn.Conv2d(in_channels, planes, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.stages = len(blocks)
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            layers = []
            for j in range(count):
                layers.append(BasicBlock(planes, width, 2 if i > 0 and j == 0 else 1, shortcut))
                planes = width
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(planes, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        logits: torch.Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def cifar_resnet_option_a(depth: int, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-8, -14, -20, -32, -44, -56 or -110 for CIFAR (He et al. 2016, sec. 4.2), parameter-free shortcuts."""
    return CifarResNet([(depth - 2) // 6] * 3, [16, 32, 64], OptionAShortcut, num_classes, in_channels)


def cifar_resnet18(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-18 with a 3x3 stem, as used for CIFAR-10 by Wang et al. (CVPR 2020)."""
    return CifarResNet([2, 2, 2, 2], [64, 128, 256, 512], projection_shortcut, num_classes, in_channels)


class PreActivationBlock(nn.Module):
    """Norm, ReLU and a 3x3 convolution, twice, and a shortcut around them (He et al. 2016b, fig. 1 b)."""

    def __init__(self, in_planes: int, planes: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes) if norm else nn.Identity()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=not norm)
        self.bn2 = nn.BatchNorm2d(planes) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=not norm)
        same = stride == 1 and in_planes == planes
        self.shortcut = nn.Identity() if same else OptionAShortcut(in_planes, planes, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        added: torch.Tensor = self.conv2(F.relu(self.bn2(out))) + self.shortcut(x)
        return added


class PreActivationResNet(nn.Module):
    """Pre-activation ResNet for small images: three stages of ``n`` blocks, ``6 n + 2`` layers (He et al. 2016b).

    Without batch norm the convolutions have biases, and the second convolution of each block is zero at first, so that
    every block starts as its shortcut: otherwise the variance of the features would double with every block.
    """

    def __init__(self, n: int, num_classes: int = 10, in_channels: int = 3, norm: bool = True) -> None:
        super().__init__()
        widths = (16, 32, 64)
        planes = widths[0]
        self.conv1 = nn.Conv2d(in_channels, planes, 3, padding=1, bias=not norm)
        for number, width in enumerate(widths):
            blocks = []
            for block in range(n):
                blocks.append(PreActivationBlock(planes, width, 2 if number > 0 and block == 0 else 1, norm))
                planes = width
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(planes) if norm else nn.Identity()
        self.linear = nn.Linear(planes, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in [] if norm else list(self.modules()):
            if isinstance(module, PreActivationBlock):
                nn.init.zeros_(module.conv2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        for number in (1, 2, 3):
            x = getattr(self, f"layer{number}")(x)
        x = F.relu(self.bn(x))
        logits: torch.Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def preact_resnet32(num_classes: int = 10, in_channels: int = 3, norm: bool = True) -> nn.Module:
    """Pre-activation ResNet-32 for CIFAR, as in the public code of Wang et al. (CVPR 2020), with or without batch norm."""
    return PreActivationResNet(5, num_classes, in_channels, norm)


class SmallCNN(nn.Module):
    """Two convolutions with batch norm and a linear layer: the network of the embedded demo, for any size."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.linear = nn.Linear(32 * 16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        logits: torch.Tensor = self.linear(self.pool(x).flatten(1))
        return logits


@dataclass(frozen=True)
class Architecture:
    """A network that state dicts are matched against."""

    name: str
    build: Callable[..., nn.Module]
    about: str
    normalize: str | None = None  # the preset that its published weights use


ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry
    for entry in [
        *(
            Architecture(
                f"resnet{depth}",
                partial(cifar_resnet_option_a, depth),
                f"CIFAR ResNet-{depth}, option A shortcuts, for fast experiments",
            )
            for depth in (8, 14)
        ),
        *(
            Architecture(
                f"resnet{depth}",
                partial(cifar_resnet_option_a, depth),
                f"CIFAR ResNet-{depth}, option A shortcuts (He et al. 2016)",
                "imagenet",
            )
            for depth in (20, 32, 44, 56, 110)
        ),
        Architecture("cifar_resnet18", cifar_resnet18, "CIFAR ResNet-18 with a 3x3 stem (Wang et al. 2020)"),
        Architecture("preact_resnet32", preact_resnet32, "CIFAR pre-activation ResNet-32 (public code of Wang et al.)"),
        Architecture("small_cnn", SmallCNN, "two convolutions with batch norm, any image size"),
    ]
}
#: Classification networks of torchvision that checkpoints are matched against after our own.
TORCHVISION = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "alexnet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
    "squeezenet1_0",
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "shufflenet_v2_x1_0",
    "densenet121",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
]
