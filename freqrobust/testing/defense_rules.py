"""The rules for defenses."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from freqrobust.core.errors import SpecError
from freqrobust.data.dataset import ImageData
from freqrobust.harness.defend import defend
from freqrobust.harness.evaluate import evaluate
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics import noise
from freqrobust.plugins.base import Defense, InputDefense
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.registry import defenses
from freqrobust.plugins.specs import DefenseChain
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

DEFENSES: Contract[Defense] = Contract(defenses, "docs/writing-a-defense.md")
#: Attacks that every defended model is evaluated with: one that needs gradients, and a filter.
EVALUATED = ("pgd:eps=0.1,steps=4", "lfc:radius=2")
#: Samples of a stochastic defense, each of whose predictions is a majority vote.
FEW = 8


def logits(model: nn.Module, data: ImageData, *, seed: int = 0, order: torch.Tensor | None = None) -> torch.Tensor:
    """The logits of the samples at some positions, by default of all, as one batch."""
    order = torch.arange(len(data)) if order is None else order
    images, _, ids = data.batch(order, torch.device("cpu"))
    with torch.no_grad(), noise.sample_scope(ids, seed=seed):
        found: torch.Tensor = model(images.clone())
    return found


def context_of(setting: Setting) -> DefenseContext:
    return DefenseContext(train_data=setting.train_data)


def apply(defense: Defense, setting: Setting, model: nn.Module | None = None) -> nn.Module:
    """The defended model.

    Raises:
        BrokenRuleError: it is no module.
    """
    made = defense.apply(model or setting.model, context_of(setting))
    if not isinstance(made, nn.Module):
        raise BrokenRuleError(f"apply() should return an nn.Module, but returned {type(made).__name__}")
    return made.eval()


def chain_of(defense: Defense) -> DefenseChain:
    return DefenseChain((defenses.select(defense),))


@DEFENSES.rule("the model that is given stays as it is, also while the defended one is used")
def model_untouched(defense: Defense, setting: Setting) -> None:
    model = copy.deepcopy(setting.model).train()  # also a model that is in the middle of something
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            break
    next(model.parameters()).requires_grad_(True)
    modes = [module.training for module in model.modules()]
    needed = [parameter.requires_grad for parameter in model.parameters()]
    before, expected = state_hash(model), copy.deepcopy(model)
    hint = "; work on copy.deepcopy(model)"
    defended = defense.apply(model, context_of(setting))
    expect(
        isinstance(defended, nn.Module), f"apply() should return an nn.Module, but returned {type(defended).__name__}"
    )
    expect(defended is not model, f"apply() should return another module, but returned the one that it was given{hint}")
    expect([module.training for module in model.modules()] == modes, f"apply() changes train and eval modes{hint}")
    expect(
        [parameter.requires_grad for parameter in model.parameters()] == needed,
        f"apply() changes which parameters need gradients{hint}",
    )
    expect(state_hash(model) == before, f"apply() changes parameters or buffers{hint}")
    logits(defended.eval(), setting.data)
    expect(state_hash(model) == before, f"using the defended model changes parameters or buffers{hint}")
    different = first_difference(logits(model.eval(), setting.data), logits(expected.eval(), setting.data))
    expect(different is None, f"the logits of the model that was given should be the same, but {different}{hint}")


@DEFENSES.rule("the defended model returns finite float32 logits, one row for each image, and leaves the images alone")
def output(defense: Defense, setting: Setting) -> None:
    images, _, ids = setting.everything
    if isinstance(defense, InputDefense):
        given = images.clone()
        with torch.no_grad(), noise.sample_scope(ids):
            check_tensor(defense.transform(given), images, "the images that transform() returns")
        expect(torch.equal(given, images), "transform() changes the images in place; work on images.clone()")
    like = logits(setting.model, setting.data)
    defended, given = apply(defense, setting), images.clone()
    with torch.no_grad(), noise.sample_scope(ids):
        check_tensor(defended(given), like, "the logits of the defended model")
    expect(torch.equal(given, images), "the defended model changes the images in place; work on images.clone()")


@DEFENSES.rule("all randomness is seeded by sample, and declared: stochastic = True where predictions are random")
def randomness(defense: Defense, setting: Setting) -> None:
    found = []
    for seed in (1, 2):
        with global_seed(seed):
            found.append(logits(apply(changed(defense), setting), setting.data))
    different = first_difference(found[0], found[1])
    expect(different is None, f"applying the defense twice should give the same logits, but {different}")
    if not defense.stochastic:
        other = first_difference(logits(apply(defense, setting), setting.data, seed=7), found[0])
        expect(other is None, f"stochastic is False, but with another seed {other}; set stochastic = True")


@DEFENSES.rule("predictions, robust accuracies and numbers of passes do not depend on the batch")
def batches(defense: Defense, setting: Setting) -> None:
    defended, data = apply(defense, setting), setting.data.first(FEW)
    whole = logits(defended, data)
    alone = torch.cat([logits(defended, data, order=torch.tensor([position])) for position in range(len(data))])
    different = first_difference(alone, whole, tolerance=1e-3 * max(1.0, float(whole.abs().max())))
    expect(
        different is None,
        f"an image alone should have the logits that it has in a batch of {len(data)}, but {different}",
    )
    part = data if defense.stochastic else setting.data
    reports = [
        evaluate(
            setting.model,
            part,
            attacks=list(EVALUATED),
            defenses=[chain_of(defense)],
            undefended=False,
            train_data=setting.train_data,
            batch_size=size,
            device="cpu",
            diagnose=None,
            oblivious=False,
        )
        for size in (1, 32)
    ]
    for report in reports:
        for cell in report.cells:
            expect(cell.status == "ok", f"the evaluation under {cell.attack_spec} failed: {cell.error}")
    for one, many in zip(reports[0].cells, reports[1].cells, strict=True):
        expect(
            one.outcomes == many.outcomes,
            f"under {one.attack_spec}, {one.correct} of {one.n} samples are classified correctly with batches of 1, and "
            f"{many.correct} with batches of 32, or other ones; these should be the same samples",
        )
        check_passes(one, many, setting, f"under {one.attack_spec}, ")
    expect(
        reports[0].cells[1].backwards, "attacks should make backward passes through the defended model, but made none"
    )


@DEFENSES.rule("gradients are those of the defended model, or of its surrogate where differentiable = False")
def gradients(defense: Defense, setting: Setting) -> None:
    images, labels, ids = (part[:FEW] for part in setting.everything)
    exact, attackable = defend(setting.model, chain_of(defense), context_of(setting))
    x = images.clone().requires_grad_(True)
    with noise.sample_scope(ids):
        scores = attackable.eval()(x)  # not their loss, whose gradient is zero where a prediction is certain
        weights = torch.linspace(-1, 1, scores.shape[1])
        (gradient,) = torch.autograd.grad((scores * weights).sum(), x)
    expect(bool(torch.isfinite(gradient).all()), "the gradient in the images should be finite, but is not")
    zero = int((gradient.flatten(1).abs().amax(dim=1) == 0).sum())
    expect(
        zero < len(x) / 2 or defense.trains,  # a training on random images may end with constant logits
        f"the gradient in the images is zero for {zero} of {len(x)} samples, so that attacks fail and the robust accuracy "
        "is overestimated; set differentiable = False, and define surrogate() if the identity is no approximation",
    )
    if not defense.differentiable or defense.stochastic:
        return
    expect(exact is attackable, "a differentiable defense should be attacked as it is, but has a surrogate")
    given, slope = _slopes(exact, images, labels)
    expect(
        abs(given - slope) <= 1e-6 + 1e-4 * abs(slope),
        f"in a random direction the gradient gives a slope of {given:.6g}, but finite differences give {slope:.6g}; set "
        "differentiable = False if the backward pass is not exact",
    )


def _slopes(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """The slope of the loss along a random direction: by the gradient, and by finite differences, in float64."""
    exact = copy.deepcopy(model).eval().requires_grad_(False).double()
    x = images.double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(_loss(exact, x, labels), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-7
    with torch.no_grad():
        high, low = (_loss(exact, x + sign * step * direction, labels) for sign in (1, -1))
    return float((gradient * direction).sum()), float((high - low) / (2 * step))


def _loss(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x), labels, reduction="sum")


@DEFENSES.rule("without training data, a defense that trains says that it needs them", lambda d: d.needs_train_data)
def training_data(defense: Defense, setting: Setting) -> None:
    expect(defense.trains, "needs_train_data is True, but the class attribute trains is False; set trains = True")
    try:
        defense.apply(setting.model, DefenseContext())
    except SpecError as error:
        expect("needs training data" in str(error), f"the error should say that it needs training data, but is {error}")
        return
    raise BrokenRuleError('apply() should take its data from context.require_train_data("NAME"), but works without any')
