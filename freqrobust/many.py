"""Several models in one evaluation: each measured on the same samples, all in one report."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import nn

from freqrobust.data import ImageData, as_data
from freqrobust.devices import resolve_device
from freqrobust.errors import ModelError
from freqrobust.models import frozen, load_model
from freqrobust.plugin import Plugin
from freqrobust.results import Report

OneModel: TypeAlias = nn.Module | str | os.PathLike[str]
Models: TypeAlias = OneModel | Sequence[OneModel] | Mapping[str, OneModel]
Evaluate = TypeVar("Evaluate", bound=Callable[..., Report])


def named(models: Models) -> list[tuple[str | None, OneModel]] | None:
    """Names and models of a sequence or a mapping; None where it is one model.

    Raises:
        ModelError: the collection is empty, or something in it is no model.
    """
    pairs: list[tuple[str | None, OneModel]]
    if isinstance(models, nn.Module | str | os.PathLike):
        return None
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


def as_network(model: Models, data: ImageData, device: torch.device) -> nn.Module:
    """The network itself, loaded where a spec was given."""
    if isinstance(model, nn.Module):
        return model
    assert isinstance(model, str | os.PathLike)  # collections were taken apart before
    return load_model(model, data=data, device=device)


def for_each_model(evaluate_one: Evaluate) -> Evaluate:
    """Let an evaluation of one model also take a sequence, or a mapping from names, of models.

    All models are loaded and tried on two images before the first is measured, so that a wrong one is said at once.
    """

    @functools.wraps(evaluate_one)
    def evaluate(model: Models, data: Any, **options: Any) -> Report:
        pairs = named(model)
        if pairs is None:
            return evaluate_one(model, data, **options)
        images = as_data(data)
        if options.get("train_data") is not None:
            options["train_data"] = as_data(options["train_data"], "train data")
        for key in ("attacks", "defenses"):  # what can be read only once is read here
            if isinstance(options.get(key), Iterable) and not isinstance(options[key], str | Plugin):
                options[key] = list(options[key])
        device = resolve_device(options.get("device", "auto"))
        networks = [as_network(one, images, device) for _, one in pairs]
        for network in networks:
            _check(network, images)
        found = []
        for (name, _), network in zip(pairs, networks, strict=True):
            if options.get("progress") is not None and len(pairs) > 1:
                options["progress"].say(f"measuring {name or getattr(network, 'spec', type(network).__name__)}")
            report = evaluate_one(network, images, **options)
            if name is not None:
                report.models[0].name = name
            found.append(report)
        return join(found)

    return cast("Evaluate", evaluate)


def _check(network: nn.Module, data: ImageData) -> None:
    from freqrobust.harness import check_fit

    home = next((p.device for p in network.parameters()), torch.device("cpu"))
    with frozen(network):
        check_fit(network, data, home)


#: The parts of a report that are about one of its models.
_NUMBERED = ("cells", "worst_case", "corruptions", "diagnostics", "analyses", "warnings")


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
