"""What every registered defense keeps to, third-party ones too."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.harness.defend import defend
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics import noise
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.registry import defenses
from freqrobust.plugins.specs import DefenseChain

NAMES = defenses.names()
VARIANTS = {
    "smooth": [
        {"layers": "all", "boundary": "symmetric"},
        {"rho": 0.3, "rescale": True},
        {"rho": 0.3, "recalibrate_bn": True},
    ],
    "lowpass": [{"shape": "square"}],
    "highpass": [{"keep_mean": True}],
    "madry": [{"start": "scratch", "augment": "none"}, {"norm": "l2", "eps": 0.5}],
}
CASES = [pytest.param(name, {}, id=name) for name in NAMES] + [
    pytest.param(name, given, id=f"{name}-{'-'.join(map(str, given.values()))}")
    for name in NAMES
    for given in VARIANTS.get(name, [])
]


@pytest.fixture
def context(training_digits) -> DefenseContext:
    return DefenseContext(train_data=training_digits)


def logits(model: nn.Module, data) -> torch.Tensor:
    images, _, ids = data.batch(torch.arange(len(data)), torch.device("cpu"))
    with torch.no_grad(), noise.sample_scope(ids):
        return model(images)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_the_model_given_is_untouched(make, network, context, digits, name, given) -> None:
    """Bit for bit; also while the defended one is used."""
    model = copy.deepcopy(network).train()  # also a model that is in the middle of something
    model.bn1.eval()
    model.conv2.weight.requires_grad_(True)
    modes = [module.training for module in model.modules()]
    needed = [parameter.requires_grad for parameter in model.parameters()]
    before, expected = state_hash(model), copy.deepcopy(model)
    defended = make(defenses, name, **given).apply(model, context)
    assert isinstance(defended, nn.Module)
    assert defended is not model
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needed
    assert state_hash(model) == before
    logits(defended.eval(), digits)
    assert state_hash(model) == before
    assert torch.equal(logits(model.eval(), digits), logits(expected.eval(), digits))


@pytest.mark.parametrize(("name", "given"), CASES)
def test_returns_logits_and_the_same_ones_every_time(make, network, context, digits, name, given) -> None:
    defense = make(defenses, name, **given)
    torch.manual_seed(1)
    first = logits(defense.apply(network, context).eval(), digits)
    torch.manual_seed(2)
    second = logits(make(defenses, name, **given).apply(network, context).eval(), digits)
    assert first.shape == (64, 10)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_reports_do_not_depend_on_the_batch_size(make, network, training_digits, digits, name, given) -> None:
    defense = make(defenses, name, **given)
    chain = DefenseChain((defenses.select(defense),))
    part = digits.first(8) if defense.stochastic else digits  # each of their predictions is many
    reports = [
        evaluate(
            network,
            part,
            attacks=["pgd:eps=0.1,steps=4", "lfc:radius=2"],
            defenses=[chain],
            undefended=False,
            train_data=training_digits,
            batch_size=size,
            device="cpu",
            diagnose=None,
            oblivious=False,
        )
        for size in (1, 32)
    ]
    assert all(cell.status == "ok" for report in reports for cell in report.cells), reports[0].cells[0].error
    found = [[(cell.attack, cell.outcomes, cell.forwards, cell.backwards) for cell in r.cells] for r in reports]
    assert found[0] == found[1]
    assert found[0][1][3] > 0  # gradients came back


@pytest.mark.parametrize(("name", "given"), CASES)
def test_gradients_are_those_of_the_defended_model(make, network, context, digits, name, given) -> None:
    """Where a defense says that it is differentiable, the gradient is that of finite differences."""
    defense = make(defenses, name, **given)
    if not defense.differentiable or defense.stochastic:
        pytest.skip("not differentiable, or random")
    images, labels, _ = digits.batch(torch.arange(8), torch.device("cpu"))
    exact, attackable = defend(network, DefenseChain((defenses.select(defense),)), context)
    assert exact is attackable
    exact = copy.deepcopy(exact).eval().requires_grad_(False).double()
    x = images.double().requires_grad_(True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(exact(x), labels, reduction="sum")

    (gradient,) = torch.autograd.grad(loss(x), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-7
    with torch.no_grad():
        slope = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4, abs=1e-6)


IDENTITIES = {
    "smooth:rho=0": "exact",
    "smooth:rho=0,layers=all,boundary=symmetric": "exact",
    "smooth:rho=0,rescale=true": "exact",
    "lowpass:radius=100": "exact",
    "lowpass:radius=100,shape=square": "exact",
    "highpass:radius=0": "exact",
    "highpass:radius=0,keep_mean=true": "exact",
    "smooth:rho=0+lowpass:radius=100": "exact",
    "undefended": "exact",
}


@pytest.mark.parametrize("spec", IDENTITIES)
def test_identities_change_nothing(network, digits, spec) -> None:
    specs = [] if spec == "undefended" else [spec]
    report = evaluate(network, digits, attacks=["pgd:eps=0.1,steps=3"], defenses=specs, device="cpu")
    base = [cell for cell in report.cells if cell.defense == "undefended"]
    same = [cell for cell in report.cells if cell.defense_spec == spec and cell.knowledge == "adaptive"]
    assert len(base) == len(same) == 2
    for cell in report.cells:  # examples of the undefended model, shown to what is the same model
        if cell.knowledge == "oblivious":
            assert cell.outcomes == base[1].outcomes
    assert [cell.outcomes for cell in base] == [cell.outcomes for cell in same]
    if specs:
        assert all(cell.difference.points == 0 for cell in same)
        from freqrobust.plugins.selection import parse_defenses

        exact, _ = defend(network, parse_defenses(specs)[0], DefenseContext())
        assert torch.equal(logits(exact, digits), logits(network, digits))


@pytest.mark.parametrize(("name", "given"), CASES)
def test_says_what_it_is(make, name, given) -> None:
    defense = make(defenses, name, **given)
    assert (type(defense).__doc__ or "").strip()
    for key, field in type(defense).model_fields.items():
        assert field.description, f"{name}: the parameter {key!r} is not described"
    plugin_spec = defenses.select(defense)
    assert plugin_spec.name == name
    json.dumps(plugin_spec.params, allow_nan=False)
    again = defenses.parse(plugin_spec.spec)
    assert len(again) == 1
    assert again[0].params == plugin_spec.params


@pytest.mark.parametrize("name", [name for name in NAMES if defenses.get(name).trains])
def test_without_training_data_the_error_says_what_to_give(network, digits, name) -> None:
    with pytest.raises(Exception, match=f"{name}.* needs training data: give --train-data"):
        evaluate(network, digits, attacks=["clean"], defenses=[name], device="cpu")


def test_chains_apply_the_left_one_first(network, digits) -> None:
    """``smooth + lowpass``: the kernels are smoothed, then the filter is put in front."""
    from freqrobust.plugins.selection import parse_defenses

    chain = parse_defenses(["smooth:rho=0.5+lowpass:radius=2"])[0]
    exact, attackable = defend(network, chain, DefenseContext())
    assert exact is attackable
    smoothed = defenses.parse("smooth:rho=0.5")[0].plugin.apply(network, DefenseContext())
    images, _, _ = digits.batch(torch.arange(len(digits)), torch.device("cpu"))
    with torch.no_grad():
        expected = smoothed(defenses.parse("lowpass:radius=2")[0].plugin.transform(images))
    assert torch.equal(logits(exact, digits), expected)
    assert chain.name == "smooth+lowpass"
    assert chain.params["smooth.rho"] == 0.5
    assert chain.params["lowpass.radius"] == 2
