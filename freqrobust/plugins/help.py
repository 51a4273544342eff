"""Plugins in words: for help texts and for ``freqrobust list``. Does not import torch by itself."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from freqrobust.core.numbers import pixel_text
from freqrobust.core.text import one_line
from freqrobust.plugins.plugin import Plugin

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def field_type(cls: type[Plugin], key: str) -> str:
    """Type and range of a parameter: ``float >= 0``, ``first|all``."""
    field = cls.model_fields[key]
    text = _type_text(field.annotation)
    bounds = [
        f"{sign} {_number(getattr(item, name))}"
        for item in field.metadata
        for name, sign in _BOUNDS.items()
        if getattr(item, name, None) is not None
    ]
    return " ".join([text, " and ".join(bounds)]).strip()


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _type_text(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if annotation is bool:
        return "true|false"
    if get_origin(annotation) is list:
        return f"list of {_type_text(get_args(annotation)[0])}"
    inner = [a for a in get_args(annotation) if a is not type(None)]
    if inner and get_origin(annotation) not in (list, tuple, set, dict):
        return _type_text(inner[0])
    return getattr(annotation, "__name__", str(annotation))


def field_default(cls: type[Plugin], key: str) -> str:
    """The default as text, or ``required``."""
    field = cls.model_fields[key]
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value == []:
        return "see text"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return pixel_text(value)
    return str(value)


def field_help(cls: type[Plugin], key: str) -> str:
    """One line of help: description, type, range, default."""
    about = one_line(cls.model_fields[key].description or "")
    return f"{about} [{field_type(cls, key)}; {_default_phrase(cls, key)}]".strip()


def _default_phrase(cls: type[Plugin], key: str) -> str:
    default = field_default(cls, key)
    return default if default in ("required", "see text") else f"default {default}"
