"""What all kinds of plugins share: immutable parameters, strictly checked.

A plugin's fields are its parameters, its command-line options, its help text and its entry in the report.
This module does not import torch, so that help texts can be built without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from freqrobust.core.errors import PluginError, SpecError
from freqrobust.core.numbers import INT64, fraction, number_text, pixel_text
from freqrobust.core.text import excerpt


class Plugin(BaseModel):
    """What all kinds share: immutable parameters, strictly checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    reserved_fields: ClassVar[frozenset[str]] = frozenset()
    #: the parameter that may be given without its name, as in ``replay:DIR``
    positional: ClassVar[str | None] = None
    #: the command on which the fields are options, so that they cannot have the names of its own options
    command: ClassVar[str | None] = None

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
