"""What the certificates by bounds support, and what they refuse in one line that names the module."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freqrobust.certificates.bounds.decision import certify
from freqrobust.certificates.bounds.lowering import network
from freqrobust.core.errors import SpecError
from freqrobust.plugins.certificate import CertificateContext
from freqrobust.plugins.registry import certificates, defenses

SHAPE = (3, 8, 8)


class Body(nn.Module):
    """A linear layer behind a function of the image."""

    def __init__(self, function, features: int = 192, act: nn.Module | None = None, trains: bool = False) -> None:
        super().__init__()
        self.trains = trains
        self.function, self.act, self.linear = function, act or nn.Identity(), nn.Linear(features, 4)
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.act(self.function(self, x)).flatten(1))


def images(n: int = 3) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def certified(model: nn.Module) -> torch.Tensor:
    return certify(model, images(), torch.zeros(3, dtype=torch.int64), "linf", 0.01, ["ibp"])


def refusal(model: nn.Module) -> str:
    with pytest.raises(SpecError) as error:
        certified(nn.Sequential(nn.Identity(), model))
    assert "\n" not in str(error.value)
    return str(error.value)


def in_place(module: Body, x: torch.Tensor) -> torch.Tensor:
    """A tensor that is used again after the operation in place has changed it, and its alias."""
    y = module.drop(module.norm(x))
    z = module.drop(y)
    z += 1
    F.relu(y, inplace=True)
    return y.sub_(z * 0.5) + z


def copied(module: Body, x: torch.Tensor) -> torch.Tensor:
    """Copies that are changed in place, and the tensor that they were made of."""
    y = 2 * x - 1
    z = y.clone().relu_()
    return module.norm(z + torch.clone(y).sub_(0.5) + y)


def shapes(module: Body, x: torch.Tensor) -> torch.Tensor:
    """Code that depends on shapes only, with constants that were made in the forward pass."""
    if x.shape[1] != 3 or x.ndim != 4 or x.size(0) < 1 or len(x) < 1:
        raise ValueError("expected 3 channels")
    mean = torch.tensor([0.1, 0.2, 0.3]).view(-1, 1, 1)
    scaled = (x - mean) / module.norm.running_var.view(1, 3, 1, 1)
    joined = torch.cat([scaled, 1 - x], dim=1)
    return joined.view(x.size(0), -1).unsqueeze(1).squeeze(1)[:, 192:]


@pytest.mark.parametrize("function", [in_place, copied, shapes])
def test_what_is_recorded_is_what_the_model_computes(function) -> None:
    """:func:`certify` compares the logits; here the difference is known to be rounding."""
    model = Body(function).double().eval()
    x = images().double()
    with torch.no_grad():
        layers = network(model, x)
        values = []
        for layer in layers.layers:
            inputs = [values[i] for i in layer.inputs]
            values.append(layer.operation.interval(inputs) if layer.operation else region(x))
        torch.testing.assert_close(values[-1].lower, model(x), rtol=0, atol=1e-12)
    certified(model.float())


def region(x: torch.Tensor):
    from freqrobust.certificates.bounds.operations import Interval

    return Interval(x, x)


def test_float_is_supported() -> None:
    """The bounds are computed in float64, which it does not undo."""
    certified(Body(lambda module, x: module.norm(x.float())).eval())


def test_parametrised_weights_and_subclasses_of_layers_are_supported() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 3, padding=1))
    certified(
        nn.Sequential(Standardised(3, 3, 3, padding=1), spectral, nn.ReLU(), nn.Flatten(), nn.Linear(192, 4)).eval()
    )


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (lambda: Body(lambda m, x: x, act=nn.GELU()), "'1.act' (GELU); supported are Linear, Conv2d, batch norm"),
        (lambda: Body(lambda m, x: x.softmax(1)), "softmax in '1' (Body); supported are Linear"),
        (lambda: Body(lambda m, x: x * x), "mul in '1' (Body): it is a product of two layers"),
        (lambda: Body(lambda m, x: 1 / x), "truediv in '1' (Body): it divides by a layer"),
        (lambda: Body(lambda m, x: x if x.mean() > 0 else -x), "'1' (Body): its control flow depends on the values"),
        (lambda: Body(lambda m, x: torch.from_numpy(x.numpy())), "'1' (Body): torch.fx cannot record what it computes"),
        (lambda: Body(lambda m, x: x + torch.randn(x.shape)), "draws random numbers"),
        (lambda: Body(lambda m, x: x - x.mean(0)), "mean in '1' (Body): its result has no batch dimension"),
        (lambda: Body(lambda m, x: x - x.mean((0, 1), keepdim=True)), "its result has no batch dimension"),
        (lambda: Body(lambda m, x: x.transpose(1, 2)), "transpose in '1' (Body); supported"),
        (lambda: Body(lambda m, x: x[:1].expand(3, -1, -1, -1)), "getitem in '1' (Body)"),
        (lambda: Body(lambda m, x: F.dropout(x)), "'1' (Body): it draws random numbers"),
        (
            lambda: Body(lambda m, x: x, act=nn.BatchNorm2d(3), trains=True),
            "'1.act' (BatchNorm2d): it is in train mode",
        ),
        (lambda: Body(lambda m, x: x, act=nn.Dropout(0.5), trains=True), "'1.act' (Dropout): it is in train mode"),
        (lambda: Body(lambda m, x: x, act=nn.BatchNorm2d(3, track_running_stats=False)), "statistics of the batch"),
        (
            lambda: Body(lambda m, x: x, act=nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")),
            "padding_mode='zeros'",
        ),
        (lambda: Body(lambda m, x: x.clamp(0, 1)), "of clamp only min=0 has bounds"),
        (lambda: Body(lambda m, x: torch.cat([x], 0)), "cat in '1' (Body): it concatenates samples"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "it should return one tensor of logits (N, K)"),
    ],
)
def test_refused(model, named) -> None:
    made = model().eval()
    if getattr(made, "trains", False):
        made.act.train()
    assert named in refusal(made)


def test_hooks_are_refused() -> None:
    model = Body(lambda m, x: x).eval()
    model.act.register_forward_hook(lambda module, inputs, output: output + 1)
    assert "'1.act' (Identity): it has forward hooks" in refusal(model)


def view_changed(module: Body, x: torch.Tensor) -> torch.Tensor:
    y = 2 * x
    y.view(-1, 192).sub_(1)
    return y


def view_used(module: Body, x: torch.Tensor) -> torch.Tensor:
    y = 2 * x + 1
    z = y.flatten(1)
    y.relu_()  # changes no value of this image
    return z + 1


def slice_changed(module: Body, x: torch.Tensor) -> torch.Tensor:
    y = 2 * x + 1
    F.relu(y[:, 1:], inplace=True)
    return y


@pytest.mark.parametrize("function", [view_changed, view_used, slice_changed])
def test_a_view_that_is_changed_in_place_is_refused(function) -> None:
    """What torch.fx records is then another function than the model, even where the logits of the image are the same."""
    assert "it changes a tensor in place and uses a view of it" in refusal(Body(function).eval())


def test_a_model_that_changes_from_call_to_call_is_refused() -> None:
    """What is recorded in one call is not what another call computes."""
    calls = iter(range(1, 100))
    assert "have other logits than the model" in refusal(Body(lambda m, x: x * next(calls)).eval())


def test_a_view_may_be_changed_where_nothing_else_uses_its_memory() -> None:
    parts = [nn.Conv2d(3, 4, 3), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(144, 4)]
    certified(nn.Sequential(*parts).eval())


def test_the_model_is_not_changed_and_gradients_may_be_on() -> None:
    model = Body(lambda m, x: (x - torch.tensor(0.5)) * m.norm.weight.view(-1, 1, 1)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    names = set(vars(model))
    certified(model)
    with torch.inference_mode():
        certified(model)
    assert set(vars(model)) == names
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", ["ibp", "crown"])
def test_plugins(name) -> None:
    plugin = certificates.parse(f"{name}:eps=2/255,norm=l2")[0].plugin
    assert str(plugin.threat()) == "L2 2/255"
    assert plugin.guarantee == "deterministic"
    assert "the label of a certified sample under every perturbation within L2 2/255" in plugin.statement()
    with pytest.raises(SpecError, match="did you mean 8/255"):
        certificates.parse(f"{name}:eps=8")
    with pytest.raises(SpecError, match="norm"):
        certificates.parse(f"{name}:norm=l1")
    context = CertificateContext(torch.arange(3), defenses=(defenses.parse("gaussian-noise")[0].plugin,))
    with pytest.raises(SpecError, match="GaussianNoise, which draws random numbers"):
        plugin.certify(Body(lambda m, x: x).eval(), images(), torch.zeros(3, dtype=torch.int64), context)
