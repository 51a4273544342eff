"""The checks of ``freqrobust.testing`` find wrong plugins: at least one for each rule, and pass a right one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from freqrobust import (
    Analysis,
    AnalysisContext,
    AnalysisResult,
    AnalysisTable,
    Attack,
    AttackContext,
    Defense,
    DefenseContext,
    FreqRobustError,
    ImageData,
    InputDefense,
    Number,
    Report,
    Reporter,
)
from freqrobust.core.errors import PluginError
from freqrobust.testing import (
    analysis_checks,
    attack_checks,
    check_attack,
    check_defense,
    check_reporter,
    defense_checks,
    reporter_checks,
)
from freqrobust.testing.analysis_rules import ANALYSES
from freqrobust.testing.attack_rules import ATTACKS
from freqrobust.testing.defense_rules import DEFENSES
from freqrobust.testing.report_rules import REPORTS
from freqrobust.testing.rules import Contract, ContractError

#: Goes on from call to call, as a clock does.
CALLS = iter(range(10**6))
DOCS = Path(__file__).parents[2] / "docs"


class Step(Attack):
    """One step along the sign of the gradient; right, and the base of the wrong ones."""

    norm: ClassVar[str] = "linf"
    eps: Number = Field("8/255", ge=0, validate_default=True, description="budget")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        return (images + self.eps * self.direction(model, images, labels)).clamp(0, 1)

    def direction(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)
        return gradient.sign()


def attack(change: Callable[..., torch.Tensor], **attributes: Any) -> Attack:
    """The right attack with another ``perturb(right, model, images, labels, context)``."""

    def perturb(self: Any, model: Any, images: Any, labels: Any, context: Any) -> Any:
        return change(lambda: Step.perturb(self, model, images, labels, context), model, images, labels, context)

    made: Attack = type("Wrong", (Step,), {"__doc__": "A wrong attack.", "perturb": perturb, **attributes})()
    return made


def lower(right: Any, model: Any, images: Any, labels: Any, context: Any) -> Any:
    """For goal="maximize", what lowers the loss."""
    return right() if context.goal == "decide" else (2 * images - right()).clamp(0, 1)


def count_batches(right: Any, model: Any, images: Any, labels: Any, context: Any) -> Any:
    for _ in range(16 // len(images)):
        model(images)
    return right()


class NoNorm(Attack):
    """A budget of no norm."""

    eps: Number = Field(0.1, ge=0, description="budget")

    def perturb(self, model: Any, images: Any, labels: Any, context: Any) -> Any:
        return images


class Undescribed(Step):
    """A parameter without a description."""

    steps: int = 3


ATTACK_BUGS: dict[str, tuple[Attack, str, str]] = {
    "undescribed": (Undescribed(), "declaration", "the parameter 'steps' has no description"),
    "no norm": (NoNorm(), "declaration", "has a field 'eps', but no norm"),
    "no tensor": (attack(lambda right, *_: None), "output", "should be a tensor, but got NoneType"),
    "shape": (
        attack(lambda right, *_: right()[:, :1]),
        "output",
        "should have the shape (16, 3, 8, 8), but has (16, 1, 8, 8)",
    ),
    "dtype": (attack(lambda right, *_: right().double()), "output", "should be float32, but got float64"),
    "NaN": (attack(lambda right, *_: right() / 0 * 0), "output", "should be finite, but"),
    "range": (
        attack(lambda right, model, images, *_: images - 1e-3),
        "output",
        "should be in [0, 1], but have values from -0.0",
    ),
    "larger budget": (
        attack(lambda right, model, images, *_: (images + 2 * (right() - images)).clamp(0, 1)),
        "output",
        "should exceed its budget of Linf 0.0313725, but that of sample",
    ),
    "raises": (attack(lambda right, *_: 1 // 0), "output", "it raised ZeroDivisionError"),
    "least budget": (
        attack(lambda right, model, images, *_: (images + 0.01).clamp(0, 1)),
        "budgets",
        "should exceed its budget of Linf 0.00392157",
    ),
    "nothing": (attack(lambda right, model, images, *_: images), "budgets", "it should change some image"),
    "at eps = 0": (
        attack(lambda right, model, images, *_: (right() + 1e-3).clamp(0, 1)),
        "zero_budget",
        "should be returned as they are, but sample 0 differs by 0.001",
    ),
    "global randomness": (
        attack(lambda right, model, images, *_: (images + (right() - images) * torch.rand(images.shape)).clamp(0, 1)),
        "randomness",
        "it uses the global random generator of torch",
    ),
    "global seed": (
        attack(lambda right, *_: (torch.manual_seed(0), right())[1]),
        "randomness",
        "it uses the global random generator of torch",
    ),
    "clock": (
        attack(lambda right, *_: (right() - 1e-4 * next(CALLS)).clamp(0, 1)),
        "randomness",
        "two runs with the same seed should be equal, but sample 0 differs",
    ),
    "mean of the batch": (
        attack(
            lambda right, model, images, *_: (model((images + images.mean(0)) / 2), right())[1]  # shown to the model
        ),
        "batches",
        "in batches of 1 in another order, the first images that the model is given should be the same bits",
    ),
    "passes": (attack(count_batches), "batch_sizes", "these should be the same numbers"),
    "in place": (
        attack(lambda right, model, images, *_: images.copy_(right())),
        "inputs_untouched",
        "it changes the images that it is given in place",
    ),
    "labels in place": (
        attack(lambda right, model, images, labels, context: (right(), labels.zero_())[0]),
        "inputs_untouched",
        "it changes the labels that it is given in place",
    ),
    "weights": (
        attack(lambda right, model, *_: (right(), next(model.parameters()).mul_(1.001))[0]),
        "inputs_untouched",
        "it changes parameters or buffers of the model",
    ),
    "train mode": (
        attack(lambda right, model, *_: (right(), model.train())[0]),
        "inputs_untouched",
        "it puts modules of the model into train mode",
    ),
    "hooks": (
        attack(lambda right, model, *_: (model.register_forward_hook(lambda *_: None), right())[1]),
        "inputs_untouched",
        "it leaves hooks in the model",
    ),
    "lower loss": (attack(lower), "goals", "the mean cross-entropy should be at least"),
    "one shape": (
        attack(lambda right, model, images, *_: right() if images.shape[1] == 3 else right().view(-1, 3, 8, 8)),
        "image_shapes",
        "images of the shape (1, 7, 5) should be attacked, or refused by check_data",
    ),
}


class Right(Defense):
    """Logits times a constant."""

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        return Around(copy.deepcopy(model), lambda model, x: 0.5 * model(x))


class Around(nn.Module):
    """A model, and what is made of it."""

    def __init__(self, model: nn.Module, forward: Callable[[nn.Module, torch.Tensor], Any]) -> None:
        super().__init__()
        self.model, self.changed = model, forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.changed(self.model, x)


def defense(forward: Callable[[nn.Module, torch.Tensor], Any], copied: bool = True, **attributes: Any) -> Defense:
    """A defense whose model computes ``forward(model, x)``."""

    def apply(self: Any, model: nn.Module, context: Any) -> nn.Module:
        return Around(copy.deepcopy(model) if copied else model, forward)

    made: Defense = type("Wrong", (Defense,), {"__doc__": "A wrong defense.", "apply": apply, **attributes})()
    return made


def changes_weights(self: Any, model: nn.Module, context: Any) -> nn.Module:
    with torch.no_grad():
        next(model.parameters()).mul_(0.5)
    return nn.Sequential(model)


def trains_on_nothing(self: Any, model: nn.Module, context: Any) -> nn.Module:
    return nn.Sequential(copy.deepcopy(model))


class InPlace(InputDefense):
    """Darkens the images that it is given."""

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            images.mul_(0.9)
        return images


class Cropped(InputDefense):
    """Smaller images."""

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        return images[..., 1:]


class Rounded(InputDefense):
    """Rounds, and does not say that it has no useful gradient."""

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        return (images * 15).round() / 15


class ForgedGradient(torch.autograd.Function):
    """The identity, with half of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] / 2


def wrong_class(name: str, base: type[Defense], **attributes: Any) -> Defense:
    made: Defense = type(name, (base,), {"__doc__": "A wrong defense.", **attributes})()
    return made


DEFENSE_BUGS: dict[str, tuple[Defense, str, str]] = {
    "no docstring": (wrong_class("Wrong", Right, __doc__=None), "declaration", "the class has no docstring"),
    "weights": (
        wrong_class("Wrong", Defense, apply=changes_weights),
        "model_untouched",
        "apply() changes parameters or buffers",
    ),
    "same model": (
        wrong_class("Wrong", Defense, apply=lambda self, model, context: model),
        "model_untouched",
        "returned the one that it was given; work on copy.deepcopy(model)",
    ),
    "modes": (
        wrong_class("Wrong", Defense, apply=lambda self, model, context: nn.Sequential(model.eval())),
        "model_untouched",
        "apply() changes train and eval modes",
    ),
    "no module": (
        wrong_class("Wrong", Defense, apply=lambda self, model, context: "model"),
        "model_untouched",
        "apply() should return an nn.Module, but returned str",
    ),
    "state while used": (
        defense(lambda model, x: (model.train()(x), model.eval()(x))[1], copied=False),
        "model_untouched",
        "using the defended model changes parameters or buffers",
    ),
    "logits": (defense(lambda model, x: model(x)[:, :4]), "output", "should have the shape (16, 10), but has (16, 4)"),
    "tuple": (defense(lambda model, x: (model(x),)), "output", "should be a tensor, but got tuple"),
    "NaN": (defense(lambda model, x: model(x).log()), "output", "should be finite"),
    "dtype": (defense(lambda model, x: model(x).double()), "output", "should be float32, but got float64"),
    "images in place": (InPlace(), "output", "transform() changes the images in place"),
    "image shape": (
        Cropped(),
        "output",
        "transform() returns should have the shape (16, 3, 8, 8), but has (16, 3, 8, 7)",
    ),
    "global randomness": (
        defense(lambda model, x: model(x + 0.1 * torch.randn_like(x)), stochastic=True),
        "randomness",
        "it uses the global random generator of torch",
    ),
    "undeclared randomness": (
        defense(lambda model, x: model(x + 0.1 * noise_of(x))),
        "randomness",
        "stochastic is False, but with another seed sample 0 differs",
    ),
    "mean of the batch": (
        defense(lambda model, x: model(x - x.mean(dim=0))),
        "batches",
        "an image alone should have the logits that it has in a batch of 8, but sample 0 differs",
    ),
    "no gradient": (Rounded(), "gradients", "set differentiable = False"),
    "forged gradient": (
        defense(lambda model, x: model(ForgedGradient.apply(x))),
        "gradients",
        "set differentiable = False if the backward pass is not exact",
    ),
    "no training data": (
        wrong_class("Wrong", Defense, apply=trains_on_nothing, trains=True),
        "training_data",
        "works without any",
    ),
}


def noise_of(x: torch.Tensor) -> torch.Tensor:
    from freqrobust import noise

    return noise.scoped_normal(x)


class Share(AnalysisResult):
    """One number."""

    share: float | None


class Counting(Analysis):
    """Mean pixel; right, and the base of the wrong ones."""

    wrong: Literal["", "batches", "random", "table", "sentence", "nothing"] = Field("", description="what is wrong")

    def run(self, model: Any, data: ImageData, context: AnalysisContext) -> Share:
        means: list[float] = []

        def work(images: Any, labels: Any, ids: Any, positions: Any) -> None:
            means.append(float(images.mean() if self.wrong == "batches" else images.mean(dim=(1, 2, 3)).double().sum()))

        context.each_batch("means", work)
        share = (means[0] if self.wrong == "batches" else sum(means) / len(data)) + self.noise()
        return Share(share=share, sentence="" if self.wrong == "sentence" else f"mean {share:.3g}")

    def noise(self) -> float:
        return float(torch.rand(())) if self.wrong == "random" else 0.0

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        rows = [[result.label, *(["too much"] if self.wrong == "table" else []), "1"] for result in results]
        return [] if self.wrong == "nothing" else [AnalysisTable(title="Means", columns=["", "mean"], rows=rows)]


class Weights(Counting):
    """Says that it needs no images, and does."""

    needs_data: ClassVar[bool] = False


ANALYSIS_BUGS: dict[str, tuple[Analysis, str, str]] = {
    "rows": (Counting(wrong="table"), "record", "should have 2 values, but one has 3"),
    "nothing": (Counting(wrong="nothing"), "record", "neither tables() nor draw() shows anything"),
    "sentence": (Counting(wrong="sentence"), "record", "a result has no sentence"),
    "random": (Counting(wrong="random"), "repeatable", "should have the same results, but differ"),
    "batches": (
        Counting(wrong="batches"),
        "repeatable",
        "with batches of 7 the values of share should be those of one batch",
    ),
    "no images": (Weights(), "no_images", "breaks the rule"),
}


class Listing(Reporter):
    """A line for each cell; right, and the base of the wrong ones."""

    wrong: Literal["", "empty", "changes", "random", "failed", "models", "runs"] = Field(
        "", description="what is wrong"
    )

    def render(self, report: Report, target: IO[str]) -> None:
        if self.wrong == "empty":
            return
        if self.wrong == "changes":
            report.cells.pop()
        for cell in report.cells:
            model = "" if self.wrong == "models" else report.models[cell.model].name or report.models[cell.model].spec
            accuracy = cell.accuracy * 100 if self.wrong == "failed" else cell.accuracy  # type: ignore[operator]
            extra = float(torch.rand(())) if self.wrong == "random" else ""
            target.write(f"{model} {cell.attack_spec} {accuracy} {extra}\n")


class Silent(Listing):
    """Several runs without their names."""

    def render_many(self, reports: Any, target: IO[str]) -> None:
        for report in reports.values():
            self.render(report, target)


class Missing(Listing):
    """Needs what is not there."""

    requires: ClassVar[dict[str, str]] = {"no_such_module": "pip install nothing"}


REPORT_BUGS: dict[str, tuple[Reporter, str, str]] = {
    "empty": (Listing(wrong="empty"), "output", "should write text to target, but wrote nothing"),
    "changes": (Listing(wrong="changes"), "output", "render() changes the report"),
    "random": (Listing(wrong="random"), "output", "should write the same text, but differ"),
    "failed": (Listing(wrong="failed"), "failed_cells", "it raised TypeError"),
    "models": (Listing(wrong="models"), "several_models", "should name the model 'first-net'"),
    "runs": (Silent(), "several_runs", "should name the run 'first-run'"),
    "missing": (Missing(), "requirements", "the module 'no_such_module' is not installed: pip install nothing"),
}
KINDS: dict[str, tuple[Contract[Any], Callable[..., Any], dict[str, Any], Any]] = {
    "attack": (ATTACKS, attack_checks, ATTACK_BUGS, Step()),
    "defense": (DEFENSES, defense_checks, DEFENSE_BUGS, Right()),
    "analysis": (ANALYSES, analysis_checks, ANALYSIS_BUGS, Counting()),
    "reporter": (REPORTS, reporter_checks, REPORT_BUGS, Listing()),
}


@pytest.mark.parametrize(("kind", "bug"), [(kind, bug) for kind, (_, _, bugs, _) in KINDS.items() for bug in bugs])
def test_a_wrong_plugin_breaks_the_rule(kind, bug) -> None:
    contract, checks, bugs, _ = KINDS[kind]
    plugin, rule, said = bugs[bug]
    (check,) = [check for check in checks(plugin) if str(check) == rule]
    with pytest.raises(ContractError) as broken:
        check()
    message = str(broken.value)
    assert said in message
    assert f"{type(plugin).__name__} breaks the rule {rule!r} of {contract.page}" in message
    assert isinstance(broken.value, AssertionError)
    assert isinstance(broken.value, FreqRobustError)
    assert "\n" not in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_plugin_breaks_none(kind) -> None:
    _, checks, _, right = KINDS[kind]
    for check in checks(right):
        check()


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_is_broken_by_a_wrong_plugin_and_documented(kind) -> None:
    contract, _, bugs, _ = KINDS[kind]
    declared = set() if kind in ("analysis", "reporter") else {"declaration"}  # one rule for all kinds
    assert {rule for _, rule, _ in bugs.values()} | {"declaration"} >= set(contract.rules)
    assert declared <= {rule for _, rule, _ in bugs.values()}
    text = (DOCS.parent / contract.page).read_text(encoding="utf-8")
    for rule in contract.rules.values():
        assert f"| `{rule.name}` | {rule.text} |" in text, rule.name


def test_the_first_broken_rule_is_raised() -> None:
    with pytest.raises(ContractError, match="breaks the rule 'output' of docs/writing-an-attack"):
        check_attack(ATTACK_BUGS["NaN"][0])
    check_reporter(Listing())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Right, "expected an object of a subclass of freqrobust.Defense, but got the class Right; write Right"),
        (Step(), "expected an object of a subclass of freqrobust.Defense, but got Step"),
        ("smooth", "but got str"),
    ],
)
def test_what_is_no_plugin_of_the_kind(given, said) -> None:
    with pytest.raises(PluginError) as refused:
        check_defense(given)
    assert said in str(refused.value)
