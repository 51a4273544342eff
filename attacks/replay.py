"""Saved adversarial examples, shown to another model."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from freqrobust.core.errors import FreqRobustError, PluginError
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.base import Attack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.data.adversarial_sets import SavedSet
    from freqrobust.plugins.context import AttackContext


class Replay(Attack):
    """The saved example of each sample, found by its id: a transfer attack.  (Papernot et al. 2016)

    Of several saved sets, each sample gets the example with the largest margin of the criterion. The budget is that of the
    sets where they agree; else the attack is unbounded, and measured perturbations decide which threats it fits.
    """

    dir: str = Field(
        description="a folder written by --save-adversarial, or one of its files", examples=["adversarial"]
    )

    needs_gradient: ClassVar[bool] = False
    any_criterion: ClassVar[bool] = True
    positional: ClassVar[str | None] = "dir"

    @model_validator(mode="after")
    def _readable(self) -> Any:
        try:
            assert self.sets
        except FreqRobustError as error:
            raise ValueError(str(error)) from error
        return self

    @cached_property
    def sets(self) -> list[SavedSet]:
        """The saved sets, by file name."""
        from freqrobust.core.files import user_path
        from freqrobust.data.adversarial_sets import read_all

        return read_all(user_path(self.dir, "dir"))

    def resolved_params(self) -> dict[str, str]:
        """A hash of the files: other contents are another attack."""
        digest = hashlib.sha256()
        for saved in self.sets:
            for array in (saved.images, saved.ids, saved.labels):
                digest.update(array.numpy().tobytes())
        return {"sha256": digest.hexdigest()[:16]}

    def threat(self) -> Threat | None:
        """The budget that all sets were made for."""
        threats = {(one.meta.threat.norm, one.meta.threat.eps) if one.meta.threat else None for one in self.sets}
        first = self.sets[0].meta.threat
        return Threat(first.norm, first.eps) if len(threats) == 1 and first is not None else None

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        import torch

        candidates = [self._of(saved, images, labels, context.ids) for saved in self.sets]
        if len(candidates) == 1:
            return candidates[0]
        losses = torch.stack([context.criterion.margin(model(examples), labels) for examples in candidates])
        best = losses.nan_to_num(nan=float("inf")).argmax(dim=0)
        return torch.stack(candidates)[best, torch.arange(len(images), device=images.device)]

    def _of(self, saved: SavedSet, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        from freqrobust.data.adversarial_sets import positions

        rows = positions(ids.cpu(), saved, "replay")
        if saved.images.shape[1:] != images.shape[1:]:
            raise PluginError(
                f"replay: {saved.path} has images {tuple(saved.images.shape[1:])}, "
                f"but these are {tuple(images.shape[1:])}"
            )
        if not bool((saved.labels[rows] == labels.cpu()).all()):
            raise PluginError(
                f"replay: {saved.path} was made for other data ({saved.meta.data.spec}): some labels differ"
            )
        return saved.images[rows].to(images.device)
