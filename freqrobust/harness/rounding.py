"""Which adversarial examples are still adversarial when they are saved as images of 8 bits."""

from __future__ import annotations

import numpy as np
import torch

from freqrobust.harness.outcome import Outcome
from freqrobust.harness.target_model import TargetModel
from freqrobust.numerics.eight_bit import nearest
from freqrobust.numerics.norms import norms
from freqrobust.numerics.threat import Threat, allowance


class Rounding:
    """Rounds the successful examples of one cell to 8 bits, and predicts them again.

    It takes one forward pass for each of them that rounding changes. For a stochastic target model nothing is counted:
    a prediction takes many passes, and examples near the decision boundary are misclassified by chance.

    Args:
        target_model: predicts.
        outcome: of the cell; its ``survives`` is filled in.
        threat: which examples have to be within after rounding; None for an attack without a budget.
    """

    def __init__(self, target_model: TargetModel, outcome: Outcome, threat: Threat | None) -> None:
        self.target_model = target_model
        self.outcome = outcome
        self.threat = threat
        if not target_model.stochastic:
            outcome.survives = np.zeros(len(outcome.right), dtype=bool)

    def inherit(self, inherited: np.ndarray, lower: Outcome) -> None:
        """Of samples whose examples were found at a smaller eps, what was found there."""
        if self.outcome.survives is not None and lower.survives is not None:
            self.outcome.survives[inherited] = lower.survives[inherited]

    def add(
        self,
        where: np.ndarray,
        success: np.ndarray,
        changed: torch.Tensor,
        images: torch.Tensor,
        labels: torch.Tensor,
        ids: torch.Tensor,
    ) -> None:
        """Count for one batch.

        Args:
            where: the positions of its samples.
            success: those with a successful example, ``(N,)``.
            changed: the examples.
            images: the clean images.
            labels: of the samples.
            ids: of the samples.
        """
        if self.outcome.survives is None:
            return
        chosen = torch.from_numpy(success).to(images.device)
        rounded = nearest(changed)
        survives = chosen.clone()
        if self.threat is not None:
            survives &= norms(rounded - images, self.threat.norm) <= allowance(self.threat.eps)
        again = survives & (rounded != changed).flatten(1).any(dim=1)
        if again.any():
            prediction = self.target_model.predict(rounded[again], ids[again])
            survives[again] = prediction.is_adversarial(labels[again])
        self.outcome.survives[where] = survives.cpu().numpy()
