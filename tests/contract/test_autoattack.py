"""AutoAttack: the library's parts, as a cascade, with counts; and no more passes than it needs."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from freqrobust import ImageData, evaluate, load_data, load_model
from freqrobust.models.fingerprint import state_hash
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks
from support.networks import tiny

pyautoattack = pytest.importorskip("pyautoattack", reason="the extra 'zoo' is not installed")
LENGTHS = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}
BUDGETS = [("linf", 4 / 255), ("l2", 0.3), ("l1", 2.0)]


class Counted(nn.Module):
    """Counts the images that go forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards = model, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += len(x)
        return self.model(x)


@pytest.fixture
def network() -> nn.Module:
    return tiny()[0].requires_grad_(False)


@pytest.fixture
def data() -> ImageData:
    return tiny()[1]


def build(spec: str):
    (plugin_spec,) = attacks.parse(spec)
    return plugin_spec.plugin


def whole(data):
    return data.batch(torch.arange(len(data)), torch.device("cpu"))


def far(found, images, norm):
    return torch.linalg.vector_norm((found - images).flatten(1).double(), ord=LENGTHS[norm], dim=1)


@pytest.fixture
def short(monkeypatch):
    """The library's parts with a few iterations."""
    original = pyautoattack.AutoAttack._set_version

    def fewer(self, version="standard"):
        original(self, version)
        for part in (self.apgd, self.apgd_targeted):
            part.n_iter = part.n_iter_orig = 8
            part.eot_iter = min(part.eot_iter, 2)
        self.fab.n_iter = 4
        self.square.n_queries = 30

    monkeypatch.setattr(pyautoattack.AutoAttack, "_set_version", fewer)


def direct(model, images, labels, norm, eps, version="standard", seed=0):
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    counted = Counted(model)
    with torch.random.fork_rng(devices=[]):
        library = pyautoattack.AutoAttack(
            counted, norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[norm], eps=eps, version=version, seed=seed
        )
        found, _ = library.run_standard_evaluation(images, labels, batch_size=len(images))
    return found, counted.forwards


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), BUDGETS)
@pytest.mark.parametrize("spec", ["autoattack", "autoattack:version=plus", "autoattack:version=rand"])
@pytest.mark.parametrize("goal", ["decide", "maximize"])
def test_contract(network, data, short, spec, norm, eps, goal, capsys) -> None:
    attack = build(f"{spec}{',' if ':' in spec else ':'}norm={norm},eps={eps}")
    assert attack.threat() == (norm, eps)
    images, labels, ids = whole(data)
    kept, before, state = images.clone(), state_hash(network), torch.get_rng_state()
    found = [attack.perturb(network, images, labels, AttackContext(ids, 2, goal)) for _ in range(2)]
    assert torch.equal(*found)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)
    assert state_hash(network) == before
    assert not any(module.training for module in network.modules())
    assert all(p.grad is None for p in network.parameters())
    assert far(found[0], images, norm).max() <= eps + 1e-6 * max(1, eps)
    assert found[0].min() >= 0
    assert found[0].max() <= 1
    assert not torch.equal(found[0], images)
    nothing = build(f"{spec}{',' if ':' in spec else ':'}norm={norm},eps=0")
    assert torch.equal(nothing.perturb(network, images, labels, AttackContext(ids, 0, goal)), images)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), BUDGETS)
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_is_what_the_library_finds_in_no_more_passes(network, data, short, norm, eps, version) -> None:
    """Same examples, bit for bit; the original's clean pass is ours, and its checks are left out."""
    images, labels, ids = whole(data)
    theirs, passes = direct(network, images, labels, norm, eps, version, seed=4)
    counted, context = Counted(network), AttackContext(ids, 4)
    ours = build(f"autoattack:norm={norm},eps={eps},version={version}").perturb(counted, images, labels, context)
    assert (ours - theirs).abs().max() <= 2e-6
    assert counted.forwards <= passes
    with torch.no_grad():
        assert sum(context.tally.values()) == int((network(ours).argmax(dim=1) != labels).sum())
    cell = evaluate(
        network, data, attacks=[f"autoattack:norm={norm},eps={eps},version={version}"], device="cpu", seed=4
    ).cells[1]
    assert cell.forwards <= passes + len(data)  # the pass that verifies


def test_counts_of_the_parts_are_in_the_report(network, data, short) -> None:
    cell = evaluate(network, data, attacks=["autoattack:eps=2/255"], device="cpu", batch_size=3).cells[1]
    assert cell.status == "ok", cell.error
    assert list(cell.breakdown) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert sum(cell.breakdown.values()) == cell.n - cell.correct


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "version", "left_out"),
    [
        (2, "standard", ["apgd-t"]),
        (3, "standard", ["apgd-t"]),
        (4, "standard", []),
        (2, "plus", ["apgd-dlr", "apgd-t"]),
        (3, "plus", ["apgd-t"]),
        (2, "rand", ["apgd-dlr"]),
        (3, "rand", []),
    ],
)
def test_few_classes_run_what_is_defined_and_say_so(small, short, classes, version, left_out) -> None:
    model, data = small(classes, 6)
    spec = f"autoattack:eps=1/255,version={version}"
    cell = evaluate(model, data, attacks=[spec], device="cpu", batch_size=4).cells[1]
    assert cell.status == "ok", cell.error
    expected = [f"not {version}: {classes} classes, without {', '.join(left_out)}"] if left_out else []
    assert cell.notes == expected  # once, although there are several batches
    assert not set(left_out) & set(cell.breakdown)
    assert len(cell.breakdown) + len(left_out) == {"standard": 4, "plus": 6, "rand": 2}[version]


def test_maximize_returns_an_example_for_every_sample(network, data, short) -> None:
    images, labels, ids = whole(data)
    attack = build("autoattack:eps=0.5/255")
    decided, most = (attack.perturb(network, images, labels, AttackContext(ids, 0, g)) for g in ("decide", "maximize"))
    with torch.no_grad():
        held = network(decided).argmax(dim=1) == labels
        assert held.any()
        loss = [nn.functional.cross_entropy(network(x), labels, reduction="none") for x in (decided, most)]
    assert torch.equal(most[~held], decided[~held])
    assert (loss[1][held] > loss[0][held]).all()
    assert (far(most, images, "linf")[held] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("eps", ["2/255"])
def test_resnet20_against_the_library_and_against_pgd(shared, eps) -> None:
    model = load_model(shared / "checkpoints" / "resnet20-12fca82f.th")
    data = load_data(str(shared / "data" / "cifar10" / "test_500.npz")).first(12)
    report = evaluate(model, data, attacks=[f"autoattack:eps={eps}", f"pgd:eps={eps},steps=20"], device="cpu")
    _, ours, pgd = report.cells
    assert ours.status == "ok", ours.error
    assert ours.correct <= pgd.correct
    images, labels, _ = whole(data)
    model.eval().requires_grad_(False)
    theirs, _ = direct(model, images, labels, "linf", build(f"pgd:eps={eps}").eps)
    with torch.no_grad():
        robust = int((model(theirs).argmax(dim=1) == labels).sum())
    assert abs(robust - ours.correct) <= 1
