"""AutoAttack, through the library pyautoattack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.attacks.isolation import any_batch, installed, isolated, require, settle
from freqrobust.core.numbers import Number
from freqrobust.numerics.threat import check_eps
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext

LIBRARY = "pyautoattack"
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
#: Draws over which the version for randomised models averages.
RAND_DRAWS = 20
#: How often the attack is repeated on samples of a random model that it left unchanged.
ROUNDS = 5
#: Classes that the loss of a part needs: the DLR loss the third largest logit, its targeted form the fourth.
FEWEST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}


class _Bounded(Attack):
    batch_invariant: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = (LIBRARY,)

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: Literal["linf", "l2", "l1"] = Field("linf", description="norm of the budget")

    @classmethod
    def build(cls, name: str, params: Mapping[str, Any]) -> Any:
        """As for every plugin; a missing library is reported here, before the clean pass."""
        installed(LIBRARY, name)
        return super().build(name, params)

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps(self.norm, self.eps)
        return self


class AutoAttack(_Bounded):
    """A parameter-free ensemble: APGD-CE, targeted APGD-DLR, targeted FAB, Square.  (Croce and Hein 2020)

    Each attack is run on the samples that are robust to those before it, and the report counts what each one
    misclassified. With fewer than 4 classes only the attacks whose loss is defined are run, and a note says that this
    is not the standard ensemble. As in the original, the seed is set again for every batch.
    """

    version: Literal["standard", "plus", "rand"] = Field(
        "standard", description="plus: more attacks and restarts; rand: for randomised models, with averaged gradients"
    )

    @property
    def averages_draws(self) -> bool:  # type: ignore[override]
        """True for the version for randomised models."""
        return self.version == "rand"

    def eot_used(self, eot: int) -> int:
        """A fixed number for the version for randomised models, else what the harness asks for."""
        return RAND_DRAWS if self.averages_draws else eot

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        library = require(LIBRARY, "autoattack")
        if self.eps == 0 or len(images) == 0:
            return images.clone()
        result = images.clone()
        with isolated("autoattack", model, context.seed % 2**32, images.device):
            view = any_batch(model, context)
            with torch.no_grad():
                logits = view(images)
            classes = int(logits.shape[1])
            active = context.criterion.is_correct(logits, labels).nonzero()[:, 0]
            ensemble = library.AutoAttack(
                view, norm=NORMS[self.norm], eps=self.eps, seed=context.seed, version=self.version, device=images.device
            )
            for targeted in (ensemble.apgd_targeted, ensemble.fab):
                targeted.n_target_classes = min(targeted.n_target_classes, classes - 1)
            if context.goal == "maximize" and context.eot > 1:  # one draw of a random model does not decide
                active = torch.arange(len(images), device=images.device)
            parts = [p for p in ensemble.attacks_to_run if FEWEST_CLASSES.get(p, 2) <= classes]
            left_out = [p for p in ensemble.attacks_to_run if p not in parts]
            for part in parts:
                context.count(part, 0)
            if left_out:
                context.note(f"not {self.version}: {classes} classes, without {', '.join(left_out)}")
            for part in parts:
                if len(active) == 0:
                    break
                tried = repeated(
                    lambda x, y, part=part: _run(ensemble, part, context.seed, x, y),
                    images[active],
                    labels[active],
                    context,
                )
                tried = settle(tried, images[active], self.norm, self.eps)
                with torch.no_grad():
                    adversarial = context.criterion.is_adversarial(view(tried), labels[active])
                result[active[adversarial]] = tried[adversarial]
                context.count(part, int(adversarial.sum()))
                active = active[~adversarial]
            if context.goal == "maximize" and len(active):
                result[active] = settle(
                    _highest_loss(ensemble, context.seed, images[active], labels[active]),
                    images[active],
                    self.norm,
                    self.eps,
                )
        return result


def repeated(perturb: Any, images: torch.Tensor, labels: torch.Tensor, context: AttackContext) -> torch.Tensor:
    """The examples of the library; of a random model, repeated on samples that it left unchanged.

    It does not attack a sample that its first prediction misclassifies, which for a random model may be a single draw.
    """
    examples: torch.Tensor = perturb(images.clone(), labels.clone())
    for _ in range(ROUNDS if context.eot > 1 else 0):
        unchanged = (examples == images).flatten(1).all(dim=1)
        if not unchanged.any():
            break
        examples[unchanged] = perturb(images[unchanged].clone(), labels[unchanged].clone()).to(examples.dtype)
    return examples


def _run(ensemble: Any, part: str, seed: int, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One attack of the ensemble, configured as the original does right before running it."""
    if part in ("apgd-ce", "apgd-dlr"):
        attack = ensemble.apgd
        attack.loss = part.removeprefix("apgd-")
    elif part == "apgd-t":
        attack = ensemble.apgd_targeted
    elif part in ("fab", "fab-t"):
        attack = ensemble.fab
        attack.targeted = part == "fab-t"
        attack.n_restarts = 1 if attack.targeted else attack.n_restarts
    else:
        attack = ensemble.square
    attack.seed = seed
    perturbed: torch.Tensor = attack.perturb(images, labels)
    return perturbed


def _highest_loss(ensemble: Any, seed: int, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For robust samples: the example with the highest cross-entropy in one run of APGD."""
    import torch

    torch.manual_seed(seed)
    apgd = ensemble.apgd
    apgd.loss, apgd.n_restarts, apgd.use_largereps = "ce", 1, False
    perturbed: torch.Tensor = apgd.perturb(images.clone(), labels.clone(), best_loss=True)
    return perturbed
