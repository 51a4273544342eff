"""Predictions of adversarial examples, as attacks return them and with pixels rounded to 8 bits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from freqrobust.harness.outcome import Outcome
from freqrobust.harness.target_model import Prediction, TargetModel
from freqrobust.numerics.eight_bit import LEVELS, SLACK, nearest
from freqrobust.numerics.norms import norms
from freqrobust.numerics.threat import Threat, allowance


class Verified(NamedTuple):
    """The examples of one batch, and what the target model predicts for them.

    Attributes:
        images: of each sample the example that counts, ``(N, C, H, W)``.
        prediction: of these images.
    """

    images: torch.Tensor
    prediction: Prediction


class Verification:
    """Predicts the examples of one cell, and finds out which of them can be saved as images of 8 bits.

    An example of an attack with a budget is rounded to 8 bits first. If the rounded image is within the budget and
    adversarial, it is the example that counts. Otherwise the example is predicted as the attack returned it. So most
    successful examples take one forward pass. Without a budget, where the size of the perturbation is what is measured,
    successful examples are predicted once more with rounded pixels.

    For a stochastic target model nothing is rounded: a prediction takes many passes, and examples near the decision
    boundary are misclassified by chance.

    Args:
        target_model: predicts.
        clean: its clean pass.
        outcome: of the cell; its ``survives`` is filled in.
        threat: which examples have to be within after rounding; None for an attack without a budget.
        rounding: look at rounded images at all.
    """

    def __init__(
        self, target_model: TargetModel, clean: Outcome, outcome: Outcome, threat: Threat | None, rounding: bool = True
    ) -> None:
        self.target_model = target_model
        self.clean = clean
        self.outcome = outcome
        self.threat = threat
        if rounding and not target_model.stochastic:
            outcome.survives = np.zeros(len(outcome.right), dtype=bool)

    def inherit(self, inherited: np.ndarray, lower: Outcome) -> None:
        """Of samples whose examples were found at a smaller eps, what was found there."""
        if self.outcome.survives is not None and lower.survives is not None:
            self.outcome.survives[inherited] = lower.survives[inherited]

    def verify(
        self, where: np.ndarray, changed: torch.Tensor, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor
    ) -> Verified:
        """Predict the examples of one batch.

        Args:
            where: the positions of its samples.
            changed: the examples that the attack returned.
            images: the clean images.
            labels: of the samples.
            ids: of the samples.
        """
        if self.outcome.survives is None:
            return Verified(changed, self.target_model.predict(changed, ids))
        right = torch.from_numpy(self.clean.right[where]).to(images.device)
        rounded = nearest(changed)
        differs = ((rounded - changed).abs() > SLACK / LEVELS).flatten(1).any(dim=1)
        if self.threat is None:
            prediction = self.target_model.predict(changed, ids)
            survives = prediction.is_adversarial(labels) & right
            again = (survives & differs).nonzero()[:, 0]
            if len(again):
                survives[again] = self.target_model.predict(rounded[again], ids[again]).is_adversarial(labels[again])
            self.outcome.survives[where] = survives.cpu().numpy()
            return Verified(changed, prediction)
        within = norms(rounded - images, self.threat.norm) <= allowance(self.threat.eps)
        moved = ((rounded - images).abs() > SLACK / LEVELS).flatten(1).any(dim=1)
        first = (within & differs & moved & right).nonzero()[:, 0]
        survives, found = torch.zeros_like(right), []
        if len(first):
            prediction = self.target_model.predict(rounded[first], ids[first])
            success = prediction.is_adversarial(labels[first])
            survives[first] = success
            found.append((first[success], prediction[success]))
        rest = (~survives).nonzero()[:, 0]
        if len(rest):
            prediction = self.target_model.predict(changed[rest], ids[rest])
            found.append((rest, prediction))
        examples = changed.clone()
        examples[survives] = rounded[survives]
        prediction = Prediction.of_parts(found)
        survives |= prediction.is_adversarial(labels) & within & ~differs & right
        self.outcome.survives[where] = survives.cpu().numpy()
        return Verified(examples, prediction)
