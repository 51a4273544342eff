"""Auto-PGD: projected gradient ascent that chooses its step sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from freqrobust.attacks.gradient.iterative import GradientAttack
from freqrobust.core.numbers import MOST, Count

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from freqrobust.attacks.gradient.regions import Space
    from freqrobust.attacks.gradient.stages import Stage
    from freqrobust.plugins.context import AttackContext

#: Classes with the largest logits among which targets are ranked.
CANDIDATES = 9


class APGD(GradientAttack):
    """Gradient ascent with momentum and a step size that adapts to each sample.  (Croce and Hein 2020, algorithm 1)

    For L1 the number of changed pixels adapts as well (Croce and Hein 2021, "Mind the box"). Step sizes depend on a sample's
    own losses only, so that results do not depend on the batch.

    ``loss=pm`` is the probability margin, the largest other probability minus that of the label (Xie et al. 2024,
    "Towards Million-Scale Adversarial Robustness Evaluation With Stronger Individual Attacks"). After the untargeted
    runs there is a run towards each of ``targets`` classes: those whose decision boundaries are nearest in the linearised
    model, nearest first (Melamed, Yehudai and Shamir 2024, "MALT Powers Up Adversarial Attacks"). Under a criterion other
    than misclassification its loss replaces the default loss, and there are no targeted runs; nor are there any with
    ``goal="maximize"``, unless ``untargeted=false``, as the highest loss is found without them.

    With ``early_stopping`` a run ends on samples whose margin grows so slowly that it would stay negative even if it grew
    twice as fast in the remaining steps. It has no effect with ``goal="maximize"``.
    """

    stream: ClassVar[str] = "apgd"

    steps: Count = Field(50, description="gradient steps per run")
    loss: Literal["ce", "dlr", "margin", "pm"] = Field(
        "pm",
        description="loss to maximise; pm is replaced by the loss of the criterion if that is not misclassification",
    )
    untargeted: bool = Field(True, description="make untargeted runs, one for each restart")
    targets: int = Field(2, ge=0, le=MOST, description="number of target classes that are tried after that, one by one")

    early_stopping: bool = Field(
        True, description="end a run on samples that cannot be expected to become adversarial in its remaining steps"
    )

    def space(self) -> Space:
        """The eps-ball, within [0, 1]."""
        from freqrobust.attacks.gradient.regions import Ball

        return Ball(self.norm, self.eps, self.eps, eight_bit=self.eight_bit)

    def stages(self, context: AttackContext) -> Sequence[Stage]:
        from freqrobust.attacks.gradient.ascent import Ascent, loss_for
        from freqrobust.attacks.gradient.stages import Stage
        from freqrobust.attacks.gradient.step_sizes import AutoSteps
        from freqrobust.plugins.criterion import Misclassification

        def ascent(targeted: bool) -> Ascent:
            loss = loss_for(context.criterion, self.loss, targeted, default="pm")
            return Ascent(self.space(), self.steps, loss, self.eot_used(context.eot), AutoSteps, self.early_stopping)

        wanted = context.goal == "decide" or not self.untargeted
        targeted = wanted and self.targets > 0 and isinstance(context.criterion, Misclassification)
        stages = [Stage(ascent(False), self.start, self.restarts)] if self.untargeted or not targeted else []
        if targeted:
            stages.append(Stage(ascent(True), self.start, self.restarts, self._targets))
        return stages

    def _targets(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        from freqrobust.attacks.gradient.targets import ranked_targets

        return ranked_targets(model, images, labels, self.norm, self.targets, CANDIDATES, self.eot_used(context.eot))
