"""Values of a record that reports show, declared at their fields: their names, and how two parts are merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel


@dataclass(frozen=True)
class Value:
    """What a field is to readers and to a merge of two parts of a cell.

    Attributes:
        label: its name in reports.
        merge: the value over the samples of both parts, from the values of each.
        place: a column of the tables that have room, a footnote, or among the details.
        share: it is written in percent.
        zero: it is also written where it is 0.
        by_norm: it is in units of the norm of its record, which is shown behind the label.
    """

    label: str
    merge: Callable[[Any, Any], Any]
    place: Literal["column", "note", "detail"] = "detail"
    share: bool = False
    zero: bool = False
    by_norm: bool = False


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
