"""What every registered attack keeps to, third-party ones too."""

from __future__ import annotations

import json
from typing import get_args

import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics.norms import norms
from freqrobust.numerics.threat import TOLERANCE
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.corruption_names import COMMON, EXTRA
from freqrobust.plugins.registry import attacks

# they take minutes; test_autoattack.py and test_aa.py hold them to the same contract
NAMES = [name for name in attacks.names() if name not in ("aa", "autoattack")]
#: Further configurations of attacks, beside their defaults.
VARIANTS = {
    "pgd": [
        {"restarts": 3, "steps": 4},
        {"random_start": False, "steps": 5},
        {"loss": "margin", "steps": 5},
        {"loss": "dlr", "steps": 5},
        {"target": "least-likely", "steps": 5},
        {"target": "next", "steps": 5},
        {"target": "random", "steps": 5},
        {"step_size": 1.0, "steps": 3},
        {"norm": "l1", "eps": 2.0, "steps": 5},
        {"norm": "l1", "eps": 2.0, "steps": 4, "restarts": 2, "sparsity": 0.2},
    ],
    "apgd": [
        {"steps": 5, "targets": 2, "restarts": 2},
        {"steps": 5, "targets": 3, "untargeted": False, "loss": "dlr"},
        {"norm": "l1", "eps": 2.0, "steps": 6, "targets": 1},
        {"norm": "l2", "eps": 0.5, "steps": 6, "random_start": False},
    ],
    "fgsm": [{"norm": "l1", "eps": 2.0}],
    "noise": [{"distribution": "gaussian", "norm": "l2"}, {"distribution": "sign", "norm": "l1"}, {"draws": 1}],
    "lowfreq-pgd": [
        {"radius": 3, "steps": 5},
        {"radius": 3, "low": 1, "shape": "square", "restarts": 2, "steps": 3},
        {"radius": 3, "norm": "l2", "eps": 0.5, "steps": 5, "random_start": False},
    ],
    "square": [{"norm": "l2", "eps": 1.0}, {"norm": "l1", "eps": 6.0}, {"p_init": 0.05, "queries": 1}],
    "fourier": [{"norm": "l2", "eps": 1.0}, {"radius": 2, "directions": 5}],
    "lfc": [{"shape": "square"}, {"clip": True}, {"rescale": "max"}],
    "hfc": [{"shape": "square"}, {"keep_mean": True}],
    "corruption": [
        {"name": name, "severity": severity} for name in COMMON + EXTRA for severity in (2, 5) if name != "saturate"
    ]
    + [{"name": "glass_blur", "constants": "imagenet", "severity": 1}, {"name": "snow", "eight_bit": False}],
    "fourier-noise": [{"l2": 1.0, "clip": True}],
    "filtered-noise": [{"low": 2}, {"high": 3, "shape": "square"}],
    "critical-band": [{"grayscale": False}],
    "hybrid": [{"shape": "square", "clip": True}],
    "phase-swap": [{"keep": "amplitude"}],
}
CASES = [pytest.param(name, {}, id=name) for name in NAMES] + [
    pytest.param(name, given, id=f"{name}-{'-'.join(map(str, given.values()))}")
    for name in NAMES
    for given in VARIANTS.get(name, [])
]
#: What the harness is run with for several batch sizes. Of a shift that is its default: another test shows for all
#: configurations that the images are the same bits for any split, and then so is all that the harness makes of them.
IN_BATCHES = [case for case in CASES if not case.values[1] or attacks.get(str(case.values[0])).kind == "adversarial"]
#: Where a budget is small all of their parts run to the end, which takes minutes; test_autoattack.py does it for few samples.
ENSEMBLES = {"autoattack"}
BUDGETS = [("linf", 1 / 255), ("linf", 0.3), ("l2", 0.05), ("l2", 2.0), ("l2", 30.0), ("l1", 0.5), ("l1", 12.0)]


class AllOf:
    """The samples of a dataset for ``Attack.prepare``, in any order."""

    def __init__(self, model, data, order) -> None:
        self.model, self.data, self.order = model, data, order
        self.ids, self.shape = data.ids[order], data.shape

    def gather(self, rows, work):
        images, labels, _ = self.data.batch(self.order[rows], torch.device("cpu"))
        return torch.cat([work(self.model, images[w], labels[w], w) for w in torch.arange(len(rows)).split(50)])


def prepare(attack, model, data, order=None, seed=0, goal="decide"):
    samples = AllOf(model, data, torch.arange(len(data)) if order is None else order)
    return attack.prepare(samples, AttackContext(samples.ids, seed, goal))


def perturb(attack, model, data, *, ids=None, seed=0, goal="decide", size=64, prepared=None):
    ids = torch.arange(len(data)) if ids is None else ids
    prepared = prepare(attack, model, data, None, seed, goal) if prepared is None else prepared
    found = []
    for part in ids.split(size):
        images, labels, keys = data.batch(part, torch.device("cpu"))
        with torch.set_grad_enabled(attack.needs_gradient):
            context = AttackContext(keys, seed, goal, prepared=prepared)
            found.append(attack.perturb(model, images, labels, context).detach())
    return torch.cat(found)


def takes(name: str, norm: str) -> bool:
    """Whether the attack knows that norm."""
    field = attacks.get(name).model_fields.get("norm")
    return field is not None and norm in get_args(field.annotation)


def bounded(name: str) -> bool:
    cls = attacks.get(name)
    return cls.kind == "adversarial" and {"eps", "norm"} <= set(cls.model_fields)


@pytest.mark.parametrize(("name", "given"), CASES)
@pytest.mark.parametrize("goal", ["decide", "maximize"])
def test_returns_images_like_those_it_got(make, network, digits, name, given, goal) -> None:
    attack = make(attacks, name, **given)
    images, _, _ = digits.batch(torch.arange(len(digits)), torch.device("cpu"))
    found = perturb(attack, network, digits, goal=goal)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    if attack.kind == "adversarial":
        assert found.min() >= -TOLERANCE
        assert found.max() <= 1 + TOLERANCE
    threat = attack.threat()
    if threat is not None:
        assert norms(found - images, threat.norm).max() <= threat.eps + TOLERANCE


@pytest.mark.parametrize(
    ("name", "norm", "eps"),
    [
        pytest.param(name, norm, eps, id=f"{name}-{norm}-{eps:.3g}")
        for name in NAMES
        for norm, eps in BUDGETS
        if bounded(name) and takes(name, norm) and not (name in ENSEMBLES and eps < 0.1)
    ],
)
def test_budget_holds(make, network, digits, name, norm, eps) -> None:
    attack = make(attacks, name, eps=eps, norm=norm)
    assert attack.threat() == (norm, eps)
    images, _, _ = digits.batch(torch.arange(len(digits)), torch.device("cpu"))
    for goal in ("decide", "maximize"):
        found = perturb(attack, network, digits, goal=goal)
        assert norms(found - images, norm).max() <= eps + max(TOLERANCE, 1e-6 * eps)
        assert found.min() >= 0
        assert found.max() <= 1
        assert not torch.equal(found, images)


@pytest.mark.parametrize("name", [name for name in NAMES if "eps" in attacks.get(name).model_fields])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("goal", ["decide", "maximize"])
def test_without_a_budget_nothing_changes(make, network, digits, name, norm, goal) -> None:
    given = {"norm": norm} if takes(name, norm) else {}
    for more in [{}, *(v for v in VARIANTS.get(name, []) if not {"eps", "norm"} & set(v))]:
        attack = make(attacks, name, eps=0, **given, **more)
        images, _, _ = digits.batch(torch.arange(len(digits)), torch.device("cpu"))
        assert torch.equal(perturb(attack, network, digits, goal=goal), images)
        if goal == "decide":  # what the harness asks for
            report = evaluate(network, digits, attacks=[attack], device="cpu", batch_size=32, diagnose=None)
            assert report.cells[1].status == "ok"
            assert report.cells[1].outcomes == report.cells[0].outcomes


@pytest.mark.parametrize(("name", "given"), CASES)
def test_same_seed_same_output(make, network, digits, name, given) -> None:
    attack = make(attacks, name, **given)
    torch.manual_seed(1)
    first = perturb(attack, network, digits, seed=3)
    torch.manual_seed(2)  # the global generator has no part in it
    assert torch.equal(perturb(make(attacks, name, **given), network, digits, seed=3), first)


class FirstSeen(nn.Module):
    """Keeps the first images that it is shown; never wrong, so that nobody stops early."""

    def __init__(self, labels: torch.Tensor) -> None:
        super().__init__()
        self.labels, self.first = labels, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.first = x.detach().clone() if self.first is None else self.first
        return 10.0 * nn.functional.one_hot(self.labels, 10) + 0.01 * x.flatten(1)[:, :10]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_starts_do_not_depend_on_the_batch_nor_on_the_order(make, network, digits, name, given) -> None:
    """The first images that the model sees are the same bits, for any split and any order of the samples."""
    attack = make(attacks, name, **given)
    if not attack.batch_invariant:
        pytest.skip("the attack says that its samples depend on each other")

    def seen(order: torch.Tensor, size: int) -> torch.Tensor:
        found = torch.zeros(len(digits), *digits.shape)
        prepared = prepare(attack, network, digits, order)
        for part in order.split(size):
            spy = FirstSeen(digits.labels[part])
            changed = perturb(attack, spy, digits, ids=part, prepared=prepared)
            found[part] = changed if spy.first is None else spy.first
        return found

    whole = seen(torch.arange(64), 64)
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    for size in (1, 7):
        assert torch.equal(seen(shuffled, size), whole)


@pytest.mark.parametrize(("name", "given"), IN_BATCHES)
def test_outcomes_do_not_depend_on_the_batch_size(make, network, digits, name, given) -> None:
    attack = make(attacks, name, **given)
    if not attack.batch_invariant:
        pytest.skip("the attack says that its samples depend on each other")
    cells = [
        evaluate(network, digits, attacks=[attack], device="cpu", batch_size=size, diagnose=None).cells[1]
        for size in (1, 32)
    ]
    assert cells[0].status == cells[1].status == "ok"
    assert cells[0].outcomes == cells[1].outcomes
    assert (cells[0].forwards, cells[0].backwards) == (cells[1].forwards, cells[1].backwards)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_the_model_is_left_as_it_was(make, network, digits, name, given) -> None:
    before = state_hash(network)
    perturb(make(attacks, name, **given), network, digits, goal="maximize")
    assert state_hash(network) == before
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("name", [name for name in NAMES if attacks.get(name).kind == "adversarial"])
def test_maximise_is_at_least_as_far_up_as_decide(make, network, digits, name) -> None:
    attack = make(attacks, name)
    labels = digits.labels

    def loss(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return nn.functional.cross_entropy(network(images), labels, reduction="none")

    decided, most = (loss(perturb(attack, network, digits, goal=goal)) for goal in ("decide", "maximize"))
    assert most.mean() >= decided.mean() - 1e-4


# replayed examples have the shape they were saved with
@pytest.mark.parametrize("name", [name for name in NAMES if name != "replay"])
@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 16, 12), (2, 1, 9)])
def test_any_shape_of_images(make, name, shape) -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(5, *shape), torch.tensor([0, 1, 2, 3, 0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 4)).eval().requires_grad_(False)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    report = evaluate(model, (images, labels), attacks=[make(attacks, name)], device="cpu")
    assert report.cells[1].status == "ok", report.cells[1].error


@pytest.mark.parametrize(("name", "given"), CASES)
def test_says_what_it_is(make, name, given) -> None:
    attack = make(attacks, name, **given)
    assert (type(attack).__doc__ or "").strip()
    for key, field in type(attack).model_fields.items():
        assert field.description, f"{name}: the parameter {key!r} is not described"
    plugin_spec = attacks.select(attack)
    assert plugin_spec.name == name
    json.dumps(plugin_spec.params, allow_nan=False)
    again = attacks.parse(plugin_spec.spec)
    assert len(again) == 1
    assert again[0].params == pytest.approx(plugin_spec.params)
    with pytest.raises(Exception, match="frozen"):
        attack.__setattr__(next(iter(type(attack).model_fields)), 1)
