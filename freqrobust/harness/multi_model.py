"""Several models in one evaluation: each measured on the same samples, all in one report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import nn

from freqrobust.core.errors import ModelError
from freqrobust.harness.inputs import Model
from freqrobust.results.report import Report

Models: TypeAlias = Model | Sequence[Model] | Mapping[str, Model]


def named(models: Models) -> list[tuple[str | None, Model]]:
    """Models with their names: of a mapping its keys, else None.

    Raises:
        ModelError: the collection is empty, or something in it is no model.
    """
    pairs: list[tuple[str | None, Model]]
    if isinstance(models, nn.Module | str | os.PathLike):
        return [(None, models)]
    if isinstance(models, Mapping):
        pairs = [(str(name), model) for name, model in models.items()]
    elif isinstance(models, Iterable):
        pairs = [(None, model) for model in models]
    else:
        raise ModelError(f"expected a model, a model spec, or several of them, but got {type(models).__name__}")
    if not pairs:
        raise ModelError("expected at least one model, but got none")
    for name, model in pairs:
        if not isinstance(model, nn.Module | str | os.PathLike):
            raise ModelError(f"expected a model or a model spec, but got {type(model).__name__} for {name or 'one'}")
    return pairs


#: The parts of a report that are about one of its models.
_NUMBERED = ("cells", "worst_case", "certificates", "corruptions", "diagnostics", "analyses", "examples", "warnings")


def join(reports: Sequence[Report]) -> Report:
    """One report of several models that were measured on the same samples with the same settings.

    Raises:
        ValueError: they were not.
    """
    first = reports[0]
    for other in reports[1:]:
        if (other.data, other.seed, other.environment) != (first.data, first.seed, first.environment):
            raise ValueError("only reports of the same data, seed and environment can be joined")
    joined = first.model_copy(deep=True)
    joined.models = []
    for field in _NUMBERED:
        setattr(joined, field, [])
    for report in reports:
        offset = len(joined.models)
        joined.models += [record.model_copy() for record in report.models]
        for field in _NUMBERED:
            for part in getattr(report, field):
                getattr(joined, field).append(_numbered(part, offset))
    if any(report.status == "partial" for report in reports):
        joined.status = "partial"
    return joined


def _numbered(part: Any, offset: int) -> Any:
    """A copy that counts its model from ``offset``; an analysis has models of its own."""
    return part.model_copy(update={"model": part.model + offset}) if hasattr(part, "model") else part.model_copy()
