"""An ensemble of this package's own attacks, after AutoAttack."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from freqrobust.core.numbers import Count, Number
from freqrobust.numerics.threat import StepNorm, check_eps
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext

#: Classes that the loss of a part needs: the targeted DLR loss the fourth largest logit.
FEWEST_CLASSES = {"apgd-t": 4}
#: Queries of Square for every sample, as a share of all.
FIRST_QUERIES = 0.1


class AA(Attack):
    """Attacks in a fixed order, each on the samples that are robust to those before it.  (after Croce and Hein 2020)

    APGD on the probability margin, then on cross-entropy, then towards 9 classes on the DLR loss, nearest class first; FMN,
    whose nearest example counts where it is within ``eps``; Square. The report counts what each one misclassified.

    Square is there for models whose gradients are masked. It gets a tenth of its ``queries`` first, and the others only
    for samples on which it reached a larger margin than every attack with gradients. Results do not depend on the batch.
    With 2 or 3 classes there is no DLR loss with a target; a note says so. For random models there is no FMN, the other
    attacks are run on all samples, with the mean of several draws for each pass, and Square has its first queries only.
    """

    eps: Number = Field(8 / 255, ge=0, description="budget, in the norm's unit; 8/255 is accepted")
    norm: StepNorm = Field("linf", description="norm of the budget")
    queries: Count = Field(5000, description="largest number of queries of Square per sample")

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps(self.norm, self.eps)
        return self

    def parts(self) -> dict[str, Attack]:
        """The attacks, in their order; after them Square may be run again with all of its queries."""
        from freqrobust.attacks.apgd import APGD
        from freqrobust.attacks.fmn import FMN

        budget: dict[str, Any] = {"eps": self.eps, "norm": self.norm}
        ascent = {**budget, "early_stopping": False}
        return {
            "apgd-pm": APGD(**ascent, loss="pm", steps=100, targets=0),
            "apgd-ce": APGD(**ascent, loss="ce", steps=100, targets=0),
            "apgd-t": APGD(**ascent, loss="dlr", steps=40, untargeted=False, targets=9),
            "fmn": FMN(norm=self.norm, steps=100),
            "square": self._square(max(1, round(FIRST_QUERIES * self.queries))),
        }

    def _square(self, queries: int) -> Attack:
        from freqrobust.attacks.square import Square

        return Square(eps=self.eps, norm=self.norm, queries=queries)

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        if self.eps == 0 or len(images) == 0:
            return images.clone()
        with torch.no_grad():
            logits = model(images)
        search = Search(self, model, images, labels, context, logits)
        parts = self.parts()
        for name, part in list(parts.items()):
            if logits.shape[1] < FEWEST_CLASSES.get(name, 2):
                context.note(f"without {name}, which needs {FEWEST_CLASSES[name]} classes")
                del parts[name]
            elif part.deterministic_only and context.eot > 1:
                context.note(f"without {name}, which needs predictions that are not random")
                del parts[name]
            else:
                context.count(name, 0)
        square = parts.pop("square")
        for name, part in parts.items():
            search.run(name, part)
        by_gradients = search.margin.clone()
        search.run("square", square)
        masked = ~search.adversarial & (search.margin > by_gradients)
        if masked.any() and not search.random:
            context.note(f"gradients may be masked: square was run with {self.queries} queries on some samples")
            search.run("square", self._square(self.queries), masked)
        return search.examples


class Search:
    """What the parts have found for the samples of a batch.

    Attributes:
        examples: those with the largest margins, ``(N, C, H, W)``.
        margin: of these, ``(N,)``.
        adversarial: the samples that are known to be, ``(N,)``.
        random: whether the model is; then every pass needs the whole batch, as its noise is seeded by sample.
    """

    def __init__(
        self,
        attack: AA,
        model: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        context: AttackContext,
        logits: torch.Tensor,
    ) -> None:
        import torch

        self._attack, self._model, self._images, self._labels = attack, model, images, labels
        self._context, self._first = context, True
        self.examples, self.margin = images.clone(), context.criterion.margin(logits, labels)
        self.margin = self.margin.masked_fill(self.margin.isnan(), float("-inf"))
        self.adversarial = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.random = context.eot > 1

    def run(self, name: str, part: Attack, among: torch.Tensor | None = None) -> None:
        """Run a part on the samples that are left, or on some of them, and count what it makes adversarial.

        The first part maximises if that is the goal, and starts from the signs of a smaller budget.
        """
        import torch

        from freqrobust.attacks.gradient.ascent import better
        from freqrobust.numerics.norms import norms
        from freqrobust.numerics.threat import allowance

        left = ~self.adversarial if among is None else among
        if not left.any():
            return
        rows = (left | self.random).nonzero()[:, 0]
        own = replace(self._context.subset(rows), eot=1)  # the model averages over its draws by itself
        if not self._first:
            own = replace(own, goal="maximize" if self.random else "decide", initial_signs=None)
        images, labels = self._images[rows], self._labels[rows]
        tried = part.perturb(self._model, images, labels, own)
        with torch.no_grad():
            logits = self._model(tried)
        inside = norms(tried - images, self._attack.norm) <= allowance(self._attack.eps)
        margin = own.criterion.margin(logits, labels).masked_fill(~inside, float("-inf"))
        self.examples[rows], self.margin[rows] = better(self.examples[rows], self.margin[rows], tried, margin)
        success = inside & own.is_adversarial(logits, labels) & ~self.adversarial[rows]
        self._context.count(name, int(success.sum()))
        self.adversarial[rows] |= success
        self._first = False
