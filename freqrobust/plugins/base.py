"""Attacks and defenses: frozen pydantic models with one method each.

This module does not import torch, so that help texts can be built without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

from freqrobust.core.errors import PluginError
from freqrobust.numerics.threat import Norm, Threat
from freqrobust.plugins.plugin import Plugin

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext, DefenseContext, Samples
    from freqrobust.plugins.dataset import ImageDataset


class Attack(Plugin):
    """Something that changes images. Subclasses implement :meth:`perturb`."""

    #: "adversarial": worst case inside a budget; "shift": a fixed change of the input
    kind: ClassVar[Literal["adversarial", "shift"]] = "adversarial"
    #: the attack differentiates the model
    needs_gradient: ClassVar[bool] = True
    #: the result for a sample does not depend on which other samples share its batch
    batch_invariant: ClassVar[bool] = True
    #: averages over ``context.eot`` draws of a random model by itself; otherwise every pass it makes is such a mean
    averages_draws: ClassVar[bool] = False
    #: it asks ``context.criterion`` what counts as adversarial; otherwise it is refused under any criterion but
    #: misclassification
    any_criterion: ClassVar[bool] = False
    #: in a sweep, a sample that is adversarial at a smaller budget counts at a larger one as well, and is not attacked again
    nested: ClassVar[bool] = True
    #: it compares predictions of one sample, which has no meaning where they are random: refused for stochastic defenses
    deterministic_only: ClassVar[bool] = False
    reserved_fields: ClassVar[frozenset[str]] = frozenset({"seed"})

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        """Changed images, same shape ``(N, C, H, W)``, float32; adversarial ones in [0, 1] and inside the budget.

        ``model`` maps images to logits ``(N, K)``. With ``context.goal == "decide"`` the attack may stop on a sample
        once ``context.is_adversarial(logits, labels)``; with ``"maximize"`` the highest-loss example is returned for every sample.
        All randomness comes from ``context``.
        """
        raise PluginError(f"{type(self).__name__} does not implement perturb()")

    def eot_used(self, eot: int) -> int:
        """Draws of a random model over which it averages, when the harness asks for ``eot``."""
        return eot

    def check_data(self, data: ImageDataset) -> None:
        """Refuse data that the attack cannot take, before anything is measured; by default nothing is refused.

        Raises:
            SpecError, DataError: one line that says what does not fit, and why.
        """

    def prepare(self, samples: Samples, context: AttackContext) -> Any:
        """Look at all samples before any of them is perturbed; for most attacks there is nothing to do.

        Called once for a model, with the samples that :meth:`perturb` will be called with, batch by batch. What it
        returns is there as ``context.prepared``. It may depend on the samples and on the seed, not on their order nor
        on the size of the batches.
        """
        return None

    def minimizes(self) -> Norm | None:
        """The norm that a minimum-norm attack minimises; None for all others.

        Its examples give the robust accuracy at every budget, and the report has their distances.
        """
        return None

    def threat(self) -> Threat | None:
        """The declared budget: by default the attributes ``norm`` and ``eps``; None without an ``eps``.

        Raises:
            PluginError: there is an ``eps``, but no norm that it is measured in.
        """
        norm, eps = getattr(self, "norm", None), getattr(self, "eps", None)
        if self.kind != "adversarial" or eps is None:
            return None
        if norm is None:
            raise PluginError(
                f"{type(self).__name__} has eps = {eps}, but no norm that it is measured in, so that its budget could not be "
                "checked: set norm, or override threat()"
            )
        if norm not in get_args(Norm):
            raise PluginError(
                f"{type(self).__name__}: the norm of a threat should be one of {', '.join(get_args(Norm))}, but is {norm!r}"
            )
        return Threat(norm, float(eps))


class AttackFamily:
    """Many attacks of one library under one prefix: ``FAMILY:MEMBER:key=value``.

    Declared by entry point in the group ``freqrobust.attack_families``. What needs the library raises
    :class:`SpecError`, with a message that says how to install it, where it is not installed.
    """

    def members(self) -> list[str]:
        """The names of the members."""
        raise PluginError(f"{type(self).__name__} does not implement members()")

    def member(self, name: str) -> type[Attack]:
        """The attack class of a member; its ``spec_name`` is ``FAMILY:MEMBER``."""
        raise PluginError(f"{type(self).__name__} does not implement member()")


class RemovedBand(NamedTuple):
    """Frequencies that a filter removes: those with ``low <= distance < high`` from DC, in cycles per image."""

    low: float
    high: float
    shape: Literal["circle", "square"] = "circle"

    def __str__(self) -> str:
        """``distances of 12 or more cycles per image``."""
        measured = "" if self.shape == "circle" else " (square)"
        if self.high == float("inf"):
            return f"distances of {self.low:g} or more cycles per image{measured}"
        return f"distances from {self.low:g} to less than {self.high:g} cycles per image{measured}"


class Defense(Plugin):
    """Something that changes the model. Subclasses implement :meth:`apply`."""

    #: the defended model draws random numbers (from ``freqrobust.noise``) when it predicts
    stochastic: ClassVar[bool] = False
    #: gradients of the defended model are exact
    differentiable: ClassVar[bool] = True
    #: ``apply`` trains, and so needs training data
    trains: ClassVar[bool] = False
    command: ClassVar[str | None] = "eval"

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        """The defended model. ``model`` must not be changed: copy it first."""
        raise PluginError(f"{type(self).__name__} does not implement apply()")

    @property
    def needs_train_data(self) -> bool:
        """Whether ``apply`` will ask for training data; by default the class attribute ``trains``."""
        return self.trains

    def smoothing_sigma(self) -> float | None:
        """Standard deviation of the Gaussian noise that the defended model predicts under; None where it adds none.

        The defended model then has the model behind the noise as its attribute ``model``.
        """
        return None

    def removed_band(self) -> RemovedBand | None:
        """Frequencies that the defense removes from the input before anything else; None where it removes none.

        The filter has to be linear.
        """
        return None

    def surrogate(self, model: Any) -> Any:
        """A differentiable stand-in that attacks use for gradients; required when ``differentiable = False``."""
        raise PluginError(f"{type(self).__name__} is not differentiable and gives no surrogate()")


class InputDefense(Defense):
    """A defense that only transforms images. Subclasses implement :meth:`transform`.

    With ``differentiable = False`` gradients pass straight through the transform (BPDA, Athalye et al. 2018),
    or through ``surrogate(images)`` where it is given.
    """

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(N, C, H, W)`` in, images of the same shape out."""
        raise PluginError(f"{type(self).__name__} does not implement transform()")

    def surrogate(self, model: Any) -> Any:
        """A differentiable stand-in for :meth:`transform`; by default the identity."""
        return model

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        from freqrobust.plugins.bpda import TransformedInput

        return TransformedInput(self, model)
