"""The result of one check, and the sources of the checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

ATHALYE = "Athalye, Carlini, Wagner 2018, sec. 3.1"
CARLINI = "Carlini et al. 2019"
TRAMER = "Tramer et al. 2020"
CROCE = "Croce and Hein 2020"
PINTOR = "Pintor et al. 2022"
#: How an attack is run for a check, by purpose, behind its spec where progress is shown.
HOW = {
    "attack": "",
    "transfer": ", transferred from the undefended model",
    "trace": ", watched at every step",
    "averaged": ", with averaged gradients",
}


class NotApplicable(Exception):  # noqa: N818  # not an error: a result of a check
    """A check cannot be run; the message says why."""


@dataclass(frozen=True)
class Finding:
    """What a check counted.

    Attributes:
        measured: samples, or a share of them; the check fails when it is more than the threshold.
        reason: what was counted, in words.
        beyond: samples that the check misclassified and that are robust in the report; None where the check does not
            count them.
        attack: the spec of the attack that was run.
        transferred: the attack was run on the undefended model.
        threshold: None for what the examination allows.
        share: ``measured`` and ``threshold`` are shares.
        n: the samples that were looked at; None for all that are examined.
    """

    measured: float
    reason: str
    beyond: int | None = None
    attack: str | None = None
    transferred: bool = False
    threshold: float | None = None
    share: bool = False
    n: int | None = None


class RunnableCheck(Protocol):
    """One check of the full part."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def misclassification_only(self) -> bool: ...

    def run(self, examination: Any) -> Finding:
        """The finding; raises :class:`NotApplicable` where the check cannot be made."""
