"""Criteria: what counts as adversarial, against closed forms on linear models and a reference in NumPy."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import Criterion, evaluate
from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.harness.target_model import TargetModel
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks, criteria
from freqrobust.plugins.selection import parse_criterion
from freqrobust.results.reporter import reports

ROOT = Path(__file__).resolve().parents[2]
PIXELS, EPS = 27, 0.03
SPECS = ["misclassification", "targeted:3", "targeted:next", "topk:1", "topk:3"]


def criterion(spec: str) -> Criterion:
    return parse_criterion(spec).plugin


def scores(n: int = 400, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal((n, classes))), torch.from_numpy(rng.integers(0, classes, n))


def succeeded(spec: str, row: np.ndarray, label: int) -> bool:
    """The definition, one sample at a time."""
    order = np.argsort(-row)
    name, _, value = spec.partition(":")
    if name == "targeted":
        target = (label + 1) % len(row) if value == "next" else int(value)
        return order[0] == target != label
    return label not in order[: int(value or 1)]


@pytest.mark.parametrize("spec", SPECS)
def test_decisions_are_those_of_the_definition(spec) -> None:
    logits, labels = scores()
    found = criterion(spec).is_adversarial(logits, labels)
    expected = [succeeded(spec, row, label) for row, label in zip(logits.numpy(), labels.tolist(), strict=True)]
    assert found.tolist() == expected
    assert 0 < sum(expected) < len(expected)


@pytest.mark.parametrize("spec", [*SPECS, *(name for name in criteria.names() if name not in ("targeted", "topk"))])
def test_the_margin_is_positive_where_a_sample_is_adversarial(spec) -> None:
    logits, labels = scores()
    if spec == "targeted:3":  # nothing to reach where the label is the target
        logits, labels = logits[labels != 3], labels[labels != 3]
    found = criterion(spec)
    assert torch.equal(found.margin(logits, labels) > 0, found.is_adversarial(logits, labels))


@pytest.mark.parametrize("spec", SPECS)
def test_correct_samples_are_not_adversarial(spec) -> None:
    logits, labels = scores()
    found = criterion(spec)
    assert not (found.is_correct(logits, labels) & found.is_adversarial(logits, labels)).any()


def test_a_class_without_votes_is_never_among_the_largest() -> None:
    votes, labels = torch.tensor([[0.0, 11, 0, 0], [1, 10, 0, 0]]), torch.tensor([0, 0])
    assert criterion("topk:2").is_correct(votes, labels).tolist() == [False, True]


class Fixed(nn.Module):
    """Logits that are known, whatever the images are."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits + 0 * x.flatten(1).sum(dim=1, keepdim=True)


@pytest.mark.parametrize("spec", SPECS)
def test_nan_is_never_correct_and_always_adversarial(spec) -> None:
    logits = torch.tensor([[5.0, 0, 0, 0, 0, 0], [float("nan"), 0, 0, 0, 0, 0], [0, float("nan"), 0, 0, 0, 0]])
    images, ids, labels = torch.rand(3, 1, 2, 2), torch.arange(3), torch.zeros(3, dtype=torch.int64)
    for votes in (1, 3):
        model = Fixed(logits)
        target = TargetModel(
            model, model, images, device=torch.device("cpu"), votes=votes, criterion=criterion(spec)
        ).predict(images, ids)
        assert target.is_correct(labels).tolist() == [True, False, False]
        assert target.is_adversarial(labels).tolist() == [False, True, True]


class InTurn(nn.Module):
    """Another class has the largest logit at every call."""

    def __init__(self, classes: list[int]) -> None:
        super().__init__()
        self.classes = iter(classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full((len(x),), next(self.classes)), 6).float()


@pytest.mark.parametrize(
    ("spec", "correct", "adversarial"),
    [
        ("misclassification", {2}, {0, 1, 3, 4, 5}),
        ("targeted:2", {2}, {0, 1, 3, 4, 5}),
        ("targeted:next", {2}, {1}),
        ("topk:2", {2, 4}, {0, 1, 3, 5}),
        ("topk:3", {0, 2, 4}, {1, 3, 5}),
    ],
)
def test_a_stochastic_defense_is_judged_by_its_votes(spec, correct, adversarial) -> None:
    """Three votes for class 2, two for class 4, one for class 0: for every label."""
    model, images = InTurn([0, 2, 4, 2, 4, 2]), torch.rand(6, 1, 2, 2)
    target = TargetModel(model, model, images, device=torch.device("cpu"), votes=6, criterion=criterion(spec))
    prediction = target.predict(images, torch.arange(6))
    assert prediction.classes.tolist() == [2] * 6
    assert set(prediction.is_correct(torch.arange(6)).nonzero()[:, 0].tolist()) == correct
    assert set(prediction.is_adversarial(torch.arange(6)).nonzero()[:, 0].tolist()) == adversarial


# -- linear models --------------------------------------------------------------------------------------------


def line(classes: int = 10) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Logits ``s_k (v . x) + b_k`` with ascending slopes ``s_k``; the direction ``v``, and images."""
    rng = np.random.default_rng(3)
    v = torch.from_numpy(rng.standard_normal(PIXELS).astype(np.float32))
    layer = nn.Linear(PIXELS, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, classes)[:, None] * v)
        layer.bias.copy_(torch.from_numpy((0.1 * rng.standard_normal(classes)).astype(np.float32)))
    images = torch.from_numpy(rng.uniform(0.3, 0.7, (64, 3, 3, 3)).astype(np.float32))
    images -= (images.flatten(1) @ v / v.square().sum())[:, None].mul(v).view_as(images) * 0.9  # around the boundary
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False), v, images.clamp(EPS, 1 - EPS)


#: Along the line every margin below is monotone: so it is largest at ``x + eps * direction * sign(v)``.
MONOTONE = [("topk:3", 0, 1), ("topk:3", 9, -1), ("topk:5", 0, 1), ("targeted:9", 0, 1), ("targeted:0", 5, -1)]


@pytest.mark.parametrize(("spec", "label", "direction"), MONOTONE)
@pytest.mark.parametrize("attack", [f"pgd:eps={EPS},steps=40", f"fgsm:eps={EPS}"])
def test_the_margin_reaches_the_closed_form(spec, label, direction, attack) -> None:
    model, v, images = line()
    labels = torch.full((64,), label)
    optimal = images + EPS * direction * v.sign().view(1, 3, 3, 3)
    context = AttackContext(torch.arange(64), 0, "maximize", criterion(spec))
    found = attacks.parse(attack)[0].plugin.perturb(model, images, labels, context)
    margin = context.criterion.margin
    torch.testing.assert_close(margin(model(found), labels), margin(model(optimal), labels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("spec", "label", "direction"), MONOTONE)
def test_robust_samples_are_those_of_the_closed_form(spec, label, direction) -> None:
    """Stopping early and the predictions of the harness decide alike, also in an eps sweep."""
    model, v, images = line()
    found = criterion(spec)
    labels = torch.full((64,), label)
    budgets = [EPS / 4, EPS]
    report = evaluate(
        model, (images, labels), attacks=[f"pgd:eps={eps},steps=40" for eps in budgets], criterion=spec, device="cpu"
    )
    correct = found.is_correct(model(images), labels)
    assert report.criterion == parse_criterion(spec).spec
    assert report.cell("clean").correct == int(correct.sum())
    for eps in budgets:
        optimal = images + eps * direction * v.sign().view(1, 3, 3, 3)
        robust = correct & ~found.is_adversarial(model(optimal), labels)
        assert report.cell(f"pgd:eps={eps}").right().tolist() == robust.tolist()


def test_two_classes_reach_the_closed_form_of_the_target() -> None:
    """The margin to the target grows by ``eps * ||w_t - w_y||_1``."""
    rng = np.random.default_rng(1)
    weight = torch.from_numpy(rng.standard_normal((2, PIXELS)).astype(np.float32))
    images = torch.from_numpy(rng.uniform(0.3, 0.7, (32, 3, 3, 3)).astype(np.float32))
    labels = torch.arange(32) % 2

    def model(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ weight.T

    context = AttackContext(torch.arange(32), 0, "maximize", criterion("targeted:next"))
    found = attacks.parse(f"pgd:eps={EPS},steps=40")[0].plugin.perturb(model, images, labels, context)
    other = 1 - labels
    logits = model(images)
    before = logits.gather(1, other[:, None]) - logits.gather(1, labels[:, None])
    best = before[:, 0] + EPS * (weight[1] - weight[0]).abs().sum()
    torch.testing.assert_close(context.criterion.margin(model(found), labels), best, rtol=1e-4, atol=1e-4)


# -- evaluate -------------------------------------------------------------------------------------------------

SMALL = [
    "pgd:eps=[0.01,0.03],steps=4,restarts=2",
    "fgsm:eps=0.02",
    "noise:eps=0.05,draws=3",
    "fourier:eps=0.02,samples=4",
]


def everything(spec: str, **options) -> dict[str, list[bool]]:
    model, _, images = line()
    labels = model(images).argmax(dim=1)
    labels[:8] = model(images)[:8].topk(2, dim=1).indices[:, 1]
    options = {"attacks": [*SMALL, "lfc:radius=1"], "oblivious": False, "device": "cpu", **options}
    report = evaluate(model, (images, labels), criterion=spec, **options)
    return {f"{cell.defense_spec} {cell.attack_spec}": cell.right().tolist() for cell in report.cells}


def test_the_largest_one_is_misclassification() -> None:
    """``topk:1`` takes the other way through the code: its own margins and decisions, on what both are shown."""
    plain = everything("misclassification", defenses=["bit-depth:bits=5"])
    same = everything("topk:1", defenses=["bit-depth:bits=5"])
    assert plain.keys() == same.keys()
    compared = [name for name in plain if "fgsm" not in name and "pgd" not in name]  # those two maximise another loss
    assert {name: same[name] for name in compared} == {name: plain[name] for name in compared}
    assert len(compared) == 8
    assert 0 < sum(plain["undefended noise:eps=0.05,draws=3"]) < sum(plain["undefended clean"]) == 56


def test_cells_of_another_criterion_are_not_taken_from_the_journal(tmp_path) -> None:
    plain = everything("misclassification", run_dir=tmp_path)
    top = everything("topk:4", run_dir=tmp_path)
    assert sum(top["undefended clean"]) == 64 > sum(plain["undefended clean"])
    assert top == everything("topk:4")
    assert plain == everything("misclassification", run_dir=tmp_path)


def test_chance_is_that_of_the_largest_score_alone() -> None:
    model, _, images = line()
    data = images, model(images).argmax(dim=1)
    for spec, known in [("misclassification", True), ("targeted:next", True), ("topk:3", False)]:
        report = evaluate(model, data, attacks=["lfc:radius=1"], criterion=spec, device="cpu")
        assert (report.cell("lfc").chance_accuracy is not None) == known


def test_full_diagnosis_leaves_out_what_the_criterion_does_not_allow() -> None:
    model, _, images = line()
    data = images, model(images).argmax(dim=1)
    report = evaluate(
        model, data, attacks=["pgd:eps=0.01,steps=5"], criterion="targeted:next", diagnose="full", device="cpu"
    )
    checks = {check.name: check for check in report.diagnostics[0].checks}
    for name in ("another loss", "large eps"):
        assert checks[name].status == "not applicable"
        assert "misclassification" in checks[name].reason
    for name in ("noise", "plain PGD", "single step", "black box", "more steps", "increasing eps"):
        assert checks[name].status == "passed", checks[name]


def test_reports_name_a_criterion_that_is_not_the_default() -> None:
    model, _, images = line()
    data = images, model(images).argmax(dim=1)
    for spec, shown in [("misclassification", False), ("topk:3", True)]:
        target = io.StringIO()
        reports.get("table")().render(evaluate(model, data, attacks=["clean"], criterion=spec, device="cpu"), target)
        assert (f"criterion {parse_criterion(spec).spec}" in target.getvalue()) == shown


@pytest.mark.parametrize(
    ("spec", "attack", "message"),
    [
        ("topk:10", "pgd", "k should be less than the number of classes (10)"),
        ("targeted:10", "pgd", "target is 10, but the model has the classes 0 to 9"),
        ("topk", "torchattacks:PGD", "torchattacks:PGD supports only the criterion misclassification, not topk"),
        ("misclasification", "pgd", "did you mean 'misclassification'?"),
        ("topk:[1,2]", "pgd", "expected one criterion"),
    ],
)
def test_what_does_not_suit_is_refused(spec, attack, message) -> None:
    if attack.startswith("torchattacks"):
        pytest.importorskip("torchattacks")
    model, _, images = line()
    with pytest.raises(SpecError, match=re.escape(message)):
        evaluate(model, (images, torch.zeros(64, dtype=torch.int64)), attacks=[attack], criterion=spec, device="cpu")


def test_an_attack_says_that_it_asks_the_criterion() -> None:
    """An attack that ignores the criterion would stop too early: unless it says otherwise it is refused."""

    class Blind(Attack):
        def perturb(self, model, images, labels, context):
            return images

    class Asking(Blind):
        any_criterion = True

    model, _, images = line()
    data = images, torch.zeros(64, dtype=torch.int64)
    assert evaluate(model, data, attacks=[Asking()], criterion="topk:3", device="cpu").status == "complete"
    with pytest.raises(FreqRobustError, match="Blind supports only the criterion misclassification"):
        evaluate(model, data, attacks=[Blind()], criterion="topk:3", device="cpu")


#: A prediction beside labels: success is for the criterion to decide.
COMPARED = re.compile(
    r"(argmax\([^)]*\)|\bclasses|\bpredictions|\.predict\(.*?\)(\[0\])?)\)?\s*[!=]=\s*[\w.]*labels"
    r"|labels\)?\s*[!=]=\s*[\w.(]*(argmax|classes|predictions|predict\()"
)
#: Saved sets keep the predicted classes alone, and say how many are misclassified.
EXEMPT = {"harness/verify.py": "saved.predictions != saved.labels"}


def test_no_module_compares_predictions_with_labels_by_itself() -> None:
    found = []
    for folder in ("freqrobust/harness", "freqrobust/analyses", "attacks", "defenses"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT / folder.split("/")[0]).as_posix()
            for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if COMPARED.search(text) and EXEMPT.get(name, "\0") not in text:
                    found.append(f"{name}:{number}: {text.strip()}")
    assert not found
    assert COMPARED.search("broken = (classes != labels).cpu()")
    assert COMPARED.search("fooled = logits.argmax(dim=1) != labels[active]")
    assert COMPARED.search("int((target_model.predict(images, ids)[0] == labels).sum())")
