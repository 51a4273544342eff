"""What a rule of a contract is, how a plugin is checked against it, and the small network that the checks use."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from freqrobust.core.errors import FreqRobustError, PluginError
from freqrobust.core.text import describe_error
from freqrobust.data.dataset import ImageData
from freqrobust.data.loading import as_data
from freqrobust.plugins.plugin import Plugin, takes_list
from freqrobust.plugins.registry import Registry
from freqrobust.plugins.specs import PluginSpec, _typed

if TYPE_CHECKING:
    from freqrobust.results.report import Report

PluginT = TypeVar("PluginT", bound=Plugin)


class Passes(Protocol):
    """Images that were passed through a model, as a cell counts them."""

    @property
    def forwards(self) -> int: ...

    @property
    def backwards(self) -> int: ...


class ContractError(PluginError, AssertionError):
    """A plugin breaks a rule of its contract; the message names the rule and where it is documented."""


class BrokenRuleError(Exception):
    """What was expected and what came; :class:`Check` adds the plugin, the rule and the page."""


def expect(condition: object, message: str) -> None:
    """Say that a rule is broken unless the condition is true."""
    if not condition:
        raise BrokenRuleError(message)


class _Net(nn.Module):
    """One convolution with batch norm and dropout, for 3 x 8 x 8 images and 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(6 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = 4 * self.linear(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))
        return logits


@dataclass(frozen=True)
class Setting:
    """What a plugin is checked on.

    Attributes:
        model: a classifier in eval mode without gradients of its parameters.
        data: images, most of which the model classifies correctly.
        train_data: for defenses that train.
        exact: numbers of passes have to be the same for every batch size; otherwise a few percent may differ, as rounding
            decides when an attack on a network with random weights stops.
    """

    model: nn.Module
    data: ImageData
    train_data: ImageData
    exact: bool = True
    cached: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def small(cls) -> Setting:
        """A network with random weights, and random images with its predictions as their labels."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = _Net().eval().requires_grad_(False)
            images = torch.rand(64, 3, 8, 8)
            labels = model(images).argmax(dim=1)
        data = as_data(ImageData(images, labels, classes=10, spec="the images of the checks"))
        return cls(model, data.take(torch.arange(16)), data.take(torch.arange(16, 64)), exact=False)

    @cached_property
    def everything(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All images, labels and ids, as copies."""
        images, labels, ids = self.data.batch(torch.arange(len(self.data)), torch.device("cpu"))
        return images.clone(), labels.clone(), ids.clone()

    @cached_property
    def report(self) -> Report:
        """A report of a defense, a sweep and a filter, for checks of reporters; not to be changed."""
        from freqrobust.harness.evaluate import evaluate

        attacks = ["pgd:eps=[0.05,0.1],steps=2", "lfc:radius=2"]
        return evaluate(self.model, self.data, attacks=attacks, defenses=["smooth:rho=0.5"], device="cpu")


@dataclass(frozen=True)
class Check:
    """One rule, to be checked on one plugin: call it.

    Attributes:
        name: of the rule.
        rule: the rule in a sentence.
        page: the page of the documentation that lists the rules.

    Raises:
        ContractError: the plugin breaks the rule.
    """

    name: str
    rule: str
    page: str
    plugin: str
    body: Callable[[], None] = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> None:
        where = f"{self.plugin} breaks the rule {self.name!r} of {self.page} ({self.rule})"
        try:
            self.body()
        except BrokenRuleError as broken:
            raise ContractError(f"{where}: {broken}") from None
        except FreqRobustError as error:
            raise ContractError(f"{where}: {error}") from error
        except Exception as error:
            raise ContractError(f"{where}: it raised {describe_error(error)}") from error


@dataclass(frozen=True)
class Rule(Generic[PluginT]):
    """What every plugin of a kind keeps to."""

    name: str
    text: str
    body: Callable[[PluginT, Setting], None]
    applies: Callable[[PluginT], bool]


class Contract(Generic[PluginT]):
    """The rules for the plugins of one kind.

    Args:
        registry: of the kind.
        page: the page of the documentation that lists the rules.
    """

    def __init__(self, registry: Registry[PluginT], page: str) -> None:
        self.registry, self.page = registry, page
        self.rules: dict[str, Rule[PluginT]] = {}
        self.rule("class, parameters and values are described, and a spec of it can be written and read")(
            self._declaration
        )

    def rule(
        self, text: str, applies: Callable[[PluginT], bool] = lambda plugin: True
    ) -> Callable[[Callable[[PluginT, Setting], None]], Callable[[PluginT, Setting], None]]:
        """Add a rule; its name is that of the function."""

        def add(body: Callable[[PluginT, Setting], None]) -> Callable[[PluginT, Setting], None]:
            name = body.__name__.lstrip("_")
            self.rules[name] = Rule(name, text, body, applies)
            return body

        return add

    def checks(self, plugin: PluginT, setting: Setting | None = None) -> list[Check]:
        """A check for each rule that applies to the plugin; by default on the small network.

        Raises:
            PluginError: it is no plugin of this kind.
        """
        if not isinstance(plugin, self.registry.base):
            kind = type(plugin).__name__ if not isinstance(plugin, type) else f"the class {plugin.__name__}"
            raise PluginError(
                f"expected an object of a subclass of freqrobust.{self.registry.base.__name__}, but got {kind}"
                + (f"; write {plugin.__name__}()" if isinstance(plugin, type) else "")
            )
        on = setting or Setting.small()
        called = self.registry.name_of(plugin)
        return [
            Check(rule.name, rule.text, self.page, called, lambda body=rule.body: body(plugin, on))  # type: ignore[misc]
            for rule in self.rules.values()
            if rule.applies(plugin)
        ]

    def _declaration(self, plugin: PluginT, setting: Setting) -> None:
        cls = type(plugin)
        expect((cls.__doc__ or "").strip(), "the class has no docstring; its first sentence is the help text")
        for key, described in cls.model_fields.items():
            expect(
                described.description,
                f"the parameter {key!r} has no description; write {key}: TYPE = Field(DEFAULT, description=...)",
            )
        plugin_spec = self.registry.select(plugin)
        json.dumps(plugin_spec.params, allow_nan=False)
        again = from_text(plugin_spec)
        expect(
            _same(again.params, plugin_spec.params),
            f"the spec {plugin_spec.spec!r} should stand for the parameters {plugin_spec.params}, but gives {again.params}",
        )


def from_text(plugin_spec: PluginSpec[PluginT]) -> PluginSpec[PluginT]:
    """The plugin that the text of a spec stands for."""
    cls = type(plugin_spec.plugin)
    typed = {key: _typed(text) if takes_list(cls, key) else text for key, text in plugin_spec.given.items()}
    return PluginSpec(plugin_spec.name, cls.build(plugin_spec.name, typed), dict(plugin_spec.given))


def changed(plugin: PluginT, **params: Any) -> PluginT:
    """A new object with the given parameters of another one, and some of them replaced."""
    given = {key: getattr(plugin, key) for key in plugin.model_fields_set}
    made: PluginT = type(plugin).build(type(plugin).__name__, {**given, **params})
    return made


def _same(a: Any, b: Any) -> bool:
    """Equal up to the digits that a spec has."""
    if isinstance(a, float) and isinstance(b, float | int):
        return abs(a - b) <= 1e-6 * max(1.0, abs(b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def check_passes(one: Passes, many: Passes, setting: Setting, where: str = "") -> None:
    """Refuse different numbers of passes of batches of 1 and of 32.

    Raises:
        BrokenRuleError: they differ.
    """
    share = 0.0 if setting.exact else 0.05
    pairs = ((one.forwards, many.forwards), (one.backwards, many.backwards))
    expect(
        all(abs(a - b) <= share * max(a, b) for a, b in pairs),
        f"{where}batches of 1 take {one.forwards} forward and {one.backwards} backward passes, and batches of 32 take "
        f"{many.forwards} and {many.backwards}; these should be the same numbers",
    )


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python inside, and restore them afterwards.

    Raises:
        BrokenRuleError: the code inside drew from one of them, or seeded it.
    """
    numpy_before, python_before = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            before = _global_states()
            yield
            for (name, old), new in zip(before.items(), _global_states().values(), strict=True):
                expect(
                    old == new,
                    f"it uses the global random generator of {name}, so that results depend on what ran before; "
                    "draw all random numbers from the context or from freqrobust.noise",
                )
    finally:
        np.random.set_state(numpy_before)
        random.setstate(python_before)


def _global_states() -> dict[str, object]:
    numpy_state: Any = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (numpy_state[1].tobytes(), numpy_state[2:]),
        "Python": random.getstate(),
    }


def first_difference(a: torch.Tensor, b: torch.Tensor, tolerance: float = 0.0) -> str | None:
    """``sample 3 differs by 0.01``; None where no sample differs by more than the tolerance."""
    distance = (a - b).abs().flatten(1).amax(dim=1)
    wrong = (~(distance <= tolerance)).nonzero()
    if not len(wrong):
        return None
    sample = int(wrong[0, 0])
    return f"sample {sample} differs by {float(distance[sample]):.3g}"


def check_tensor(value: object, like: torch.Tensor, what: str) -> torch.Tensor:
    """``value`` as a finite float32 tensor of a shape.

    Raises:
        BrokenRuleError: it is none.
    """
    if not isinstance(value, torch.Tensor):
        raise BrokenRuleError(f"{what} should be a tensor, but got {type(value).__name__}")
    expect(value.shape == like.shape, f"{what} should have the shape {tuple(like.shape)}, but has {tuple(value.shape)}")
    expect(value.dtype == torch.float32, f"{what} should be float32, but got {str(value.dtype).removeprefix('torch.')}")
    bad = int((~torch.isfinite(value)).sum())
    expect(not bad, f"{what} should be finite, but {bad} of {value.numel()} values are not")
    return value.detach()
