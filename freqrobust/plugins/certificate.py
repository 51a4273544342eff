"""Certificates: plugins that prove, for single samples, that no perturbation within a budget changes the prediction.

This module does not import torch, so that help texts can be built without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from freqrobust.core.errors import PluginError, SpecError
from freqrobust.numerics.threat import Norm, Threat
from freqrobust.plugins.plugin import Plugin

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.base import Defense

#: Whether a certificate is a proof about the model itself.
Guarantee = Literal["deterministic", "statistical"]


@dataclass(frozen=True)
class Certified:
    """What a certificate says about the samples of one batch.

    Attributes:
        certified: bool ``(N,)``: proved to be predicted as the label within the whole budget.
        radius: ``(N,)``: the largest budget for which that is proved, 0 where nothing is; None where the method decides
            for one budget only.
        abstained: bool ``(N,)``: a statistical method could not decide; None where it does not abstain.
        forwards: forward passes that were made, in images.
    """

    certified: torch.Tensor
    radius: torch.Tensor | None = None
    abstained: torch.Tensor | None = None
    forwards: int = 0


@dataclass(frozen=True)
class CertificateContext:
    """What a certificate is told besides the model and the images.

    Attributes:
        ids: dataset indices of the samples, int64 ``(N,)``.
        seed: the seed of the run; all randomness is seeded by it and by the ids.
        defenses: that the model was defended with, left first; empty for the undefended model.
        correct: bool ``(N,)``: the clean image is predicted as its label, as the clean accuracy counts it; None outside of
            a run.
    """

    ids: torch.Tensor
    seed: int = 0
    defenses: Sequence[Defense] = field(default_factory=tuple)
    correct: torch.Tensor | None = None


class Certificate(Plugin):
    """A lower bound of the robust accuracy. Subclasses implement :meth:`certify`.

    A sample counts where it is certified: the accuracy of the certified object within the budget is at least the share
    of these samples. An adversarial example within the budget for such a sample contradicts the proof, and stops the run
    where the certificate is deterministic.
    """

    command: ClassVar[str | None] = None
    reserved_fields: ClassVar[frozenset[str]] = frozenset({"seed"})
    #: "deterministic": a proof about the model itself; "statistical": it may be wrong with a stated probability, or is
    #: about another object, such as the smoothed classifier, than what attacks are run on
    guarantee: ClassVar[Guarantee] = "deterministic"
    #: the radius of a sample does not depend on the parameter ``eps``: a sweep over it is measured once
    radius_decides: ClassVar[bool] = False
    #: images that it passes through the model together for each image that it is given; its batches are smaller by that
    expansion: ClassVar[int] = 1

    def certify(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: CertificateContext
    ) -> Certified:
        """Which samples are certified; ``model`` maps images ``(N, C, H, W)`` in [0, 1] to logits ``(N, K)``.

        Raises:
            SpecError: the model has a part that the method does not support; one line that names it.
        """
        raise PluginError(f"{type(self).__name__} does not implement certify()")

    def statement(self) -> str:
        """What exactly is certified, in one sentence."""
        raise PluginError(f"{type(self).__name__} does not implement statement()")

    def statement_about(self, defenses: Sequence[Defense]) -> str:
        """The same for a model with these defenses; by default :meth:`statement`."""
        return self.statement()

    def check_defenses(self, defenses: Sequence[Defense]) -> None:
        """Refuse defenses that it can certify nothing about, before anything is measured.

        By default a deterministic certificate refuses stochastic defenses, whose predictions are random.

        Raises:
            SpecError: one line that says which defense it is, and why.
        """
        random = next((defense for defense in defenses if defense.stochastic), None)
        if self.guarantee == "deterministic" and random is not None:
            raise SpecError(
                f"{type(self).__name__} certifies deterministic models, but {type(random).__name__} is stochastic"
            )

    def passes(self) -> int:
        """Forward passes of the model per sample that it will make, to announce the cost; 0 where it is small."""
        return 0

    def threat(self) -> Threat | None:
        """The budget; by default the fields ``norm`` and ``eps`` where both exist."""
        norm, eps = getattr(self, "norm", None), getattr(self, "eps", None)
        if norm is None or eps is None:
            return None
        if norm not in get_args(Norm):
            raise PluginError(
                f"{type(self).__name__}: the norm of a threat should be one of {', '.join(get_args(Norm))}, but is {norm!r}"
            )
        return Threat(norm, float(eps))
