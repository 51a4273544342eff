"""Verdicts: defenses that are known to deceive are found out, and those that do not are left alone."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import Attack, InputDefense, evaluate
from freqrobust.core.errors import SpecError
from freqrobust.core.progress import Silent
from freqrobust.harness.diagnosis.checks import FULL_CHECKS, grey
from freqrobust.harness.diagnosis.examination import _watched
from freqrobust.harness.diagnosis.examine import SAMPLES, SAMPLES_STOCHASTIC, Examined
from freqrobust.harness.diagnosis.indicators import Indicator
from freqrobust.harness.diagnosis.verdict import verdict
from freqrobust.numerics import noise
from freqrobust.numerics.threat import Norm, Threat
from freqrobust.plugins.registry import attacks
from freqrobust.results.diagnosis import Check
from support.waiting import PATIENCE

SPEC = "pgd:eps=0.1,steps=10"


class Rounds(InputDefense):
    """Has a gradient of zero and does not say so."""

    def transform(self, images):
        return (images * 8).round() / 8


class Noisy(InputDefense):
    """Draws from torch's generator and does not say so."""

    def transform(self, images):
        return images + 0.1 * torch.randn_like(images)


class Centred(InputDefense):
    """Lets the samples of a batch see each other."""

    def transform(self, images):
        return images - images.mean(dim=0, keepdim=True) + 0.5


class Jitter(InputDefense):
    """Random, and says so."""

    stochastic: ClassVar[bool] = True

    def transform(self, images):
        return images + 0.1 * noise.scoped_normal(images)


class Lazy(Attack):
    """Says that it attacks, and returns what it was given."""

    eps: float = 0.1
    norm: Norm = "linf"

    def perturb(self, model, images, labels, context):
        return images


def run(network, digits, specs=(SPEC,), depth="quick", **options):
    options = {"batch_size": 32, "oblivious": False, **options}
    return evaluate(network, digits, attacks=list(specs), device="cpu", diagnose=depth, **options)


def of(report, defense):
    return next(d for d in report.diagnostics if d.defense == defense)


def check(diagnosis, name):
    return next(c for c in diagnosis.checks if c.name == name)


@pytest.fixture(scope="module")
def full_rounds(trained, digits):
    """A run with full checks of the network alone and behind a defense without gradients; not to be changed."""
    return run(trained.eval().requires_grad_(False), digits, [SPEC], "full", defenses=[Rounds()])


@pytest.fixture(scope="module")
def full_alone(trained, digits):
    """The same without a defense."""
    return run(trained.eval().requires_grad_(False), digits, [SPEC], "full")


@pytest.mark.slow
@pytest.mark.parametrize("depth", ["quick", "full"])
def test_no_problem_is_found_with_honest_models(network, digits, depth) -> None:
    report = run(network, digits, ["pgd:eps=[0.05,0.1,0.2],steps=20"], depth, defenses=["lowpass:radius=3"])
    for diagnosis in report.diagnostics:
        assert diagnosis.verdict == "no problem found", diagnosis.sentence
        ran = sum(c.status == "passed" for c in diagnosis.checks)
        robust = re.escape(f" of 64 samples robust at {Threat('linf', diagnosis.threat.eps).text})")
        if depth == "quick":
            sentence = (
                rf"no problem found by 5 quick checks \(\d+{robust}; the only strong attack that was tried, "
                r"apgd:eps=0\.\d+,norm=linf,steps=20,targets=0,loss=margin, misclassified [0-3] more"
            )
        else:
            sentence = rf"no problem found by {ran} checks \(\d+{robust}"
        assert re.fullmatch(sentence, diagnosis.sentence), diagnosis.sentence
        assert diagnosis.depth == depth
    assert [d.defense for d in report.diagnostics] == ["undefended", "lowpass"]


@pytest.mark.slow
def test_hidden_gradients(network, digits, full_rounds) -> None:
    quick = of(run(network, digits, defenses=[Rounds()]), "Rounds")
    assert quick.verdict == "inconclusive"
    assert check(quick, "zero gradients").measured == 1
    found = of(full_rounds, "Rounds")
    assert found.verdict == "overestimated"
    assert found.sentence.startswith("overestimated by at least ")
    assert check(found, "transfer").status == "failed"
    assert check(found, "large eps").status == "failed"


def test_what_the_checks_break_counts_in_the_worst_case(full_rounds) -> None:
    full = full_rounds
    worst = next(w for w in full.worst_case if w.defense == "Rounds")
    broken = check(of(full, "Rounds"), "transfer").additional
    assert broken > 3
    assert worst.correct <= full.cell("Rounds/pgd").correct - broken
    assert not (worst.right() & ~full.cell("Rounds/pgd").right()).any()


@pytest.mark.parametrize("defense", [Noisy, Centred])
def test_outputs_that_change_between_calls_or_batches(network, digits, defense) -> None:
    found = of(run(network, digits, defenses=[defense()]), defense.__name__)
    repeats = check(found, "repeatability")
    assert (repeats.status, repeats.threshold) == ("failed", 0)
    assert repeats.measured > found.n / 2
    assert found.verdict in ("inconclusive", "not meaningful")


def test_declared_randomness_is_no_fault(network, digits) -> None:
    found = of(run(network, digits, defenses=[Jitter()]), "Jitter")
    assert check(found, "repeatability").status == "passed"
    assert found.verdict == "no problem found"
    assert found.n == SAMPLES_STOCHASTIC


class Linear(nn.Module):
    """Two classes; the logit difference is linear, so that the robust accuracy is known in closed form."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(pixels, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        score = (x.flatten(1) - 0.5) @ self.weight
        return torch.stack([-score, score], dim=1)


def test_a_weak_attack_is_found_out_by_the_number_known_in_closed_form() -> None:
    images = 0.3 + 0.4 * torch.rand(120, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    model = Linear(16)
    score = (images.flatten(1) - 0.5) @ model.weight.detach()
    labels = (score > 0).long()
    eps = 0.04  # every pixel stays inside of [0, 1]
    breakable = int((score.abs() < eps * model.weight.detach().abs().sum()).sum())
    report = run(model, (images, labels), [Lazy(eps=eps)], "full")
    found = report.diagnostics[0]
    assert breakable > 10
    assert check(found, "plain PGD").additional == breakable
    points = math.floor(1000 * breakable / 120) / 10
    assert (
        found.sentence
        == f"overestimated by at least {points:g} points: apgd:eps=0.04,norm=linf,steps=20,targets=0,loss=margin misclassified "
        f"{breakable} more of 120 samples at Linf 0.04"
    )
    assert report.worst_case[0].correct == 120 - breakable
    assert check(found, "single step").measured == 0
    assert check(found, "large eps").status == "passed"


def test_near_chance_and_constant_predictions_mean_nothing(network, digits) -> None:
    class Blank(InputDefense):
        """Every image is the same."""

        def transform(self, images):
            return torch.zeros_like(images) + 0 * images

    found = of(run(network, digits, defenses=[Blank()]), "Blank")
    assert found.verdict == "not meaningful"
    assert "no better than chance" in found.sentence
    mostly = digits.labels == digits.labels[0]
    images, labels = digits.images[mostly], digits.labels[mostly].clone()
    labels[0] = (labels[0] + 1) % 10  # two classes of labels, one of predictions
    constant = run(network, (images, labels)).diagnostics[0]
    assert constant.verdict == "not meaningful"


def test_the_quick_part_takes_three_passes_and_the_strong_attack_on_robust_samples(network, digits) -> None:
    """Three forward passes and a backward pass; of a robust sample 20 gradients, and the prediction of the example."""
    report = run(network, digits)
    found, robust = report.diagnostics[0], report.cell("pgd").correct
    strong = check(found, "strong attack")
    assert (found.n, strong.threshold) == (64, 3)
    assert found.n <= SAMPLES
    steps = found.backwards - 64
    assert 20 * (robust - strong.additional) <= steps <= 20 * robust
    assert found.forwards == 3 * 64 + steps + robust


def test_the_strong_attack_is_not_run_without_robust_samples(network, digits) -> None:
    found = run(network, digits, ["pgd:eps=0.5,steps=20"]).diagnostics[0]
    assert (found.forwards, found.backwards) == (3 * 64, 64)
    assert check(found, "strong attack").status == "not applicable"


def test_a_weak_attack_is_found_out_by_the_quick_checks(network, digits) -> None:
    found = run(network, digits, ["pgd:eps=0.1,steps=2,step_size=0.002"]).diagnostics[0]
    strong = check(found, "strong attack")
    points = math.floor(1000 * strong.additional / 64) / 10
    assert found.verdict == "overestimated"
    assert found.sentence == (
        f"overestimated by at least {points:g} points: {strong.attack} misclassified {strong.additional} more of 64 "
        "samples at Linf 0.1"
    )


def test_the_strong_attack_has_the_loss_of_the_criterion(network, digits) -> None:
    found = run(network, digits, criterion="topk:k=2").diagnostics[0]
    assert check(found, "strong attack").attack == "apgd:eps=0.1,norm=linf,steps=20,targets=0"
    assert check(found, "strong attack").status == "passed"


@pytest.mark.parametrize(("additional", "expected"), [(6, "no problem found"), (7, "overestimated")])
def test_the_strong_attack_may_misclassify_three_points(additional, expected) -> None:
    one = made(additional).model_copy(update={"attack": "apgd:eps=1/255", "threshold": 6, "unit": "samples"})
    name, sentence = verdict(Examined("quick", Threat("linf", 1 / 255), 200, 39, [one]), None)
    assert name == expected
    if expected == "overestimated":
        assert sentence.startswith("overestimated by at least 3.5 points: apgd:eps=1/255 misclassified 7 more of 200")
    else:
        assert sentence.endswith("; the only strong attack that was tried, apgd:eps=1/255, misclassified 6 more")


def test_softmax_and_inner_gradients_are_information(network, digits) -> None:
    class Softmax(nn.Module):
        def forward(self, x):
            return network(x).softmax(dim=1)

    class Searches(InputDefense):
        """Differentiates while it predicts."""

        def transform(self, images):
            with torch.enable_grad():
                x = images.detach().requires_grad_(True)
                torch.autograd.grad((x**2).sum(), x)
            return images

    assert check(run(Softmax(), digits).diagnostics[0], "softmax outputs").status == "information"
    found = of(run(network, digits, defenses=[Searches()]), "Searches")
    assert check(found, "gradients inside forward").status == "information"
    assert found.verdict == "no problem found"


def test_nothing_is_said_where_no_budget_was_measured(network, digits) -> None:
    assert run(network, digits, ["lfc:radius=3"]).diagnostics == []
    assert run(network, digits, depth=None).diagnostics == []


def test_the_threat_is_the_largest_at_which_something_holds(network, digits) -> None:
    report = run(network, digits, ["pgd:eps=[0.02,0.1,0.5],steps=10", "pgd:norm=l2,eps=0.5"])
    right = {cell.threat.eps: cell.correct for cell in report.cells if cell.threat and cell.threat.norm == "linf"}
    expected = max(eps for eps, correct in right.items() if correct > 0.05 * 64)
    assert report.diagnostics[0].threat.eps == expected
    assert report.diagnostics[0].threat.norm == "linf"


@pytest.mark.slow
def test_checks_do_not_see_what_a_sweep_hands_over(network, digits) -> None:
    alone = run(network, digits, ["pgd:eps=0.1,steps=20"], "full").diagnostics[0]
    swept = run(network, digits, ["pgd:eps=[0.05,0.1],steps=20"], "full").diagnostics[0]
    assert alone.threat == swept.threat
    for name in ("single step", "increasing eps", "large eps", "black box"):
        assert check(alone, name).measured == check(swept, name).measured


class Listening(Silent):
    def __init__(self) -> None:
        self.begun: list[str] = []

    def begin(self, label, total) -> None:
        self.begun.append(label)


@pytest.mark.slow
def test_they_are_resumed_like_any_cell(network, digits, tmp_path) -> None:
    first = run(network, digits, [SPEC], "full", run_dir=tmp_path)
    progress = Listening()
    second = run(network, digits, [SPEC], "full", run_dir=tmp_path, progress=progress)
    assert progress.begun == []
    assert second.diagnostics == first.diagnostics


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_batch_size_does_not_matter(network, digits, full_alone, size, monkeypatch) -> None:
    names = ["single step", "plain PGD", "noise", "zero gradients", "repeatability"]
    if size == 1:  # a few samples are enough where each is a batch; Square would take longer than all the others
        digits, original = digits.first(24), attacks.get

        def get(name):
            if name == "square":
                raise SpecError("not here")
            return original(name)

        monkeypatch.setattr(attacks, "get", get)
        full_alone = run(network, digits, [SPEC], "full")
    else:
        names.append("black box")
    found = run(network, digits, [SPEC], "full", batch_size=size).diagnostics[0]
    expected = full_alone.diagnostics[0]
    assert [check(found, n).measured for n in names] == [check(expected, n).measured for n in names]


@pytest.mark.slow
def test_an_attack_that_is_not_installed_is_not_applicable(network, digits, monkeypatch) -> None:
    original = attacks.get

    def get(name):
        if name == "square":
            raise SpecError("square needs a library: pip install 'freqrobust[zoo]'")
        return original(name)

    monkeypatch.setattr(attacks, "get", get)
    found = check(run(network, digits, [SPEC], "full").diagnostics[0], "black box")
    assert found.status == "not applicable"
    assert "freqrobust[zoo]" in found.reason


def test_a_diagnosis_that_fails_keeps_the_cells(network, digits, monkeypatch) -> None:
    def fails(*args):
        raise RuntimeError("no more")

    monkeypatch.setattr("freqrobust.harness.evaluate.examine", fails)
    report = run(network, digits)
    assert report.cell("pgd").status == "ok"
    assert report.diagnostics[0].verdict == "inconclusive"
    assert "no more" in report.diagnostics[0].sentence


def test_every_check_says_what_it_is(full_rounds) -> None:
    for diagnosis in full_rounds.diagnostics:
        assert max(Counter(c.name for c in diagnosis.checks).values()) == 1
        for one in diagnosis.checks:
            assert one.source
            assert one.reason
            if one.measured is not None:
                assert (one.measured > one.threshold) == (one.status == "failed")


def made(beyond: int, status="passed") -> Check:
    return Check(
        name="black box", status=status, measured=beyond, threshold=3, additional=beyond, source="x", reason="y"
    )


@pytest.mark.parametrize(
    ("n", "beyond", "expected"),
    [(200, 3, "no problem found"), (200, 4, "overestimated"), (500, 5, "no problem found"), (500, 6, "overestimated")],
)
def test_more_than_one_percent_and_more_than_three(n, beyond, expected) -> None:
    examined = Examined("full", Threat("linf", 8 / 255), n, 100, [made(beyond)])
    assert verdict(examined, None)[0] == expected
    assert verdict(examined, "chance")[0] == "not meaningful"


def test_a_failed_check_that_misclassified_no_more_samples_is_inconclusive() -> None:
    examined = Examined("full", Threat("linf", 8 / 255), 200, 100, [made(0, "failed")])
    assert verdict(examined, None) == ("inconclusive", "inconclusive: black box: y")


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_image_can_become_grey(norm) -> None:
    images = np.concatenate([np.zeros((1, 12)), np.ones((1, 12)), np.random.default_rng(0).random((50, 12))])
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    lengths = np.linalg.norm(images - 0.5, ord=order, axis=1)
    assert lengths.max() == pytest.approx(grey(norm, 12))


@pytest.mark.parametrize(("eps", "verdict"), [(0.001, "inconclusive"), (0.1, "overestimated")])
def test_without_a_gradient_based_attack_it_depends_on_the_strong_attack(network, digits, eps, verdict) -> None:
    found = run(network, digits, [f"noise:eps={eps},draws=1"]).diagnostics[0]
    assert check(found, "gradient-based attacks").status == "failed"
    assert (check(found, "strong attack").additional > 3) == (verdict == "overestimated")
    assert found.verdict == verdict


def test_attacks_that_received_no_gradient(network, digits) -> None:
    """Logits of a large scale: the cross-entropy saturates, while the margin keeps its gradient."""

    class Scaled(nn.Module):
        def forward(self, x):
            return 1e4 * network(x)

    found = run(Scaled(), digits, ["pgd:eps=0.1,steps=20"]).diagnostics[0]
    assert check(found, "zero gradients").status == "passed"
    assert check(found, "gradient-based attacks").status == "failed"


@pytest.mark.slow
def test_one_check_that_cannot_run_costs_no_other(network, digits, monkeypatch) -> None:
    from freqrobust.attacks.fgsm import FGSM

    def fails(*args):
        raise ZeroDivisionError("no")

    monkeypatch.setattr(FGSM, "perturb", fails)
    found = of(run(network, digits, [SPEC], "full", defenses=[Rounds()]), "Rounds")
    assert check(found, "single step").status == "not applicable"
    assert "ZeroDivisionError: no" in check(found, "single step").reason
    assert found.verdict == "overestimated"


def test_all_checks_together(full_rounds) -> None:
    report = full_rounds
    found = of(report, "Rounds")
    together = check(found, "all checks combined")
    assert together.additional >= max(c.additional for c in found.checks if c.additional is not None)
    worst = next(w for w in report.worst_case if w.defense == "Rounds")
    assert worst.correct == report.cell("Rounds/pgd").correct - together.additional  # all 64 were looked at


def test_samples_of_one_class_are_not_chance(network, digits) -> None:
    one = digits.labels == 3
    report = run(network, (digits.images[one], digits.labels[one]))
    assert "near-chance-accuracy" not in {w.code for w in report.warnings}
    assert report.diagnostics[0].sentence.endswith("at least 20 are needed")


def test_full_checks_that_found_nothing_to_check_are_said(network, digits) -> None:
    report = run(network, digits, ["lfc:radius=3"], "full")
    assert [w.code for w in report.warnings] == ["not-diagnosed"]


def test_randomness_that_is_declared_but_not_keyed(network, digits) -> None:
    class Unkeyed(Noisy):
        stochastic: ClassVar[bool] = True

    found = of(run(network, digits, defenses=[Unkeyed()]), "Unkeyed")
    assert check(found, "repeatability").status == "failed"
    assert "freqrobust.noise" in check(found, "repeatability").reason


def test_outputs_that_change_come_before_everything_else() -> None:
    changing = Check(
        name="repeatability", status="failed", measured=9, threshold=0, source="x", reason="outputs change"
    )
    examined = Examined("full", Threat("linf", 8 / 255), 200, 100, [made(50, "failed"), changing])
    assert verdict(examined, None) == ("inconclusive", "inconclusive: outputs change")


def test_with_no_robust_sample_there_is_nothing_to_check(network, digits) -> None:
    found = run(network, digits, ["pgd:eps=0.5,steps=20"], "full").diagnostics[0]
    assert (found.verdict, found.sentence) == (
        "nothing to check",
        "nothing to check: 0 of 64 samples robust at Linf 0.5",
    )
    threat = Threat("linf", 8 / 255)
    for n in (5, 200):  # not even failed checks or few samples matter then
        assert verdict(Examined("quick", threat, n, 0, [made(0, "failed")]), None)[0] == "nothing to check"
    assert verdict(Examined("full", threat, 200, 0, [made(50)]), None)[0] == "overestimated"


def test_checks_that_were_run_are_counted() -> None:
    rows = [made(0), made(0), made(0, "not applicable"), made(0, "information")]
    threat = Threat("linf", 1 / 255)
    quick = "no problem found by 2 quick checks (39 of 200 samples robust at Linf 1/255)"
    assert verdict(Examined("quick", threat, 200, 39, rows), None)[1] == (
        f"{quick}; not tested with strong attacks, run --diagnose"
    )
    full = "no problem found by 2 checks (39 of 200 samples robust at Linf 1/255)"
    without_attacks = verdict(Examined("full", threat, 200, 39, rows), None)[1]
    assert without_attacks == f"{full}; not tested with strong attacks"
    rows[0].attack = "square:eps=1/255"
    assert verdict(Examined("full", threat, 200, 39, rows), None)[1] == full


def test_a_transfer_is_said_to_be_one() -> None:
    one = made(9).model_copy(update={"attack": "pgd:eps=1/255", "transferred": True})
    assert verdict(Examined("full", Threat("linf", 1 / 255), 200, 39, [one]), None)[1] == (
        "overestimated by at least 4.5 points: pgd:eps=1/255, transferred from the undefended model, misclassified 9 more of 200 samples "
        "at Linf 1/255"
    )


def test_every_check_is_listed_where_none_can_be_run(network, digits, monkeypatch) -> None:
    original = attacks.get

    def get(name):
        if name == "pgd":
            raise SpecError("no pgd here")
        return original(name)

    plugin_spec = attacks.parse(SPEC)[0].plugin
    monkeypatch.setattr(attacks, "get", get)
    found = run(network, digits, [plugin_spec], "full").diagnostics[0]
    missing = {c.name: c for c in found.checks if c.status == "not applicable"}
    expected = [c for c in FULL_CHECKS if not isinstance(c, Indicator)]  # these watch the attack of the report
    assert list(missing) == [c.name for c in expected]
    assert {name: c.source for name, c in missing.items()} == {c.name: c.source for c in expected}
    assert missing.pop("transfer").reason
    assert {c.reason for c in missing.values()} == {"no pgd here"}


@pytest.mark.slow
def test_an_attack_is_run_once_for_all_checks(network, digits) -> None:
    progress = Listening()
    run(network, digits, [SPEC], "full", progress=progress)
    begun = [label for label in progress.begun if label.startswith("checking")]
    plain = [label for label in begun if label.startswith("checking undefended, pgd:") and label.endswith(",steps=20")]
    assert len(set(begun)) == len(begun)
    assert [label.split(", ")[-1] for label in begun].count("with averaged gradients") == 1
    assert f"checking undefended, {SPEC}, watched at every step" in begun
    assert len(plain) == 4  # at half, once and twice the budget, and at mid-grey


@pytest.mark.slow
def test_what_only_the_checks_misclassified_is_counted(network, digits) -> None:
    full = run(network, digits, [SPEC], "full", defenses=[Rounds()])
    quick = run(network, digits, [SPEC], defenses=[Rounds()])
    worst, before = (next(w for w in r.worst_case if w.defense == "Rounds") for r in (full, quick))
    assert worst.by_checks == before.correct + before.by_checks - worst.correct
    assert worst.by_checks > 3
    assert worst.correct == full.cell("Rounds/pgd").correct - worst.by_checks
    without = evaluate(network, digits, attacks=[SPEC], device="cpu", diagnose=None).worst_case[0]
    assert without.by_checks == 0


def test_autograd_is_put_back_after_threads_and_errors() -> None:
    originals = torch.autograd.grad, torch.autograd.backward
    entered, leave, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        with _watched() as calls:
            entered.set()
            assert leave.wait(PATIENCE)
            x = torch.ones(1, requires_grad=True)
            (2 * x).sum().backward()
            torch.autograd.grad((2 * x).sum(), x)
            seen.extend(calls)

    def fails() -> None:
        with _watched() as mine:
            assert mine == []
            raise ZeroDivisionError

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(PATIENCE)
    x = torch.ones(1, requires_grad=True)
    torch.autograd.grad((2 * x).sum(), x)  # of another thread: not recorded
    leave.set()
    with pytest.raises(ZeroDivisionError):
        fails()  # waits for the other thread, so that neither restores what the other one set
    thread.join()
    assert seen == ["backward", "grad"]
    assert (torch.autograd.grad, torch.autograd.backward) == originals


def test_nothing_of_the_test_framework_is_imported() -> None:
    import freqrobust

    folder = Path(freqrobust.__file__).parent
    assert [
        path.name for path in folder.rglob("*.py") if re.search(r"^\s*(from|import) unittest", path.read_text())
    ] == []
