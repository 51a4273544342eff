"""The models and the data of a run, loaded as its options say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freqrobust.core.errors import DataError, ModelError, SpecError
from freqrobust.core.image_size import size_text
from freqrobust.core.options import Options
from freqrobust.core.progress import Progress, Silent
from freqrobust.data.dataset import ImageData, Subset
from freqrobust.data.input_config import InputConfig, requested
from freqrobust.data.lazy_images import LazyImages
from freqrobust.data.loading import as_data, load_data
from freqrobust.models.fingerprint import fingerprint
from freqrobust.models.loading import LoadedNetwork, load_network, with_normalization
from freqrobust.models.timm_config import input_of
from freqrobust.plugins.base import Attack, Defense
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.criterion import Criterion
from freqrobust.plugins.selection import (
    listed,
    parse_attacks,
    parse_certificates,
    parse_criterion,
    parse_defenses,
    source_spec,
)

Model = nn.Module | str | os.PathLike[str]
#: The model and the data where none is named.
DEMO, DEMO_DATA = "demo", "digits"
#: So many files that were left out are named.
NAMED = 3


def open_inputs(
    models: Sequence[Model],
    data: Any,
    config: Any,
    device: torch.device,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> tuple[list[nn.Module], ImageData | None]:
    """The networks and the data of a run, loaded where specs name them.

    The networks are loaded first, because they say how images are resized and cropped, and then the data, on which a
    normalisation that nothing says is chosen.

    Args:
        models: networks, or specs.
        data: images and labels, a dataset or a spec; None where none is needed.
        config: how they are loaded, with the fields of ``ModelOptions`` and ``DataOptions``.
        device: of the networks.
        cache_dir: directory for networks that a source trains or downloads.
        progress: is told what was loaded.

    Raises:
        FreqRobustError: a model or the data cannot be loaded, or they do not fit together.
    """
    progress = progress or Silent()
    for model in models:
        if not isinstance(model, nn.Module | str | os.PathLike):
            raise ModelError(f"expected a model or a model spec, but got {type(model).__name__}")
    parts = [
        model
        if isinstance(model, nn.Module)
        else load_network(
            model,
            arch=arch,
            normalize=normalize,
            trust=config.trust_checkpoint,
            cache_dir=cache_dir,
            progress=progress,
        )
        for model, (arch, normalize) in zip(models, config.per_model(len(models)), strict=True)
    ]
    expected = expected_input(parts) if data is not None else None
    images = open_data(data, config, expected) if data is not None else None
    networks: list[nn.Module] = []
    for part in parts:
        if isinstance(part, nn.Module):
            networks.append(part)
            continue
        network = with_normalization(part, images, device, cache_dir)
        progress.say(f"model: {network.arch} ({network.spec})")
        progress.say(f"normalisation: {network.normalization}, source: {network.normalization.source}")
        for warning in filter(None, (network.note, network.normalization.warning)):
            progress.say(f"warning: {warning}")
        networks.append(network)
    if images is not None and not (isinstance(data, ImageData) and networks == parts):
        say_preprocessing(images, networks, progress)
    return networks, images


def needed(images: ImageData | None) -> ImageData:
    """The data of a run that cannot do without.

    Raises:
        DataError: there is none.
    """
    if images is None:
        raise DataError("expected (images, labels), a dataset, a DataLoader or a data spec, but got None")
    return images


def expected_input(models: Sequence[nn.Module | LoadedNetwork]) -> InputConfig | None:
    """How the models expect images; None where none of them says it.

    The result of models that differ raises an error once an image has to be resized: arrays are used as they are.
    """
    configs = [
        config
        for model in models
        if (config := input_of(model) if isinstance(model, nn.Module) else model.input) is not None
    ]
    if not configs:
        return None
    other = next((config for config in configs if not config.same_pixels(configs[0])), None)
    return configs[0] if other is None else Differing.of(configs[0], other)


class Differing(InputConfig):
    """Stands for the preprocessing of models that differ in it."""

    @classmethod
    def of(cls, first: InputConfig, other: InputConfig) -> Differing:
        """The models are one that expects ``first``, and another one."""

        def refuse(image: Any) -> Any:
            raise SpecError(
                f"the models expect different images: {first} (source: {first.source}), and {other} (source: "
                f"{other.source}); give one size for all of them with --resize and --crop"
            )

        return cls(None, None, source="several models", pipeline=refuse)


def open_data(data: Any, config: Any, expected: InputConfig | None = None) -> ImageData:
    """The dataset: loaded where it is a spec, and checked; the samples that ``config`` asks for.

    Args:
        data: images and labels, a dataset or a spec.
        config: the options.
        expected: how the models expect images; the sizes in ``config`` replace it.
    """
    limit, first, seed = (getattr(config, name, None) for name in ("limit", "first", "seed"))  # verify has none
    if isinstance(data, str | os.PathLike):
        given: dict[str, Any] = {
            "data_dir": config.data_dir,
            "split": config.split,
            "limit": limit,
            "first": first,
            "seed": seed or 0,
            "resize": config.resize,
            "crop": config.crop,
            "input": expected,
            **_storage(config),
        }
        return as_data(load_data(os.fspath(data), **given))
    images = as_data(data, first=first, config=requested(expected, config.resize, config.crop))
    index = Subset(limit, first, seed or 0).index(images.labels)
    return images if index is None else images.take(index)


def open_train_data(config: Any, images: ImageData | None = None) -> ImageData | None:
    """The training data, of a dataset with splits its training split; None where there is none.

    Args:
        config: the options.
        images: the data of the run: training images in files are resized and cropped in the same way.
    """
    given = config.train_data
    if given is None:
        return None
    expected = images.preprocessing if images is not None else None
    sizes = {"resize": config.resize, "crop": config.crop}
    if isinstance(given, str | os.PathLike):
        where: dict[str, Any] = {"data_dir": config.data_dir, **_storage(config)}
        return as_data(load_data(os.fspath(given), split="train", input=expected, **where, **sizes))
    return as_data(given, "train data", config=requested(expected, **sizes))


def _storage(config: Any) -> dict[str, Any]:
    """How images in files are kept and checked."""
    return {"data_cache": config.data_cache, "skip_unreadable": config.skip_unreadable}


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


def say_preprocessing(data: ImageData, models: Sequence[nn.Module], progress: Progress) -> None:
    """Tell ``progress`` how the images were resized and cropped, or that they have another size than a model expects."""
    if data.preprocessing is not None:
        progress.say(f"images: {data.preprocessing}, source: {data.preprocessing.source}")
    for message in dict.fromkeys(filter(None, (other_size(model, data) for model in models))):
        progress.say(f"warning: {message}")


def other_size(model: nn.Module, data: ImageData) -> str | None:
    """That the images have another size than the model expects, which nobody asked for; None where that is not so."""
    applied, expected = data.preprocessing, input_of(model)
    if expected is None or expected.size in (None, data.shape[1:]):
        return None
    if applied is not None and (applied.given or applied.same_pixels(expected)):
        return None
    return (
        f"the images have {size_text(data.shape[1:])} pixels and are used as they are, but the model expects "
        f"{size_text(expected.size)} (source: {expected.source}); --resize and --crop change their size"
    )


def say_data(data: ImageData, progress: Progress, training: ImageData | None = None) -> None:
    """Tell ``progress`` what the data is, and which images were left out of it and of the training data."""
    shape = "x".join(map(str, data.shape))
    restricted = ", to which predictions are restricted" if data.class_subset else ""
    progress.say(f"data: {data.spec}, {len(data)} images {shape}, {data.classes} classes{restricted}")
    if isinstance(data.images, LazyImages):
        progress.say(f"images: {data.images}")
    for message in unreadable(data, training):
        progress.say(f"warning: {message}")


def unreadable(data: ImageData | None, training: ImageData | None = None) -> list[str]:
    """What was left out of the data, and of the training data, because it cannot be decoded."""
    found = [left_out(data)] if data is not None and data.unreadable else []
    return [*found, f"training data: {left_out(training)}"] if training is not None and training.unreadable else found


def left_out(data: ImageData) -> str:
    """That files were left out because they cannot be decoded, with the names of the first ones."""
    count, more = len(data.unreadable), ", ..." if len(data.unreadable) > NAMED else ""
    images = "image cannot be read and was" if count == 1 else "images cannot be read and were"
    return f"{count} {images} left out: {', '.join(data.unreadable[:NAMED])}{more}"


def recorded(config: Options, models: Sequence[Any], data: Any) -> dict[str, Any]:
    """The options of a call for its report, with specs in the place of objects."""
    values: dict[str, Any] = {"model": models, "data": data}
    for name, base in (("attacks", Attack), ("defenses", Defense), ("certify", Certificate)):
        items = listed(getattr(config, name, None), name, base)
        if items:
            values[name] = [item if isinstance(item, str) else _spec(item, base) for item in items]
    criterion = getattr(config, "criterion", None)
    if isinstance(criterion, Criterion):
        values["criterion"] = parse_criterion(criterion).spec
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
