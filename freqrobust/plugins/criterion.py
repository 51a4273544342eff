"""What counts as adversarial success: the criterion, decided for each sample from scores and labels.

``scores (N, K)`` are logits or, for a stochastic defense, the number of votes of each class (as floats). The harness
decides with them, so that the majority vote is one case of the same method; attacks decide with logits when to stop.
Rows with NaN never reach a criterion in the harness: they are never correct, and count as adversarial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from freqrobust.core.errors import PluginError, SpecError
from freqrobust.core.numbers import MOST
from freqrobust.plugins.plugin import Plugin

if TYPE_CHECKING:
    import torch


class Criterion(Plugin):
    """Decides which samples are correct on the clean image and which are adversarial.

    Subclasses implement :meth:`is_adversarial`. Where success is more or less than a wrong class, they also give the
    :meth:`margin` that stopping early and maximising go by.
    """

    def is_adversarial(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Whether an attack has succeeded on each sample, bool ``(N,)``."""
        raise PluginError(f"{type(self).__name__} does not implement is_adversarial()")

    def is_correct(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Whether each prediction counts in the clean accuracy, bool ``(N,)``; by default the largest score decides."""
        return scores.argmax(dim=1) == labels

    def margin(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """How far each sample is on the adversarial side, in units of the logits, ``(N,)``: not positive where it is not.

        By default the largest other logit minus the label's: ``max_{j != y} z_j - z_y``.
        """
        from freqrobust.numerics import losses

        return losses.margin(logits, labels)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What gradient attacks maximise in place of their default loss, ``(N,)``; by default the :meth:`margin`."""
        return self.margin(logits, labels)

    def check_classes(self, classes: int) -> None:
        """Refuse a model whose number of classes does not suit the criterion; by default nothing is refused.

        Raises:
            SpecError: one line that says what does not suit.
        """

    @property
    def correct_is_largest(self) -> bool:
        """Whether a prediction is correct exactly where the label has the largest score."""
        return type(self).is_correct is Criterion.is_correct


class Misclassification(Criterion):
    """An adversarial example is predicted as any class but the label; attacks keep their own losses."""

    def is_adversarial(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return scores.argmax(dim=1) != labels


class Targeted(Criterion):
    """An adversarial example is predicted as the target class.  (Szegedy et al. 2014; loss: Carlini and Wagner 2017, f_6)

    The loss is the margin to the target, ``z_t - max_{j != t} z_j``. Samples whose label is the target cannot be
    adversarial, and so count as robust where they are correct; so do samples predicted as a third class.
    """

    positional: ClassVar[str | None] = "target"

    target: int | Literal["next"] = Field(
        description="target class: its number, or next: the class after the label", examples=["next"]
    )

    @field_validator("target", mode="before")
    @classmethod
    def _class_or_next(cls, value: Any) -> Any:
        text = str(value).strip()
        if text != "next" and not (text.isdigit() and int(text) <= MOST):
            raise ValueError("should be the number of a class or 'next'")
        return text if text == "next" else int(text)

    def targets(self, labels: torch.Tensor, classes: int) -> torch.Tensor:
        """The target class of each sample, int64 ``(N,)``."""
        return (labels + 1) % classes if self.target == "next" else labels.new_full(labels.shape, self.target)

    def is_adversarial(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        targets = self.targets(labels, scores.shape[1])
        return (scores.argmax(dim=1) == targets) & (targets != labels)

    def margin(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from freqrobust.numerics import losses

        return -losses.margin(logits, self.targets(labels, logits.shape[1]))

    def check_classes(self, classes: int) -> None:
        if self.target != "next" and self.target >= classes:
            raise SpecError(f"targeted: target is {self.target}, but the model has the classes 0 to {classes - 1}")


class TopK(Criterion):
    """An adversarial example has a label that is not among the k largest scores.  (Lapin, Hein, Schiele 2016, "Top-k error")

    Clean predictions are correct where the label is among them. Classes with the same score as the label are counted
    before it, so that a class without votes is never among them. The loss is the margin ``z_[k] - z_y``, where
    ``z_[k]`` is the k-th largest logit of the other classes; for k = 1 it is that of misclassification.
    """

    positional: ClassVar[str | None] = "k"

    k: int = Field(5, ge=1, le=MOST, description="how many of the largest scores count")

    def is_correct(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        own = scores.gather(1, labels[:, None])
        return (scores >= own).sum(dim=1) <= self.k  # the label itself is one of them

    def is_adversarial(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return ~self.is_correct(scores, labels)

    def margin(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        others = logits.scatter(1, labels[:, None], float("-inf"))
        return others.topk(self.k, dim=1).values[:, -1] - logits.gather(1, labels[:, None])[:, 0]

    def check_classes(self, classes: int) -> None:
        if self.k >= classes:
            raise SpecError(f"topk: k should be less than the number of classes ({classes}), but is {self.k}")
