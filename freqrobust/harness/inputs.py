"""The models and the data of a run, loaded as its options say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freqrobust.core.config import DataOptions, ModelOptions
from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.options import Options
from freqrobust.core.progress import Progress, Silent
from freqrobust.data.dataset import ImageData, Subset
from freqrobust.data.loading import as_data, load_data
from freqrobust.models.fingerprint import fingerprint
from freqrobust.models.loading import load_model
from freqrobust.plugins.base import Attack, Defense
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.selection import listed, parse_attacks, parse_certificates, parse_defenses, source_spec

Model = nn.Module | str | os.PathLike[str]
#: The model and the data where none is named.
DEMO, DEMO_DATA = "demo", "digits"


def open_data(data: Any, config: DataOptions) -> ImageData:
    """The dataset: loaded where it is a spec, and checked; the samples that ``config`` asks for."""
    limit, first, seed = (getattr(config, name, None) for name in ("limit", "first", "seed"))  # verify has none
    if isinstance(data, str | os.PathLike):
        given: dict[str, Any] = {
            "data_dir": config.data_dir,
            "split": config.split,
            "limit": limit,
            "first": first,
            "seed": seed or 0,
        }
        return as_data(load_data(os.fspath(data), **given))
    images = as_data(data, first=first)
    index = Subset(limit, first, seed or 0).index(images.labels)
    return images if index is None else images.take(index)


def open_train_data(config: DataOptions) -> ImageData | None:
    """The training data, of a dataset with splits its training split; None where there is none."""
    given = config.train_data
    if isinstance(given, str | os.PathLike):
        return as_data(load_data(os.fspath(given), data_dir=config.data_dir, split="train"))
    return as_data(given, "train data") if given is not None else None


def open_models(
    models: Sequence[Model],
    config: ModelOptions,
    data: ImageData | None,
    device: torch.device,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> list[nn.Module]:
    """The networks, loaded where a spec names them; ``progress`` is told how.

    Raises:
        FreqRobustError: a model cannot be loaded.
    """
    progress = progress or Silent()
    networks: list[nn.Module] = []
    for model, (arch, normalize) in zip(models, config.per_model(len(models)), strict=True):
        if isinstance(model, nn.Module):
            networks.append(model)
            continue
        if not isinstance(model, str | os.PathLike):
            raise ModelError(f"expected a model or a model spec, but got {type(model).__name__}")
        network = load_model(
            model,
            arch=arch,
            normalize=normalize,
            trust=config.trust_checkpoint,
            data=data,
            device=device,
            cache_dir=cache_dir,
            progress=progress,
        )
        progress.say(f"model: {network.arch} ({network.spec})")
        progress.say(f"normalisation: {network.normalization}, source: {network.normalization.source}")
        for warning in filter(None, (network.note, network.normalization.warning)):
            progress.say(f"warning: {warning}")
        networks.append(network)
    return networks


def with_demo(config: Any, progress: Progress, needs_data: bool = True) -> Any:
    """The options with the demo where no model is named, and with its data where it is the only model.

    Args:
        config: options with a model and data.
        progress: is told that it is the demo.
        needs_data: whether there has to be data.

    Raises:
        SpecError: there is a model, but no data.
    """
    models = config.model or [DEMO]
    demo = all(model == DEMO for model in models)
    if needs_data and config.data is None and not demo:
        raise SpecError("--model needs --data: a dataset (cifar10, ...), a file .npz, folder:DIR or module:callable")
    if not config.model:
        progress.say("no --model given: using the demo, a small CNN for handwritten digits of 8 x 8 pixels")
    data = DEMO_DATA if config.data is None and demo and needs_data else config.data
    train_data = DEMO_DATA if config.train_data is None and demo else config.train_data
    return config.model_copy(update={"model": models, "data": data, "train_data": train_data})


def say_data(data: ImageData, progress: Progress) -> None:
    """Tell ``progress`` what the data is."""
    shape = "x".join(map(str, data.shape))
    restricted = ", to which predictions are restricted" if data.class_subset else ""
    progress.say(f"data: {data.spec}, {len(data)} images {shape}, {data.classes} classes{restricted}")


def recorded(config: Options, models: Sequence[Any], data: Any) -> dict[str, Any]:
    """The options of a call for its report, with specs in the place of objects."""
    values: dict[str, Any] = {"model": models, "data": data}
    for name, base in (("attacks", Attack), ("defenses", Defense), ("certify", Certificate)):
        items = listed(getattr(config, name, None), name, base)
        if items:
            values[name] = [item if isinstance(item, str) else _spec(item, base) for item in items]
    return config.record(**values)


def _spec(item: Any, base: type[Attack] | type[Defense] | type[Certificate]) -> str:
    if base is Certificate:
        return parse_certificates([item])[0].spec
    return source_spec(parse_defenses([item])[0]) if base is Defense else parse_attacks([item])[0].spec


def named_by(model: Any) -> Any:
    """What tells models apart, without hashing the weights again where the file that they came from was hashed."""
    if getattr(model, "sha256", None) is None:
        return fingerprint(model)
    return [model.sha256, model.arch, model.normalization.mean, model.normalization.std]
