"""Batch norm folded into convolutions: the same logits and gradients, or the model itself."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from freqrobust.models.architectures import ARCHITECTURES
from freqrobust.models.batch_norm_folding import fold_batch_norm
from freqrobust.models.fingerprint import state_hash


class Twice(nn.Module):
    """One module is called twice, or one output is used twice."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        if self.how == "output used twice":
            out = self.norm(out) + out
        elif self.how == "conv called twice":
            out = self.norm(self.conv2(F.relu(self.conv2(out))))
        elif self.how == "norm called twice":
            out = self.norm(self.conv2(F.relu(self.norm(out))))
        elif self.how == "changed in place between":
            out = self.norm(F.relu(out, inplace=True))
        elif self.how == "two norms on one output":
            out = self.norm(out) * self.norm2(out)
        elif self.how == "norm before conv":
            out = self.conv2(F.relu(self.norm(out.clone())))
        return self.linear(out.mean(dim=(2, 3)))


class NoGradInside(nn.Module):
    """Part of the network is cut off from the gradient."""

    def __init__(self, all_of_it: bool) -> None:
        super().__init__()
        self.all_of_it = all_of_it
        self.cut = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.kept = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.linear = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = self.cut(x)
        if not self.all_of_it:
            features = features + self.kept(x)
        return self.linear(features.mean(dim=(2, 3)))


class NormFirst(nn.Module):
    """Pre-activation order: batch norm, ReLU, convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(F.relu(self.norm(x))).mean(dim=(2, 3)))


def trained_looking(model: nn.Module) -> nn.Module:
    """Batch norms as after training: nothing near its initial value."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.5 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.3 + torch.rand(module.num_features, generator=generator))
            if module.affine:
                with torch.no_grad():
                    module.weight.copy_(0.5 + torch.rand(module.num_features, generator=generator))
                    module.bias.copy_(0.3 * torch.randn(module.num_features, generator=generator))
    return model.eval().requires_grad_(False)


def logits_and_gradient(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = images.clone().requires_grad_(True)
    logits = model(x)
    loss = F.cross_entropy(logits, torch.arange(len(x)) % 10, reduction="sum")
    if not loss.requires_grad:
        return logits, torch.zeros_like(x)
    return logits.detach(), torch.autograd.grad(loss, x)[0]


FOLDED = {
    "resnet20": lambda: ARCHITECTURES["resnet20"].build(),
    "cifar_resnet18": lambda: ARCHITECTURES["cifar_resnet18"].build(),
    "small_cnn": lambda: ARCHITECTURES["small_cnn"].build(in_channels=3),
    "no_grad around a part": lambda: NoGradInside(False),
    "no_grad around all": lambda: NoGradInside(True),
    "no affine": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False), nn.Flatten(), nn.LazyLinear(10)
    ),
}
KEPT = {
    **{
        how: lambda how=how: Twice(how)
        for how in [
            "output used twice",
            "conv called twice",
            "norm called twice",
            "changed in place between",
            "two norms on one output",
            "norm before conv",
        ]
    },
    "norm first": NormFirst,
    "kernel computed by a hook": lambda: nn.Sequential(
        prune.l1_unstructured(nn.Conv2d(3, 8, 3), "weight", amount=0.3),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
    "no running statistics": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "no batch norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)),
}


def made(factory) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = factory()
    generator = torch.Generator().manual_seed(1)
    probe, images = torch.rand(4, 3, 16, 16, generator=generator), torch.rand(6, 3, 16, 16, generator=generator)
    with torch.no_grad():
        model.eval()(probe)  # lazy layers take their shape
    if not any(isinstance(m, nn.BatchNorm2d) and not m.track_running_stats for m in model.modules()):
        trained_looking(model)
    return model.eval().requires_grad_(False), probe, images


@pytest.mark.parametrize("name", FOLDED)
def test_folded_copy_has_the_same_logits_and_gradients(name) -> None:
    model, probe, images = made(FOLDED[name])
    before = state_hash(model)
    folded = fold_batch_norm(model, probe)
    assert folded is not model
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == (1 if name == "no_grad around all" else 0)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for expected, found in zip(logits_and_gradient(model, images), logits_and_gradient(folded, images), strict=True):
        scale = max(float(expected.abs().max()), 1e-12)
        torch.testing.assert_close(found / scale, expected / scale, atol=1e-4, rtol=0)
    assert state_hash(model) == before
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@pytest.mark.parametrize("name", KEPT)
def test_where_folding_is_not_safe_the_model_is_kept(name) -> None:
    model, probe, images = made(KEPT[name])
    before = state_hash(model)
    found = fold_batch_norm(model, probe)
    assert found is model
    assert state_hash(model) == before
    assert torch.equal(found(images), model(images))


def test_a_model_that_cannot_be_copied_is_kept() -> None:
    class NoCopy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = FOLDED["small_cnn"]()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

        def __deepcopy__(self, memo: dict) -> nn.Module:
            raise TypeError("no copies")

    model = trained_looking(NoCopy())
    assert fold_batch_norm(model, torch.rand(2, 3, 16, 16)) is model


def test_hooks_are_taken_away_and_hooked_layers_are_left_alone() -> None:
    model, probe, _ = made(FOLDED["small_cnn"])
    fold_batch_norm(model, probe)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    seen = []
    hooked = copy.deepcopy(model)
    hooked.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    assert fold_batch_norm(hooked, probe) is hooked  # the hook may do anything
    assert seen
