"""The values of a cell that are neither its identity nor outcomes of single samples, each declared once.

A new value is a field of :class:`CellNumbers` and the place that computes it: the journal, the report, the merging of
parts and every form of report follow from the declaration. The harness imports this module; how values are written is
in :mod:`freqrobust.results.view`.
"""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import Field

from freqrobust.results.distances import DistanceRecord
from freqrobust.results.records import _Part
from freqrobust.results.value import Value, concatenated, counted, dropped, first


class PerturbationRecord(_Part):
    """Sizes of the perturbations of all successful examples."""

    successes: Annotated[int, Value("adversarial examples", operator.add)]
    linf_max: Annotated[float, Value("largest Linf norm", max)]
    l2_mean: Annotated[float, Value("mean L2 norm", dropped)]
    survive_rounding: Annotated[int | None, Value("adversarial after rounding to 8 bits", operator.add, zero=True)] = (
        Field(
            None,
            description="how many of them are still adversarial and within the budget with every pixel rounded to the "
            "nearest multiple of 1/255; null without any, and for stochastic defenses",
        )
    )

    def merged(self, other: PerturbationRecord) -> PerturbationRecord:
        """The sizes of the examples of both."""
        total = self.successes + other.successes
        mean = (self.l2_mean * self.successes + other.l2_mean * other.successes) / max(1, total)
        counts = [part.survive_rounding for part in (self, other) if part.successes]
        known = [count for count in counts if count is not None]
        return PerturbationRecord(
            successes=total,
            linf_max=max(self.linf_max, other.linf_max),
            l2_mean=mean,
            survive_rounding=sum(known) if counts and len(known) == len(counts) else None,
        )


class CellNumbers(_Part):
    """Everything that is recorded of a cell besides its identity and its outcomes."""

    gradients: Annotated[
        Literal["exact", "straight-through", "surrogate"] | None, Value("gradients of the defense", first)
    ] = Field(None, description="how an adaptive attack differentiates the defense; for oblivious cells it did not")
    votes: Annotated[int | None, Value("votes", first)] = Field(
        None, description="majority votes per sample, for stochastic defenses"
    )
    eot: Annotated[int | None, Value("averaged gradients (EOT)", first)] = Field(
        None, description="draws of a stochastic defense that the harness had the attack average"
    )
    batch_size: Annotated[int | None, Value("batch size", min)] = Field(
        None, description="images per batch, after any retries that ran out of memory"
    )
    inherited: Annotated[int, Value("samples inherited from a smaller eps", operator.add)] = Field(
        0, description="samples that the same attack misclassified at a smaller eps and that it did not try again"
    )
    notes: Annotated[list[str], Value("", concatenated, "note")] = Field(
        [], description="what the attack reports about itself"
    )
    breakdown: Annotated[dict[str, int], Value("samples misclassified by each part", counted, "note")] = Field(
        {}, description="samples misclassified by each part of the attack"
    )
    chance_accuracy: Annotated[float | None, Value("chance accuracy", dropped, "column", share=True)] = Field(
        None, description="accuracy that these predictions would have if they were independent of the labels"
    )
    clean_agreement: Annotated[float | None, Value("agreement with clean predictions", dropped, share=True)] = Field(
        None, description="share predicted as on the clean image"
    )
    perturbation: Annotated[PerturbationRecord | None, Value("perturbation", PerturbationRecord.merged)] = None
    distances: Annotated[DistanceRecord | None, Value("distances", DistanceRecord.merged)] = Field(
        None, description="of a minimum-norm attack: how far the nearest adversarial example of every sample is"
    )
    seconds: Annotated[float, Value("seconds", operator.add, "column")] = 0.0
    forwards: Annotated[int, Value("forward passes", operator.add)] = Field(0, description="forward passes, in images")
    backwards: Annotated[int, Value("backward passes", operator.add)] = Field(
        0, description="backward passes, in images"
    )
