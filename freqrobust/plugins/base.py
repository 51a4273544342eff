"""The plugin kinds: frozen pydantic models with one method each.

A plugin's fields are its parameters, its command-line options, its help text and its entry in the report.
This module does not import torch, so that help texts can be built without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from freqrobust.core.errors import PluginError, SpecError
from freqrobust.core.numbers import INT64, fraction, number_text, pixel_text
from freqrobust.core.text import excerpt
from freqrobust.numerics.threat import Norm, Threat

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext, DefenseContext, Samples
    from freqrobust.plugins.dataset import ImageDataset

#: Options of `freqrobust eval` itself; a defense may not have a field of that name.
RESERVED_OPTIONS = frozenset(
    [
        "model",
        "arch",
        "normalize",
        "data",
        "data_dir",
        "split",
        "limit",
        "first",
        "train_data",
        "defense",
        "attack",
        "suite",
        "baseline",
        "no_baseline",
        "oblivious",
        "no_oblivious",
        "diagnose",
        "batch_size",
        "device",
        "precision",
        "seed",
        "mce_reference",
        "run_dir",
        "json",
        "quiet",
        "debug",
        "trust_checkpoint",
        "save_model",
        "save_adversarial",
        "report",
        "fail_under",
        "confident",
        "help",
    ]
)


class Plugin(BaseModel):
    """What all kinds share: immutable parameters, strictly checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    reserved_fields: ClassVar[frozenset[str]] = frozenset()
    #: the parameter that may be given without its name, as in ``replay:DIR``
    positional: ClassVar[str | None] = None
    #: the command whose options the fields are
    command: ClassVar[str] = "eval"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for field, annotation in inspect.get_annotations(cls).items():
            if "ClassVar" in str(annotation) or field.startswith("_"):
                continue
            for base in cls.__mro__[1:]:
                if field in vars(base):
                    raise PluginError(
                        f"{cls.__name__}: the field {field!r} hides an attribute of {base.__name__}; "
                        f"to set the attribute write '{field} = ...' without a type, else rename the field"
                    )

    def code_modules(self) -> Sequence[str]:
        """Names of modules that the plugin imports by name, whose source is part of the identity of its results."""
        return ()

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_numbers(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key, value in values.items():
                field = cls.model_fields.get(key)
                if isinstance(value, bool) and field is not None and field.annotation in (int, float):
                    raise ValueError(f"parameter {key!r} should be a number, but got {value}")
        return values

    @model_validator(mode="after")
    def _no_int_beyond_64_bits(self) -> Any:
        for key in type(self).model_fields:
            value = getattr(self, key)
            if isinstance(value, int) and not -INT64 - 1 <= value <= INT64:
                raise ValueError(f"parameter {key!r} should fit into 64 bits, but takes {value.bit_length() + 1}")
        return self

    @classmethod
    def build(cls, name: str, params: Mapping[str, Any]) -> Any:
        """Make the plugin from text or typed parameters.

        Raises:
            SpecError: one line naming the plugin, the parameter and what would work.
        """
        from freqrobust.core.text import near_miss
        from freqrobust.core.user_code import running_user_code

        for key in params:
            if key not in cls.model_fields:
                known = ", ".join(cls.model_fields) or "none"
                raise SpecError(
                    f"{name}: unknown parameter {key!r}{near_miss(key, cls.model_fields)} (parameters: {known})"
                )
        with running_user_code(lambda error: _refused(cls, name, error)):  # validators are code of the plugin
            return cls(**params)


def _refused(cls: type[Plugin], name: str, error: BaseException) -> SpecError:
    """What validation raised, as an error for the user."""
    from freqrobust.core.text import describe_error

    return SpecError(
        f"{name}: {_explain(cls, name, error) if isinstance(error, ValidationError) else describe_error(error)}"
    )


def _explain(cls: type[Plugin], name: str, error: ValidationError) -> str:
    """The first problem of a pydantic error, as a sentence for the user."""
    first = error.errors()[0]
    message = str(first["msg"])
    if not first["loc"]:
        return message.removeprefix("Value error, ")
    key = str(first["loc"][0])
    if first["type"] == "missing":
        example = next(iter(cls.model_fields[key].examples or ["VALUE"]))
        return f"parameter {key!r} is required, for example {name}:{key}={example}"
    got = first["input"]
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    hint = ""
    if first["type"] == "less_than_equal" and cls.model_fields[key].metadata and _is_pixel(cls, key):
        hint = _of_255(got)
    return f"parameter {key!r} {message}, but got {excerpt(repr(got))}{hint}"


def _is_pixel(cls: type[Plugin], key: str) -> bool:
    """Whether a parameter takes fractions, such as ``8/255``."""
    field = cls.model_fields[key]
    return _takes_fractions(field.metadata) or _annotated_with_fractions(field.annotation)


def _annotated_with_fractions(annotation: Any) -> bool:
    """Whether numbers inside of a list or of an optional type may be fractions."""
    return _takes_fractions(getattr(annotation, "__metadata__", ())) or any(
        _annotated_with_fractions(inner) for inner in get_args(annotation)
    )


def _takes_fractions(metadata: Iterable[Any]) -> bool:
    return any(isinstance(item, BeforeValidator) and item.func is fraction for item in metadata)


def _of_255(value: Any) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return ""
    return f" (pixels are in [0, 1]; did you mean {number:g}/255?)" if number > 1 else ""


class Attack(Plugin):
    """Something that changes images. Subclasses implement :meth:`perturb`."""

    #: "adversarial": worst case inside a budget; "shift": a fixed change of the input
    kind: ClassVar[Literal["adversarial", "shift"]] = "adversarial"
    #: the attack differentiates the model
    needs_gradient: ClassVar[bool] = True
    #: the result for a sample does not depend on which other samples share its batch
    batch_invariant: ClassVar[bool] = True
    #: averages over ``context.eot`` draws of a random model by itself; otherwise every pass it makes is such a mean
    averages_draws: ClassVar[bool] = False
    #: in a sweep, a sample that a smaller budget broke counts as broken at a larger one, and is not tried again
    nested: ClassVar[bool] = True
    reserved_fields: ClassVar[frozenset[str]] = frozenset({"seed"})

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        """Changed images, same shape ``(N, C, H, W)``, float32; adversarial ones in [0, 1] and inside the budget.

        ``model`` maps images to logits ``(N, K)``. With ``context.goal == "decide"`` a sample may be left at
        its first misclassification; with ``"maximize"`` the highest-loss example is returned for every sample.
        All randomness comes from ``context``.
        """
        raise PluginError(f"{type(self).__name__} does not implement perturb()")

    def eot_used(self, eot: int) -> int:
        """Draws of a random model over which it averages, when the harness asks for ``eot``."""
        return eot

    def check_data(self, data: ImageDataset) -> None:
        """Refuse data that the attack cannot take, before anything is measured; by default nothing is refused.

        Raises:
            SpecError, DataError: one line that says what does not fit, and why.
        """

    def prepare(self, samples: Samples, context: AttackContext) -> Any:
        """Look at all samples before any of them is perturbed; for most attacks there is nothing to do.

        Called once for a model, with the samples that :meth:`perturb` will be called with, batch by batch. What it
        returns is there as ``context.prepared``. It may depend on the samples and on the seed, not on their order nor
        on the size of the batches.
        """
        return None

    def threat(self) -> Threat | None:
        """The declared budget; by default the fields ``norm`` and ``eps`` where both exist."""
        norm, eps = getattr(self, "norm", None), getattr(self, "eps", None)
        if self.kind != "adversarial" or norm is None or eps is None:
            return None
        if norm not in get_args(Norm):
            raise PluginError(
                f"{type(self).__name__}: the norm of a threat should be one of {', '.join(get_args(Norm))}, but is {norm!r}"
            )
        return Threat(norm, float(eps))


class AttackFamily:
    """Many attacks of one library under one prefix: ``FAMILY:MEMBER:key=value``.

    Declared by entry point in the group ``freqrobust.attack_families``. What needs the library raises
    :class:`SpecError`, with a message that says how to install it, where it is not installed.
    """

    def members(self) -> list[str]:
        """The names of the members."""
        raise PluginError(f"{type(self).__name__} does not implement members()")

    def member(self, name: str) -> type[Attack]:
        """The attack class of a member; its ``spec_name`` is ``FAMILY:MEMBER``."""
        raise PluginError(f"{type(self).__name__} does not implement member()")


class Defense(Plugin):
    """Something that changes the model. Subclasses implement :meth:`apply`."""

    #: the defended model draws random numbers (from ``freqrobust.noise``) when it predicts
    stochastic: ClassVar[bool] = False
    #: gradients of the defended model are exact
    differentiable: ClassVar[bool] = True
    #: ``apply`` trains, and so needs training data
    trains: ClassVar[bool] = False
    reserved_fields: ClassVar[frozenset[str]] = RESERVED_OPTIONS

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        """A defended model. The model given must not be changed: copy it first."""
        raise PluginError(f"{type(self).__name__} does not implement apply()")

    @property
    def needs_train_data(self) -> bool:
        """Whether ``apply`` will ask for training data; by default the class attribute ``trains``."""
        return self.trains

    def surrogate(self, model: Any) -> Any:
        """A differentiable stand-in that attacks use for gradients; required when ``differentiable = False``."""
        raise PluginError(f"{type(self).__name__} is not differentiable and gives no surrogate()")


class InputDefense(Defense):
    """A defense that only transforms images. Subclasses implement :meth:`transform`.

    With ``differentiable = False`` gradients pass straight through the transform (BPDA, Athalye et al. 2018),
    or through ``surrogate(images)`` where it is given.
    """

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(N, C, H, W)`` in, images of the same shape out."""
        raise PluginError(f"{type(self).__name__} does not implement transform()")

    def surrogate(self, model: Any) -> Any:
        """A differentiable stand-in for :meth:`transform`; by default the identity."""
        return model

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        from freqrobust.plugins.bpda import TransformedInput

        return TransformedInput(self, model)


def value_text(plugin: Plugin, key: str) -> str:
    """The value of a parameter as a spec has it; how it was typed makes no difference."""
    return _value_text(getattr(plugin, key), pixel_text if _is_pixel(type(plugin), key) else number_text)


def _value_text(value: Any, number: Callable[[float], str]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list | tuple):
        items = [_value_text(item, number) for item in value]
        return f"[{','.join(f'[{item}]' if ',' in item or item.startswith('[') else item for item in items)}]"
    return str(value)


def takes_list(cls: type[Plugin], key: str) -> bool:
    """Whether the field itself is a list, so that a list in a spec is its value and not a sweep."""
    field = cls.model_fields.get(key)
    return field is not None and get_origin(field.annotation) in (list, tuple, set, frozenset)
