"""A recipe with its specs resolved: what the training loop needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import number_text
from freqrobust.core.training_config import Recipe
from freqrobust.plugins.plugin import Plugin
from freqrobust.plugins.registry import Registry, augmentations, methods, optimizers, regularizers, schedules
from freqrobust.plugins.specs import PluginSpec
from freqrobust.plugins.training import Augmentation, Optimizer, Regularizer, Schedule, TrainingMethod
from freqrobust.results.records import Precision

PluginT = TypeVar("PluginT", bound=Plugin)


@dataclass(frozen=True)
class TrainingPlan:
    """What the loop needs to know, all specs resolved.

    Attributes:
        epochs: passes over the data.
        batch_size: images per optimisation step.
        method: how the loss is computed.
        optimizer: and its highest learning rate.
        schedule: of the learning rate.
        augment: augmentations, in the order in which they are applied.
        regularizers: penalties that are added to the loss.
        ema: the decay of the averaged weights; None without an average.
        precision: of the forward and backward passes.
        compile: whether the network is compiled.
    """

    epochs: int
    batch_size: int
    method: PluginSpec[TrainingMethod]
    optimizer: PluginSpec[Optimizer]
    schedule: PluginSpec[Schedule]
    augment: tuple[PluginSpec[Augmentation], ...] = ()
    regularizers: tuple[PluginSpec[Regularizer], ...] = ()
    ema: float | None = None
    precision: Precision = "fp32"
    compile: bool = False
    parts: tuple[PluginSpec[Any], ...] = field(init=False)

    def __post_init__(self) -> None:
        parts = (self.method, self.optimizer, self.schedule, *self.augment, *self.regularizers)
        object.__setattr__(self, "parts", parts)
        method = self.method.plugin
        for augmentation in self.augment:
            if augmentation.plugin.mixes and not method.soft_targets:
                raise SpecError(
                    f"{augmentation.name} mixes labels, which the training method {self.method.name} cannot use"
                )
            if augmentation.plugin.makes_views and not method.takes_views:
                raise SpecError(
                    f"{augmentation.spec} makes several views of each image, which the training method {self.method.name} "
                    f"cannot use"
                )
        for augmentation in self.augment[:-1]:
            if augmentation.plugin.makes_views:
                raise SpecError(
                    f"{augmentation.spec} makes several views of each image and has to be the last augmentation"
                )

    @property
    def identity(self) -> list[Any]:
        """What determines the trained weights, apart from network, data and seed."""
        numbers = [self.epochs, self.batch_size, self.ema, self.precision, self.compile]
        return [*numbers, *([part.name, part.params, part.code] for part in self.parts)]


def plan(recipe: Recipe) -> TrainingPlan:
    """The plan of a recipe.

    Raises:
        SpecError: a spec is wrong, or two of them do not fit together.
    """
    return TrainingPlan(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        method=_one(methods, recipe.method),
        optimizer=_one(optimizers, recipe.optimizer),
        schedule=_one(schedules, recipe.schedule),
        augment=tuple(_one(augmentations, spec) for spec in _several(recipe.augment)),
        regularizers=tuple(_one(regularizers, spec) for spec in _several(recipe.regularizer)),
        ema=recipe.ema,
        precision=recipe.precision,
        compile=recipe.compile,
    )


def _several(given: Any) -> list[Any]:
    items: Iterable[Any] = [given] if isinstance(given, str | Plugin | PluginSpec) else given or ()
    return [item for item in items if item != "none"]


def _one(registry: Registry[PluginT], given: Any) -> PluginSpec[PluginT]:
    """The plugin of a spec, an object, or a spec that was parsed before."""
    if isinstance(given, PluginSpec):
        return given
    if isinstance(given, Plugin):
        registry.check(type(given), type(given).__qualname__)
        return registry.select(given)  # type: ignore[arg-type]
    if not isinstance(given, str):
        raise SpecError(f"expected the spec of a {registry.kind}, but got {type(given).__name__}")
    parsed = registry.parse(given)
    if len(parsed) != 1:
        raise SpecError(f"{given} is a sweep of {len(parsed)}; a training takes one {registry.kind}")
    return parsed[0]


def sgd_plan(epochs: int, lr: float, **values: Any) -> TrainingPlan:
    """SGD with Nesterov momentum and a one-cycle schedule; ``values`` are further fields of a recipe."""
    weight_decay = values.pop("weight_decay", 5e-4)
    sgd = f"sgd:lr={number_text(float(lr))},nesterov=true,weight_decay={number_text(float(weight_decay))}"
    return plan(Recipe(**{"epochs": epochs, "optimizer": sgd, "augment": [], **values}))
