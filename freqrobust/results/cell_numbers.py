"""The values of a cell that are neither its identity nor outcomes of single samples, each declared once.

A new value is a field of :class:`CellNumbers` and the place that computes it: the journal, the report, the merging of
parts and every form of report follow from the declaration. The harness imports this module; how values are written is
in :mod:`freqrobust.results.view`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from freqrobust.results.records import _Part


@dataclass(frozen=True)
class Value:
    """What a field is to readers and to a merge of two parts of a cell.

    Attributes:
        label: its name in reports.
        merge: the value over the samples of both parts, from the values of each.
        place: a column of the tables that have room, a footnote, or among the details.
        share: it is written in percent.
    """

    label: str
    merge: Callable[[Any, Any], Any]
    place: Literal["column", "note", "detail"] = "detail"
    share: bool = False


def first(a: Any, b: Any) -> Any:
    """For settings, which are the same for all parts."""
    return a


def dropped(a: Any, b: Any) -> None:
    """For what the parts do not determine."""


def concatenated(a: list[str], b: list[str]) -> list[str]:
    """Both lists, without repetitions."""
    return list(dict.fromkeys([*a, *b]))


def counted(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    """The sum of the counts of each name."""
    return {name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}}


def declared(cls: type[BaseModel]) -> dict[str, Value]:
    """The fields of a record that are declared as values, by name."""
    return {
        name: item for name, field in cls.model_fields.items() for item in field.metadata if isinstance(item, Value)
    }


def merged(one: BaseModel, other: BaseModel) -> dict[str, Any]:
    """The declared values over the samples of both; what one of them lacks is that of the other."""
    found: dict[str, Any] = {}
    for name, value in declared(type(one)).items():
        a, b = getattr(one, name), getattr(other, name)
        missing = a is None or b is None
        found[name] = value.merge(a, b) if value.merge is dropped or not missing else a if b is None else b
    return found


class PerturbationRecord(_Part):
    """Sizes of the perturbations of all successful examples."""

    successes: Annotated[int, Value("adversarial examples", operator.add)]
    linf_max: Annotated[float, Value("largest Linf norm", max)]
    l2_mean: Annotated[float, Value("mean L2 norm", dropped)]

    def merged(self, other: PerturbationRecord) -> PerturbationRecord:
        """The sizes of the examples of both."""
        total = self.successes + other.successes
        mean = (self.l2_mean * self.successes + other.l2_mean * other.successes) / max(1, total)
        return PerturbationRecord(successes=total, linf_max=max(self.linf_max, other.linf_max), l2_mean=mean)


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
    seconds: Annotated[float, Value("seconds", operator.add, "column")] = 0.0
    forwards: Annotated[int, Value("forward passes", operator.add)] = Field(0, description="forward passes, in images")
    backwards: Annotated[int, Value("backward passes", operator.add)] = Field(
        0, description="backward passes, in images"
    )
