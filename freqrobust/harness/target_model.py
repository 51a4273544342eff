"""A defended model, prepared for evaluation: exact for predictions, counted and folded for attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from freqrobust.harness.compiled_model import SLACK, Compiled, compile_model, reduced
from freqrobust.models.batch_norm_folding import fold_batch_norm
from freqrobust.models.logits import check_logits
from freqrobust.numerics import noise
from freqrobust.plugins.criterion import Criterion, Misclassification
from freqrobust.results.records import Precision


class GradientModel(nn.Module):
    """The model as attacks see it: passes and zero gradients are counted.

    Attributes:
        draws: of a random model, over which each pass is averaged.
        forwards: images in forward passes.
        backwards: images in backward passes.
        first_gradients: images in the first backward pass of each batch.
        zero_gradients: those of them whose gradient is exactly zero.
        non_finite: images whose logits are not finite.
        passed: is called with the images of each pass, and whether it may be differentiated.
    """

    passed: Callable[[int, bool], None] | None = None

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.device = device
        self.reset()

    def train(self, mode: bool = True) -> GradientModel:
        """Stay in eval mode, whatever an attack sets: batch norm would learn from its images."""
        return super().train(False)

    def reset(self) -> None:
        """Set all counts to zero."""
        self.forwards = self.backwards = self.first_gradients = 0
        self.look = True
        self.draws = 1
        # kept on the device: reading them after every pass would stall a GPU
        self._zero = torch.zeros((), dtype=torch.int64, device=self.device)
        self._non_finite = torch.zeros((), dtype=torch.int64, device=self.device)

    @property
    def zero_gradients(self) -> int:
        return int(self._zero)

    @property
    def non_finite(self) -> int:
        return int(self._non_finite)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += self.draws * len(x)
        differentiated = x.requires_grad and torch.is_grad_enabled()
        if self.passed is not None:
            self.passed(len(x), differentiated)
        if differentiated:
            x = x.view_as(x)
            x.register_hook(self._gradient)
        logits: torch.Tensor = self.model(x).float()
        for _ in range(1, self.draws):
            logits = logits + self.model(x).float()
        if self.draws > 1:
            logits = logits / self.draws
        self._non_finite += (~torch.isfinite(logits.detach()).all(dim=1)).sum()
        return logits

    def _gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        self.backwards += self.draws * len(gradient)
        if self.look:  # once a batch: looking at every gradient would cost several percent of an attack
            self.look = False
            self.first_gradients += len(gradient)
            self._zero += (gradient.flatten(1).abs().amax(dim=1) == 0).sum()
        return gradient.contiguous()


@dataclass(frozen=True)
class Prediction:
    """What a target model predicts for some images, and what the criterion says of it.

    Attributes:
        classes: int64 ``(N,)``, by majority where there are several votes; -1 where the logits are NaN.
        logits: ``(N, K)`` of the first vote.
        scores: what the criterion decides with, ``(N, K)``: the logits or, of several votes, their numbers.
        criterion: decides.
    """

    classes: torch.Tensor
    logits: torch.Tensor
    scores: torch.Tensor
    criterion: Criterion

    def is_correct(self, labels: torch.Tensor) -> torch.Tensor:
        """Samples that count in the clean accuracy, ``(N,)``; never those with NaN."""
        return (self.classes >= 0) & self.criterion.is_correct(self.scores, labels)

    def __getitem__(self, which: torch.Tensor) -> Prediction:
        """Of some of the images, a mask or positions."""
        return Prediction(self.classes[which], self.logits[which], self.scores[which], self.criterion)

    def replaced(self, positions: torch.Tensor, part: Prediction) -> Prediction:
        """The same, with the prediction of the images at these positions replaced."""
        columns = ((getattr(self, name), getattr(part, name)) for name in ("classes", "logits", "scores"))
        classes, logits, scores = (mine.index_copy(0, positions, theirs) for mine, theirs in columns)
        return Prediction(classes, logits, scores, self.criterion)

    @staticmethod
    def of_parts(parts: Sequence[tuple[torch.Tensor, Prediction]]) -> Prediction:
        """The prediction of all images, from those of parts, each with the positions of its images."""
        order = torch.cat([positions for positions, _ in parts]).argsort()
        columns = ([getattr(one, name) for _, one in parts] for name in ("classes", "logits", "scores"))
        classes, logits, scores = (torch.cat(column)[order] for column in columns)
        return Prediction(classes, logits, scores, parts[0][1].criterion)

    def is_adversarial(self, labels: torch.Tensor) -> torch.Tensor:
        """Samples on which an attack has succeeded, ``(N,)``; always those with NaN."""
        return (self.classes < 0) | self.criterion.is_adversarial(self.scores, labels)


class TargetModel:
    """The model under attack: the defended model, how it predicts, and how its predictions are judged.

    Args:
        exact: the defended model; all predictions come from it, in fp32.
        attackable: the same with gradients (surrogates where declared).
        probe: a few images, to check that batch norm can be folded.
        device: where it runs.
        precision: of the attacks' passes.
        votes: draws per prediction; more than one for stochastic defenses.
        seed: the seed of the run.
        criterion: what counts as adversarial.
        attacked: whether it is differentiated by attacks; the copy with folded batch norm is made only for them.
    """

    def __init__(
        self,
        exact: nn.Module,
        attackable: nn.Module,
        probe: torch.Tensor,
        *,
        device: torch.device,
        precision: Precision = "fp32",
        votes: int = 1,
        seed: int = 0,
        criterion: Criterion | None = None,
        attacked: bool = True,
    ) -> None:
        self.exact = exact
        self.votes = votes
        self.seed = seed
        self.criterion = criterion or Misclassification()
        self.stochastic = votes > 1
        self.forwards = 0
        self.non_finite = 0
        self.precision = precision
        self.slack = SLACK[precision]
        self.rounding = 0.0 if precision == "fp32" or self.stochastic else self.slack
        folded = fold_batch_norm(attackable, probe) if attacked and not self.stochastic else attackable
        self.folded = folded
        self.view = GradientModel(reduced(folded, probe, device) if precision == "bf16" else folded, device)

    def compile(self, probe: torch.Tensor, *, faster: bool = False) -> Compiled:
        """Compile the copy that attacks differentiate; see :func:`compile_model`.

        Raises:
            NotCompiledError: that is not possible; it stays in eager mode.
        """
        compiled = compile_model(self.view.model, probe, self.view.device, self.precision, faster=faster)
        self.view.model = compiled.model
        return compiled

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """One prediction of the full model, ``(N, K)``, fp32.

        Raises:
            ModelError: the result is not logits.
        """
        with torch.no_grad():
            logits: torch.Tensor = self.exact(images)
        self.forwards += len(images)
        check_logits(logits, images)
        logits = logits.float()
        self.non_finite += int((~torch.isfinite(logits).all(dim=1)).sum())
        return logits

    def predict(self, images: torch.Tensor, ids: torch.Tensor) -> Prediction:
        """Predicted classes (the majority of the votes where there are several), and what decides about success.

        The votes of a sample use the same draws for every image of it, and none that an attack uses: so the image
        makes the difference, and not another draw.
        """
        if not self.stochastic:
            logits = self.logits(images)
            return Prediction(_classes(logits), logits, logits, self.criterion)
        votes = []
        for vote in range(self.votes):
            with noise.sample_scope(ids, seed=self.seed, stream=f"vote {vote}"):
                votes.append(self.logits(images))
        counts = torch.zeros_like(votes[0])
        for logits in votes:
            classes = _classes(logits)[:, None]
            counts.scatter_add_(1, classes.clamp_min(0), (classes >= 0).to(counts.dtype))  # NaN is no vote
        majority = torch.where(counts.sum(dim=1) > 0, counts.argmax(dim=1), -1)
        return Prediction(majority, votes[0], counts, self.criterion)

    def undecided(self, prediction: Prediction, labels: torch.Tensor, unchanged: torch.Tensor) -> torch.Tensor:
        """Samples whose class an attack in reduced precision cannot know, so that it is made in fp32 as well.

        Args:
            prediction: of the examples.
            labels: of the samples.
            unchanged: the attack has found nothing and returned the image itself, which says nothing of how near it was, ``(N,)``.

        Returns:
            The positions of the images that are not adversarial, by a margin of less than ``slack`` or unchanged; none in fp32.
        """
        if not self.rounding:
            return labels.new_zeros(0, dtype=torch.int64)
        margin = self.criterion.margin(prediction.scores, labels)
        close = margin > -self.slack * prediction.scores.abs().amax(dim=1)
        return ((close | unchanged) & ~prediction.is_adversarial(labels)).nonzero()[:, 0]

    def drawing(self, ids: torch.Tensor, stream: str) -> AbstractContextManager[None]:
        """Inside, stochastic modules draw noise of that attack's stream."""
        return noise.sample_scope(ids, seed=self.seed, stream=f"{stream} attack")

    @contextmanager
    def attacked(self, ids: torch.Tensor, stream: str, draws: int = 1, fp32: bool = False) -> Iterator[GradientModel]:
        """The model for one batch of an attack; stochastic modules draw seeded noise for these samples.

        With ``fp32`` its passes are neither compiled nor in reduced precision.
        """
        usual = self.view.model
        with self.drawing(ids, stream):
            self.view.look = True
            self.view.draws = draws
            self.view.model = self.folded if fp32 else usual
            try:
                yield self.view
            finally:
                self.view.draws = 1
                self.view.model = usual


def _classes(logits: torch.Tensor) -> torch.Tensor:
    """Predicted classes; -1 where the logits are NaN."""
    return torch.where(torch.isnan(logits).any(dim=1), -1, logits.argmax(dim=1))
