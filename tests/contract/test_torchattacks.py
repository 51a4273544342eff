"""Every attack of the installed torchattacks keeps the contracts, and is what the library does."""

from __future__ import annotations

import random
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import ImageData, InputDefense, evaluate
from freqrobust.core.errors import PluginError
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics import noise
from freqrobust.numerics.threat import TOLERANCE
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks
from freqrobust.plugins.selection import parse_attacks
from support.networks import tiny

torchattacks = pytest.importorskip("torchattacks", reason="the extra 'zoo' is not installed")
from freqrobust.attacks.isolation import batch_seed, settle  # noqa: E402

NAMES = attacks.family("torchattacks").members()
SHORTER = {
    "SPSA": "nb_sample=8",
    "JSMA": "gamma=0.05",
    "EADL1": "binary_search_steps=2,max_iterations=10",
    "EADEN": "binary_search_steps=2,max_iterations=10",
    "CW": "c=1,steps=10",
    "Square": "n_queries=60",
    "OnePixel": "steps=2,popsize=4",
    "Pixle": "restarts=3",
    "AutoAttack": "version=rand",
}


@pytest.fixture
def network() -> nn.Module:
    return tiny()[0].requires_grad_(False)


@pytest.fixture
def data() -> ImageData:
    return tiny()[1]


def spec_of(name: str) -> str:
    return f"torchattacks:{name}" + (f":{SHORTER[name]}" if name in SHORTER else "")


def build(spec: str):
    (plugin_spec,) = attacks.parse(spec)
    return plugin_spec.plugin


def perturb(attack, model, data, seed=0):
    images, labels, ids = data.batch(torch.arange(len(data)), torch.device("cpu"))
    return attack.perturb(model, images, labels, AttackContext(ids, seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_contract(network, data, name, capsys) -> None:
    attack = build(spec_of(name))
    images, labels, ids = data.batch(torch.arange(len(data)), torch.device("cpu"))
    kept, before = (images.clone(), labels.clone()), state_hash(network)
    network.drop.train()  # whatever the modes were, they come back
    modes = [module.training for module in network.modules()]
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    found = attack.perturb(network, images, labels, AttackContext(ids, 3))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])
    assert state_hash(network) == before
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert found.dtype == torch.float32
    assert found.shape == images.shape
    assert not found.requires_grad
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    threat = attack.threat()
    if threat is not None:
        order = {"linf": float("inf"), "l2": 2}[threat.norm]
        far = torch.linalg.vector_norm((found - images).flatten(1).double(), ord=order, dim=1)
        assert far.max() <= threat.eps + TOLERANCE
    torch.manual_seed(6), np.random.seed(6), random.seed(6)  # the global generators have no part in it
    network.eval()
    again = [build(spec_of(name)).perturb(network, images, labels, AttackContext(ids, 3)) for _ in range(2)]
    assert torch.equal(*again)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_through_the_harness(network, data, name) -> None:
    """The cell is there, its spec says the same again, and what it reports was measured."""
    (plugin_spec,) = parse_attacks([spec_of(name)])
    assert plugin_spec.name == f"torchattacks:{name}"
    assert plugin_spec.origin == f"torchattacks {torchattacks.__version__}"
    with pytest.raises(Exception, match="frozen"):
        plugin_spec.plugin.__setattr__("eps", 1)
    for key, field in type(plugin_spec.plugin).model_fields.items():
        assert field.description, key
        assert key not in ("model", "seed", "verbose", "device")
    again = attacks.select(plugin_spec.plugin)
    assert again.name == plugin_spec.name
    assert attacks.parse(again.spec)[0].params == plugin_spec.params
    report = evaluate(network, data, attacks=[plugin_spec], device="cpu")
    cell = report.cells[1]
    assert cell.status == "ok", cell.error
    with torch.no_grad():
        broken = network(perturb(plugin_spec.plugin, network, data)).argmax(dim=1) != data.labels
    # batch norm is folded in one of them, and examples of DeepFool are at the decision boundary
    assert abs(int(broken.sum()) - (cell.n - cell.correct)) <= (2 if name == "DeepFool" else 1)
    assert bool(cell.backwards) == (plugin_spec.plugin.needs_gradient)
    assert not [w.code for w in report.warnings if w.code == "no-gradients"]


#: Parameters that differ from the defaults, as a user of the library would write them.
DIRECT = {
    "GN": {"std": 0.05},
    "FGSM": {"eps": 4 / 255},
    "BIM": {"eps": 4 / 255, "alpha": 1 / 255, "steps": 4},
    "PGD": {"eps": 4 / 255, "steps": 5},
    "RFGSM": {},
    "FFGSM": {"alpha": 8 / 255},
    "TPGD": {"steps": 4},
    "MIFGSM": {"decay": 0.5},
    "DIFGSM": {"diversity_prob": 0.9},
    "TIFGSM": {"len_kernel": 5, "kernel_name": "uniform"},
    "Jitter": {"scale": 5.0, "std": 0.2},
    "VMIFGSM": {"N": 2, "steps": 3},
    "PIFGSM": {"max_epsilon": 8 / 255},
    "SPSA": {"nb_sample": 8},
    "CW": {"c": 1.0, "steps": 10},
    "PGDL2": {"eps": 0.5},
    "DeepFool": {"steps": 5},
    "APGD": {"norm": "L2", "eps": 0.5, "steps": 5, "loss": "dlr"},
    "FAB": {"steps": 4},
    "Square": {"n_queries": 40, "norm": "L2", "eps": 0.5},
    "Pixle": {"restarts": 3, "x_dimensions": (2, 4)},
    "OnePixel": {"steps": 2, "popsize": 4},
}


@pytest.mark.parametrize("name", DIRECT)
def test_equals_a_direct_call_under_the_same_seeding(network, data, name) -> None:
    given = DIRECT[name]
    cls = attacks.family("torchattacks").member(name)
    ours = perturb(cls(**given), network, data, seed=7)
    images, labels, ids = data.batch(torch.arange(len(data)), torch.device("cpu"))
    seed = batch_seed(AttackContext(ids, 7))
    more = {"seed": seed} if name in ("APGD", "FAB", "Square") else {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        theirs = getattr(torchattacks, name)(network, **given, **more)(images, labels).detach()
    assert (ours - theirs).abs().max() <= 1e-6
    assert name in ("TPGD", "DeepFool", "OnePixel") or not torch.equal(theirs, images)


def test_seed_and_samples_choose_the_noise(network, data) -> None:
    gaussian = build("torchattacks:GN")
    assert not torch.equal(perturb(gaussian, network, data, 0), perturb(gaussian, network, data, 1))
    assert not torch.equal(perturb(gaussian, network, data)[:4], perturb(gaussian, network, data.first(4)))


def test_without_a_budget_nothing_changes(network, data) -> None:
    images = data.batch(torch.arange(len(data)), torch.device("cpu"))[0]
    for name in NAMES:
        attack = attacks.family("torchattacks").member(name)
        if (threat := attack().threat()) is not None:
            key = "max_epsilon" if "max_epsilon" in attack.model_fields else "eps"
            assert threat.eps > 0
            assert torch.equal(perturb(attack(**{key: 0}), network, data), images)


def test_threats() -> None:
    threats = {name: attacks.family("torchattacks").member(name)().threat() for name in NAMES}
    unbounded = {"VANILA", "GN", "JSMA", "EADL1", "EADEN", "CW", "DeepFool", "SparseFool", "OnePixel", "Pixle"}
    assert {name for name, threat in threats.items() if threat is None} == unbounded
    assert {name for name, threat in threats.items() if threat and threat.norm == "l2"} == {"PGDL2", "PGDRSL2"}
    assert build("torchattacks:FAB:norm=l2,eps=0.5").threat() == ("l2", 0.5)
    assert build("torchattacks:PIFGSM:max_epsilon=4/255").threat() == ("linf", 4 / 255)


def test_a_sweep(network, data) -> None:
    report = evaluate(network, data, attacks=["torchattacks:PGD:eps=[2/255,16/255]"], device="cpu")
    low, high = report.cells[1:]
    assert (low.threat.eps, high.threat.eps) == (2 / 255, 16 / 255)
    assert high.inherited == low.n - low.correct
    assert high.correct <= low.correct


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_few_classes(small, name, classes) -> None:
    """It works, or says that it needs more."""
    model, data = small(classes, 4)
    cell = evaluate(model, data, attacks=[spec_of(name)], device="cpu").cells[1]
    if cell.status != "ok":
        assert name in ("APGDT", "AutoAttack")
        assert f"torchattacks:{name} needs at least" in cell.error
        assert f"the model has {classes}" in cell.error


class Jitter(InputDefense):
    """Adds Gaussian noise, keyed by sample."""

    stochastic = True

    def transform(self, images):
        return images + 0.05 * noise.scoped_normal(images)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PGD", "DeepFool", "FAB", "EOTPGD"])
def test_stochastic_defenses(network, data, name) -> None:
    """The library shows the model some samples at a time; keyed noise is drawn all the same, and repeatable."""
    cells = [
        evaluate(network, data, attacks=[spec_of(name)], defenses=[Jitter()], device="cpu").cells[-1] for _ in range(2)
    ]
    assert cells[0].status == "ok", cells[0].error
    assert cells[0].outcomes == cells[1].outcomes


@pytest.mark.parametrize(
    ("attack", "match"),
    [
        ("PGD", "torchattacks:PGD failed: RuntimeError: only on a GPU"),
        ("CW", "torchattacks:CW failed: AssertionError"),
    ],
)
def test_failures_name_the_attack(network, data, monkeypatch, attack, match) -> None:
    def fails(self, *_):
        print("noise on the screen")
        raise RuntimeError("only on\n a GPU") if attack == "PGD" else AssertionError

    monkeypatch.setattr(getattr(torchattacks, attack), "forward", fails)
    with pytest.raises(PluginError, match=match):
        perturb(build(f"torchattacks:{attack}"), network, data)
    report = evaluate(network, data, attacks=[f"torchattacks:{attack}", "fgsm"], device="cpu")
    assert [cell.status for cell in report.cells] == ["ok", "failed", "ok"]
    assert report.cells[1].error.startswith(match)


def test_memory_that_runs_out_passes_unchanged(network, data, monkeypatch) -> None:
    """The harness then halves the batch."""

    def fails(self, images, labels):
        if len(images) > 4:
            raise RuntimeError("CUDA out of memory")
        return images

    monkeypatch.setattr(torchattacks.PGD, "forward", fails)
    cell = evaluate(network, data, attacks=["torchattacks:PGD"], device="cpu").cells[1]
    assert cell.status == "ok", cell.error


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x * float("nan"), "NaN"),
        (lambda x: (x + 0.05).clamp(0, 1), "exceeds its perturbation budget: Linf 0.05"),
        (lambda x: x - 1, r"outside of \[0, 1\]"),
        (lambda x: x[:1], "should return float images"),
        (lambda x: None, "returned a NoneType"),
    ],
)
def test_what_breaks_the_contract_is_an_error(network, data, monkeypatch, change, match) -> None:
    monkeypatch.setattr(torchattacks.PGD, "forward", lambda self, images, labels: change(images))
    cell = evaluate(network, data, attacks=["torchattacks:PGD"], device="cpu").cells[1]
    assert cell.status == "failed"
    assert "torchattacks:PGD" in cell.error
    assert re.search(match, cell.error)


@pytest.mark.parametrize(("norm", "order"), [("linf", float("inf")), ("l2", 2.0), ("l1", 1.0)])
def test_only_rounding_is_taken_back(norm, order) -> None:
    torch.manual_seed(0)
    images = torch.full((3, 3, 8, 8), 0.5)
    delta = torch.randn_like(images)
    delta /= torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)[:, None, None, None]
    lengths = torch.tensor([0.3, 0.3 * (1 + 8e-6), 0.301])[:, None, None, None]
    found = settle(images + delta * lengths, images, norm, 0.3)
    far = torch.linalg.vector_norm((found - images).flatten(1).double(), ord=order, dim=1)
    assert far[1] <= 0.3 + TOLERANCE
    assert far[2] == pytest.approx(0.301, abs=1e-5)
    assert torch.equal(found[2], (images + delta * lengths)[2])
    box = settle(images + 0.500005, images, None, None)
    assert float(box.max()) == 1.0
    assert float(settle(images + 0.51, images, None, None).max()) > 1.009


def test_a_model_without_parameters(data) -> None:
    class Plain(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] * 5

    model = Plain()
    images = data.batch(torch.arange(len(data)), torch.device("cpu"))[0]
    cell = evaluate(model, (images, model(images).argmax(dim=1)), attacks=["torchattacks:PGD"], device="cpu").cells[1]
    assert cell.status == "ok", cell.error
