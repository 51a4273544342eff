"""What a training is made of: its recipe resolved, its images split and changed, its network; all checked."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.files import identity
from freqrobust.core.source_hash import code_hash
from freqrobust.core.training_config import Recipe, TrainConfig
from freqrobust.core.user_code import running_user_code
from freqrobust.core.version import __version__
from freqrobust.data.dataset import ImageData, Subset, stratified
from freqrobust.data.input_config import requested
from freqrobust.data.loading import as_data, load_data
from freqrobust.experiments.probes import Probe, check_probes, choose_best, parse_probes
from freqrobust.models import normalization
from freqrobust.models.classifier import Classifier, frozen
from freqrobust.models.fingerprint import fingerprint
from freqrobust.models.loading import misfit
from freqrobust.models.logits import check_logits
from freqrobust.models.untrained import default_architecture, untrained
from freqrobust.plugins.base import Attack
from freqrobust.plugins.selection import parse_attacks
from freqrobust.plugins.specs import PluginSpec
from freqrobust.training.fit_check import check_parts
from freqrobust.training.loop import trainable
from freqrobust.training.plan import TrainingPlan, plan
from freqrobust.training.randomization import label_spec, pixel_spec, randomized_labels, randomized_pixels
from freqrobust.training.recipes import resolve
from freqrobust.training.shifts import shifted

#: The training data where none is named.
DEMO_DATA = "digits"
CODE = ("freqrobust.training.loop", "freqrobust.training.shifts", "freqrobust.training.randomization")


@dataclass(frozen=True)
class Setup:
    """Everything that determines a training.

    Attributes:
        recipe: how the network is trained, as the options resolve it.
        plan: the same with its plugins.
        seed: the seed of the run.
        device: where it is trained.
        data: the images before they were split and changed.
        train: what is trained on: with randomised labels and pixels, and shifted.
        probed: the part of the training images that probes are measured on: with randomised labels and pixels, not
            shifted.
        held_out: the part of the held-out images that probes are measured on: with true labels and randomised pixels, not
            shifted; None where none are held out.
        all_held_out: all held-out images; None where none are.
        model: the network with its normalisation, with initial weights, on the device.
        probes: what is measured during the training.
        best: the probe that chooses the best checkpoint.
    """

    recipe: Recipe
    plan: TrainingPlan
    seed: int
    device: torch.device
    data: ImageData
    train: ImageData
    probed: ImageData
    held_out: ImageData | None
    all_held_out: ImageData | None
    model: Classifier
    probes: list[Probe]
    best: Probe

    @property
    def written(self) -> dict[str, Any]:
        """The recipe as a file has it, with specs in normal form."""
        plan = self.plan
        specs: dict[str, Any] = {
            "method": plan.method.spec,
            "augment": [part.spec for part in plan.augment],
            "regularizer": [part.spec for part in plan.regularizers],
            "optimizer": plan.optimizer.spec,
            "schedule": plan.schedule.spec,
            "train_shift": [part.spec for part in parse_shifts(self.recipe)],
            "probe": [probe.name + (f"@every={probe.every}" if probe.every > 1 else "") for probe in self.probes],
            "labels": label_spec(self.recipe.labels).text,
            "pixels": pixel_spec(self.recipe.pixels),
            "best": self.best.name,
        }
        values = {**dict(self.recipe), **specs}
        return {name.replace("_", "-"): values[name] for name in Recipe.model_fields if values[name] is not None}

    @property
    def recipe_sha256(self) -> str:
        """The hash of the recipe."""
        return identity(self.written)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this run and no other, by name; JSON-like."""
        probes = [probe.spec.code for probe in self.probes if probe.spec is not None]
        trained = {id(parameter) for parameter in trainable(self.model)}
        frozen_names = [name for name, parameter in self.model.named_parameters() if id(parameter) not in trained]
        return {
            "recipe": self.written,
            "recipe_sha256": self.recipe_sha256,
            "arch": self.model.arch,
            "network": identity([fingerprint(self.model), *frozen_names]) if frozen_names else fingerprint(self.model),
            "data": self.data.sha256,
            "seed": self.seed,
            "device": self.device.type,
            "versions": {"freqrobust": __version__, "torch": torch.__version__},
            "code": identity([code_hash(CODE), self.plan.identity, probes]),
        }


def prepare_setup(model: nn.Module | None, config: TrainConfig, device: torch.device) -> Setup:
    """Resolve the recipe, load and split the data, make the network.

    Raises:
        FreqRobustError: an option, the data or the network is wrong, or they do not fit together.
    """
    recipe = resolve(config)
    training_plan = plan(recipe)
    label_spec(recipe.labels), pixel_spec(recipe.pixels)  # before anything is loaded
    shifts = parse_shifts(recipe)
    if recipe.probe is not None:
        choose_best(parse_probes(recipe.probe, training_plan.method.plugin), recipe.best)
    data = open_training_data(config)
    probes = parse_probes(recipe.probe, training_plan.method.plugin, data.shape)
    best = choose_best(probes, recipe.best)
    part, held_out = split(data, recipe.hold_out, config.seed)
    if held_out is None and recipe.best is not None:
        raise SpecError(
            f"the best checkpoint is chosen on held-out data, but hold-out is 0; leave out best={recipe.best}"
        )
    changed = randomized_pixels(randomized_labels(part, recipe.labels, config.seed), recipe.pixels, config.seed)
    if held_out is not None:
        held_out = randomized_pixels(held_out, recipe.pixels, config.seed, like=part)
    check_probes(probes, changed)
    train = shifted(changed, shifts, seed=config.seed)
    classifier = _network(model, recipe, train, config.seed)
    outputs = _outputs(classifier, train)
    check_parts(training_plan, classifier, replace(train, classes=outputs), config.seed)
    return Setup(
        recipe=recipe,
        plan=training_plan,
        seed=config.seed,
        device=device,
        data=data,
        train=replace(train, classes=outputs),
        probed=changed.take(stratified(part.labels, recipe.probe_samples, config.seed)),
        held_out=held_out.limit(recipe.probe_samples, config.seed) if held_out is not None else None,
        all_held_out=held_out,
        model=classifier.to(device),
        probes=probes,
        best=best,
    )


def parse_shifts(recipe: Recipe) -> list[PluginSpec[Attack]]:
    """The changes of the training images.

    Raises:
        SpecError: one of them is no frequency filter or corruption.
    """
    parsed = parse_attacks(recipe.train_shift) if recipe.train_shift else []
    for plugin_spec in parsed:
        if plugin_spec.plugin.kind != "shift" or plugin_spec.plugin.needs_gradient:
            raise SpecError(
                f"train-shift {plugin_spec.spec} is no shift of the input; give lfc, hfc, bandpass or a corruption"
            )
    return parsed


def open_training_data(config: TrainConfig) -> ImageData:
    """The training images, of a dataset with splits its training split; the samples that ``config`` asks for.

    Raises:
        DataError: they cannot be loaded, or are not images in [0, 1] with labels.
    """
    given = config.data if config.data is not None else DEMO_DATA
    limit, first, seed = config.limit, config.first, config.seed
    if isinstance(given, str | os.PathLike):
        data = load_data(
            os.fspath(given),
            data_dir=config.data_dir,
            split="train",
            limit=limit,
            first=first,
            seed=seed,
            resize=config.resize,
            crop=config.crop,
            data_cache=config.data_cache,
            skip_unreadable=config.skip_unreadable,
        )
        data = as_data(data)
    else:
        data = as_data(given, "the training data", config=requested(None, config.resize, config.crop))
        index = Subset(limit, first, seed).index(data.labels)
        data = data if index is None else data.take(index)
    return replace(data, class_subset=())  # labels number the outputs of the network that is trained


def split(data: ImageData, share: float, seed: int) -> tuple[ImageData, ImageData | None]:
    """The images to train on, and those that are held out, with the same share of each class.

    Raises:
        DataError: fewer than two classes are left to train on.
    """
    held_out = None
    part = data
    if share > 0:
        count = max(1, round(share * len(data)))
        chosen = stratified(data.labels, count, seed)
        rest = torch.ones(len(data), dtype=torch.bool)
        rest[chosen] = False
        held_out, part = data.take(chosen), data.take(rest.nonzero()[:, 0])
    found = part.labels.unique().tolist()
    if len(found) < 2:
        images = f"all {len(part)} training images have" if len(part) > 1 else "the only training image has"
        said = f"{images} the label {found[0]}" if found else "no training images are left"
        without = f" ({len(held_out)} held out)" if held_out is not None else ""
        raise DataError(f"{data.spec}: {said}{without}; a classifier needs at least two classes")
    return part, held_out


def _network(model: nn.Module | None, recipe: Recipe, train: ImageData, seed: int) -> Classifier:
    """The network with its normalisation in front; a given one is copied."""
    given = normalization.parse(recipe.normalize) if recipe.normalize != "auto" else None
    if model is None:
        arch = default_architecture(train.shape) if recipe.arch == "auto" else recipe.arch
        network = untrained(arch, train.classes, train.shape[0], seed)
        choice = given or normalization.training_normalization(train)
    else:
        if not isinstance(model, nn.Module):
            raise SpecError(f"model should be an nn.Module or None, but got {type(model).__name__}")
        if recipe.arch != "auto":
            raise SpecError(f"give either a model or arch={recipe.arch!r}, not both")
        if isinstance(model, Classifier):
            if given is not None:
                raise SpecError("the model includes its normalisation; leave out normalize")
            classifier = copy.deepcopy(model)
            normalization.check_channels(classifier.normalization, train.shape[0])
            return classifier
        arch, network = type(model).__name__, copy.deepcopy(model)
        choice = given or normalization.preset("none", "none")
    normalization.check_channels(choice, train.shape[0])
    return Classifier(network, choice, arch, arch, None)


def _outputs(model: Classifier, train: ImageData) -> int:
    """The number of outputs of the network.

    Raises:
        DataError: the data has more classes, or other channels.
        ModelError: the network fails on the images, or does not return logits.
    """
    images, _, _ = train.batch(torch.arange(min(2, len(train))), torch.device("cpu"))
    model.cpu()
    with frozen(model), torch.no_grad(), running_user_code(lambda error: misfit(model, train, error)):
        logits = model(images)
    check_logits(logits, images)
    outputs = logits.shape[1]
    if outputs < train.classes:
        raise DataError(
            f"{train.spec} has {train.classes} classes, but the network {model.arch} has {outputs} outputs; "
            f"give another --arch"
        )
    return int(outputs)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In which ways two runs differ, in words."""
    said = []
    before, after = old.get("recipe") or {}, new["recipe"]
    for key in dict.fromkeys([*after, *before]):
        if before.get(key) != after.get(key):
            said.append(f"{key} was {_value(before.get(key))} and is {_value(after.get(key))}")
    names = {
        "data": "the training data differs",
        "seed": f"seed was {old.get('seed')} and is {new['seed']}",
        "arch": f"the architecture was {old.get('arch')} and is {new['arch']}",
        "network": "the initial network differs",
        "device": f"the device was {old.get('device')} and is {new['device']}",
        "versions": f"the versions were {_value(old.get('versions'))} and are {_value(new['versions'])}",
        "processes": f"the number of processes was {old.get('processes')} and is {new.get('processes')}",
        "code": "the code of freqrobust or of a plugin differs",
    }
    differing = [name for name in names if old.get(name) != new.get(name)]
    if said or len(differing) > 1:  # others bring these with them
        follow = ["code", "network", *(["arch"] if before.get("arch") != after.get("arch") else [])]
        differing = [name for name in differing if name not in follow] or ([] if said else differing)
    return [*said, *(names[name] for name in differing)]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, text in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
