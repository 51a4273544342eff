"""The rules for attacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, get_args

import torch
import torch.nn.functional as F
from torch import nn

from freqrobust.core.errors import DataError, SpecError
from freqrobust.data.dataset import ImageData
from freqrobust.data.loading import as_data
from freqrobust.harness.evaluate import evaluate
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics.norms import norms
from freqrobust.numerics.threat import TOLERANCE, Norm, allowance
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext, Goal
from freqrobust.plugins.registry import attacks
from freqrobust.testing.rules import (
    BrokenRuleError,
    Contract,
    Setting,
    changed,
    check_passes,
    check_tensor,
    expect,
    first_difference,
    global_seed,
)

ATTACKS: Contract[Attack] = Contract(attacks, "docs/writing-an-attack.md")
GOALS: tuple[Goal, ...] = ("decide", "maximize")
#: At which the budget is checked, where the attack has the parameters: small, usual, and larger than the image.
BUDGETS: tuple[tuple[Norm, float], ...] = (
    ("linf", 1 / 255),
    ("linf", 0.3),
    ("l2", 0.05),
    ("l2", 2.0),
    ("l2", 30.0),
    ("l1", 0.5),
    ("l1", 12.0),
)
SHAPES = ((1, 7, 5), (3, 16, 12), (2, 1, 9))


class AllOf:
    """The samples of a dataset for ``Attack.prepare``, in any order."""

    def __init__(self, model: nn.Module, data: ImageData, order: torch.Tensor) -> None:
        self.model, self.data, self.order = model, data, order
        self.ids, self.shape = data.ids[order], data.shape

    def gather(self, rows: torch.Tensor, work: Callable[..., torch.Tensor]) -> torch.Tensor:
        images, labels, _ = self.data.batch(self.order[rows], torch.device("cpu"))
        return torch.cat([work(self.model, images[w], labels[w], w) for w in torch.arange(len(rows)).split(50)])


def prepare(attack: Attack, setting: Setting, order: torch.Tensor, seed: int = 0, goal: Goal = "decide") -> Any:
    samples = AllOf(setting.model, setting.data, order)
    return attack.prepare(samples, AttackContext(samples.ids, seed, goal))


def perturb(
    attack: Attack,
    setting: Setting,
    *,
    order: torch.Tensor | None = None,
    seed: int = 0,
    goal: Goal = "decide",
    model: nn.Module | None = None,
    prepared: Any = None,
) -> torch.Tensor:
    """What the attack returns for the samples at some positions, as one batch.

    Raises:
        BrokenRuleError: no tensor of the same shape, or not finite.
    """
    order = torch.arange(len(setting.data)) if order is None else order
    prepared = prepare(attack, setting, order, seed, goal) if prepared is None else prepared
    images, labels, ids = (part.clone() for part in setting.data.batch(order, torch.device("cpu")))
    with torch.set_grad_enabled(attack.needs_gradient):
        context = AttackContext(ids, seed, goal, prepared=prepared)
        returned = attack.perturb(model or setting.model, images, labels, context)
    return check_tensor(returned, setting.everything[0][order], f"with goal={goal!r}, the returned images")


def norm_choices(attack: Attack) -> list[Norm]:
    """The norms that the attack can be built with: the given one, else all that its field allows."""
    declared = type(attack).model_fields.get("norm")
    if declared is None or "norm" in attack.model_fields_set:
        given = getattr(attack, "norm", None)
        return [cast(Norm, given)] if given in get_args(Norm) else []
    allowed = get_args(declared.annotation)
    return [norm for norm in get_args(Norm) if norm in allowed] or [cast(Norm, attack.norm)]  # type: ignore[attr-defined]


def with_budget(attack: Attack, norm: Norm | None, eps: float) -> Attack:
    """The same attack with another budget."""
    given = {"norm": norm} if norm is not None and "norm" in type(attack).model_fields else {}
    return changed(attack, eps=eps, **given)


def is_adversarial(attack: Attack) -> bool:
    return attack.kind == "adversarial"


def has_eps(attack: Attack) -> bool:
    return "eps" in type(attack).model_fields


def is_bounded(attack: Attack) -> bool:
    return is_adversarial(attack) and has_eps(attack) and bool(norm_choices(attack))


def is_batch_invariant(attack: Attack) -> bool:
    return attack.batch_invariant


def check_range(found: torch.Tensor) -> None:
    low, high = float(found.min()), float(found.max())
    expect(
        low >= -TOLERANCE and high <= 1 + TOLERANCE,
        f"adversarial images should be in [0, 1], but have values from {low:.6g} to {high:.6g}; end with .clamp(0, 1)",
    )


def check_budget(found: torch.Tensor, images: torch.Tensor, norm: Norm, eps: float) -> None:
    distance = norms(found - images, norm)
    sample = int(distance.argmax())
    expect(
        distance.max() <= allowance(eps),
        f"no perturbation should exceed its budget of {norm.capitalize()} {eps:.6g}, but that of sample {sample} "
        f"has {norm.capitalize()} {float(distance.max()):.6g}; project it with freqrobust.numerics.norms.project",
    )


@ATTACKS.rule("perturb returns finite float32 images of the same shape, in [0, 1] and within the budget if adversarial")
def output(attack: Attack, setting: Setting) -> None:
    images, _, _ = setting.everything
    threat = attack.threat()
    for goal in GOALS:
        found = perturb(attack, setting, goal=goal)
        if is_adversarial(attack):
            check_range(found)
        if threat is not None:
            check_budget(found, images, threat.norm, threat.eps)


@ATTACKS.rule("no perturbation exceeds its budget, whatever eps and norm; and the images are changed", is_bounded)
def budgets(attack: Attack, setting: Setting) -> None:
    images, _, _ = setting.everything
    norms_allowed = norm_choices(attack)
    for norm, eps in BUDGETS:
        if norm not in norms_allowed:
            continue
        try:
            sized = with_budget(attack, norm, eps)
        except SpecError:  # the attack is declared for smaller or larger budgets
            continue
        expect(
            sized.threat() == (norm, eps),
            f"with norm={norm!r} and eps={eps:.6g}, threat() should return these, but returns {sized.threat()}",
        )
        for goal in GOALS:
            found = perturb(sized, setting, goal=goal)
            check_range(found)
            check_budget(found, images, norm, eps)
            expect(
                not torch.equal(found, images),
                f"with {norm.capitalize()} {eps:.6g} and goal={goal!r}, it should change some image, but returns all as they were",
            )


@ATTACKS.rule("with eps = 0, nothing changes", has_eps)
def zero_budget(attack: Attack, setting: Setting) -> None:
    images, _, _ = setting.everything
    choices: list[Norm | None] = [*norm_choices(attack)]
    for norm in choices or [None]:
        zero = with_budget(attack, norm, 0.0)
        for goal in GOALS:
            different = first_difference(perturb(zero, setting, goal=goal), images)
            expect(different is None, f"with eps = 0 the images should be returned as they are, but {different}")
        report = evaluate(setting.model, setting.data, attacks=[zero], device="cpu", batch_size=32, diagnose=None)
        clean, cell = report.cells
        expect(cell.status == "ok", f"the evaluation with eps = 0 failed: {cell.error}")
        expect(
            cell.outcomes == clean.outcomes,
            f"with eps = 0 the accuracy should be the clean one of {clean.accuracy}, but is {cell.accuracy}",
        )


@ATTACKS.rule("all randomness comes from the context: the same seed gives the same images")
def randomness(attack: Attack, setting: Setting) -> None:
    found = []
    for seed in (1, 2):
        with global_seed(seed):
            found.append(perturb(changed(attack), setting, seed=3))
    different = first_difference(found[0], found[1])
    expect(different is None, f"two runs with the same seed should be equal, but {different}")


class FirstSeen(nn.Module):
    """Keeps the first images that it is shown; never wrong, so that no attack stops early."""

    def __init__(self, labels: torch.Tensor, classes: int) -> None:
        super().__init__()
        self.labels, self.classes = labels, classes
        self.first: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.first = x.detach().clone() if self.first is None else self.first
        return 10.0 * F.one_hot(self.labels, self.classes) + 0.01 * x.flatten(1)[:, : self.classes]


@ATTACKS.rule("a sample is initialised in the same way in every batch and in every order", is_batch_invariant)
def batches(attack: Attack, setting: Setting) -> None:
    """The first images that the model sees are the same bits.

    On one thread: with several, the last bits of Fourier transforms depend on the size of the batch.
    """
    data = setting.data

    def seen(order: torch.Tensor, size: int) -> torch.Tensor:
        found = torch.zeros(len(data), *data.shape)
        prepared = prepare(attack, setting, order)
        for part in order.split(size):
            spy = FirstSeen(data.labels[part], data.classes)
            given = perturb(attack, setting, order=part, model=spy, prepared=prepared)
            found[part] = given if spy.first is None else spy.first
        return found

    shuffled = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = seen(torch.arange(len(data)), len(data))
        found = {size: first_difference(seen(shuffled, size), whole) for size in (1, 7)}
    finally:
        torch.set_num_threads(threads)
    for size, different in found.items():
        expect(
            different is None,
            f"in batches of {size} in another order, the first images that the model is given should be the same bits as in "
            f"one batch, but {different}; if samples depend on each other by design, set batch_invariant = False",
        )


@ATTACKS.rule("results and numbers of passes do not depend on the batch size", is_batch_invariant)
def batch_sizes(attack: Attack, setting: Setting) -> None:
    cells = [
        evaluate(setting.model, setting.data, attacks=[attack], device="cpu", batch_size=size, diagnose=None).cells[1]
        for size in (1, 32)
    ]
    for cell in cells:
        expect(cell.status == "ok", f"the evaluation failed: {cell.error}")
    one, many = cells
    expect(
        one.outcomes == many.outcomes,
        f"{one.correct} of {one.n} samples are robust with batches of 1, and {many.correct} with batches of 32, "
        "or other ones; these should be the same samples",
    )
    check_passes(one, many, setting)


@ATTACKS.rule("model, images and labels are left as they were")
def inputs_untouched(attack: Attack, setting: Setting) -> None:
    model = setting.model
    before = state_hash(model)
    images, labels, ids = (part.clone() for part in setting.everything)
    prepared = prepare(attack, setting, torch.arange(len(ids)), goal="maximize")
    given = [images.clone(), labels.clone()]
    with torch.set_grad_enabled(attack.needs_gradient):
        attack.perturb(model, images, labels, AttackContext(ids, 0, "maximize", prepared=prepared))
    expect(torch.equal(images, given[0]), "it changes the images that it is given in place; work on images.clone()")
    expect(torch.equal(labels, given[1]), "it changes the labels that it is given in place; work on labels.clone()")
    expect(state_hash(model) == before, "it changes parameters or buffers of the model")
    expect(not any(module.training for module in model.modules()), "it puts modules of the model into train mode")
    expect(
        all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters()),
        "it leaves gradients in the parameters of the model; use torch.autograd.grad(loss, images)",
    )
    expect(
        not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()),
        "it leaves hooks in the model",
    )


@ATTACKS.rule('goal="maximize" gives at least the mean loss of goal="decide"', is_adversarial)
def goals(attack: Attack, setting: Setting) -> None:
    _, labels, _ = setting.everything

    def loss(goal: Goal) -> float:
        with torch.no_grad():
            logits = setting.model(perturb(attack, setting, goal=goal))
            return float(F.cross_entropy(logits, labels))

    decided, most = loss("decide"), loss("maximize")
    expect(
        most >= decided - 1e-4 - (0.0 if setting.exact else 0.02 * abs(decided)),
        f"the mean cross-entropy should be at least {decided:.4g}, that of goal='decide', but is {most:.4g}; return the "
        "example with the highest loss of each sample",
    )


@ATTACKS.rule("images of any number of channels and any size are attacked, or refused by check_data")
def image_shapes(attack: Attack, setting: Setting) -> None:
    for shape in SHAPES:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            images = torch.rand(5, *shape)
            model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 4)).eval().requires_grad_(False)
            data = as_data((images, model(images).argmax(dim=1)))
        try:
            attack.check_data(data)
        except (SpecError, DataError):
            continue
        cell = evaluate(model, data, attacks=[attack], device="cpu").cells[1]
        if cell.status != "ok":
            raise BrokenRuleError(
                f"images of the shape {shape} should be attacked, or refused by check_data, but {cell.error}"
            )
