"""What options are: fields of frozen pydantic models, each with its type, default, help text and flag.

The options themselves are in :mod:`freqrobust.core.config`. This module does not import torch.
"""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import MOST
from freqrobust.core.text import excerpt, near_miss

if TYPE_CHECKING:
    from typing_extensions import Self

#: The headings of the help: how models and data are loaded, what is measured and judged, and where it is written.
PANELS = MODEL, DATA, RUN, GATE, OUTPUT = "Model", "Data", "What to run", "Gate", "Output"
Function = TypeVar("Function", bound=Callable[..., Any])


class OptionError(SpecError):
    """An option is unknown, has a wrong value or contradicts another.

    Attributes:
        template: the message, with ``{name}`` for each option and ``{not name}`` for one that is switched off.
        key: the option that the message is about, where it is one.
    """

    def __init__(self, template: str, key: str | None = None) -> None:
        self.template, self.key = template, key
        super().__init__(self.spelled(lambda name, off: f"{name}=False" if off else name))

    def spelled(self, spell: Callable[[str, bool], str]) -> str:
        """The message with each option as the user wrote it; ``spell`` gets its name and whether it is switched off."""

        class Names(dict[str, str]):
            def __missing__(self, key: str) -> str:
                return spell(key.removeprefix("not "), key.startswith("not "))

        return self.template.format_map(Names())


def option(
    default: Any,
    help: str,
    panel: str | None = None,
    metavar: str | None = None,
    *,
    flag: str | None = None,
    short: str | None = None,
    many: bool = False,
    argument: bool = False,
    flag_value: Any = None,
    off: str | None = None,
    formerly: str | None = None,
    **limits: Any,
) -> Any:
    """A field that is an option.

    Args:
        default: its value where it is not given; ``...`` where it has to be.
        help: what it does, in one or two sentences.
        panel: the heading under which the help of the command line shows it.
        metavar: what the help shows for its value.
        flag: the option of the command line, without dashes, where it differs from the name.
        short: one letter that the command line takes as well: ``v`` for ``-v``.
        many: it may be repeated on the command line.
        argument: it is an argument of the command line, without a flag.
        flag_value: on the command line it takes no value, and this is the one that it stands for.
        off: what the flag does that switches it off, where it is true by default.
        formerly: an earlier name; the command line still takes it, without showing it.
        limits: constraints of the value, as of pydantic's ``Field``.
    """
    shown: dict[str, Any] = {"panel": panel, "metavar": metavar, "flag": flag, "many": many, "argument": argument}
    shown |= {"flag_value": flag_value, "off": off, "formerly": formerly, "short": short}
    return Field(default, description=help, json_schema_extra=shown, **limits)


def flag_of(name: str) -> str:
    """The spelling of a name on the command line."""
    return "--" + name.replace("_", "-")


def escaped(text: object) -> str:
    """Text of others in the template of an :class:`OptionError`."""
    return str(text).replace("{", "{{").replace("}", "}}")


class Options(BaseModel):
    """What all groups of options share: immutable, strictly checked, errors in one line."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            for name in values:
                if name not in type(self).model_fields:
                    raise type(self).unknown(name)
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise _explained(error) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        lines = [f"    {name}: {field.description}" for name, field in cls.model_fields.items()]
        cls.__doc__ = f"{(cls.__doc__ or '').rstrip()}\n\nAttributes:\n" + "\n".join(lines) + "\n"

    @classmethod
    def unknown(cls, name: str) -> OptionError:
        """The error for a name that is no option."""
        renamed = {cls.shown(key)["formerly"]: key for key in cls.model_fields if cls.shown(key)["formerly"]}
        hint = f"; did you mean {renamed[name]!r}?" if name in renamed else near_miss(name, cls.model_fields)
        known = "" if hint else f" (options: {', '.join(cls.model_fields)})"
        return OptionError(escaped(f"unknown option {name!r}{hint}{known}"))

    @classmethod
    def shown(cls, name: str) -> dict[str, Any]:
        """What :func:`option` says about a field."""
        extra = cls.model_fields[name].json_schema_extra
        return {"panel": None, "formerly": None, "short": None, **(extra if isinstance(extra, dict) else {})}

    @classmethod
    def flag(cls, name: str, off: bool = False) -> str:
        """The flag of an option on the command line."""
        if name not in cls.model_fields:
            return flag_of(name)
        flag = flag_of(cls.shown(name).get("flag") or name)
        return f"--no-{flag[2:]}" if off or cls.model_fields[name].default is True else flag

    @classmethod
    def short(cls, name: str) -> list[str]:
        """The flag of one letter of an option, where it has one."""
        letter = cls.shown(name)["short"]
        return [f"-{letter}"] if letter else []

    @classmethod
    def flags(cls) -> set[str]:
        """All flags of the command line, those without a value and earlier spellings included."""
        former = [cls.shown(name)["formerly"] for name in cls.model_fields]
        return {*map(cls.flag, cls.model_fields), *(f"--no-{flag_of(name)[2:]}" for name in former if name)}

    @classmethod
    def switches(cls) -> set[str]:
        """The flags of the command line that take no value, those of one letter included."""
        fields = cls.model_fields
        plain = {n for n in fields if isinstance(fields[n].default, bool) or cls.shown(n).get("flag_value") is not None}
        taking = {cls.flag(name) for name in fields if name not in plain}
        return (cls.flags() - taking) | {short for name in plain for short in cls.short(name)}

    @classmethod
    def of(cls, config: Any, options: Mapping[str, Any]) -> Self:
        """The configuration of a call: ``options``, on top of ``config`` where there is one.

        Raises:
            SpecError: an option is unknown or wrong, or ``config`` is something else.
        """
        if config is None:
            return cls(**options)
        if not isinstance(config, cls):
            raise SpecError(f"config should be an object of {cls.__name__}, but got {type(config).__name__}")
        return config.replace(**options)

    def replace(self, **options: Any) -> Self:
        """A copy with other values, checked; what neither gives stays a default."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**given, **options}) if options else self

    def settings(self, cls: type[Options], **resolved: Any) -> dict[str, Any]:
        """The options that ``cls`` has too, without those by which models and data are loaded.

        Args:
            cls: another class of options.
            resolved: other values for some of them.
        """
        names = [name for name in cls.model_fields if cls.shown(name)["panel"] not in (MODEL, DATA)]
        return {name: getattr(self, name) for name in names} | resolved

    def record(self, **resolved: Any) -> dict[str, Any]:
        """The options as JSON, for a report: what is measured, not where the results are written.

        Args:
            resolved: specs of options whose values are objects.
        """
        values = {**dict(self), **resolved}
        measured = [name for name in values if self.shown(name)["panel"] != OUTPUT and values[name] is not None]
        return {name: _as_json(values[name]) for name in measured}


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    spec = getattr(value, "spec", None)
    if isinstance(spec, str):
        return spec
    return str(value) if type(value).__module__.split(".")[0] == "torch" else type(value).__name__


def _explained(error: ValidationError) -> OptionError:
    """The first problem of a pydantic error in one line."""
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    message = message.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    if not first["loc"]:
        return OptionError(message)
    key = str(first["loc"][0])
    inner = [str(part) for part in first["loc"][1:] if isinstance(part, str) and part in str(first["input"])]
    where = "{" + key + "}" + "".join(f".{part}" for part in inner)
    if first["type"] == "missing":
        return OptionError(f"{where} is required", key)
    return OptionError(f"{where} {escaped(message)}, but got {escaped(excerpt(repr(first['input'])))}", key)


def _listed(value: Any) -> Any:
    """A single value as a list of one."""
    if value is None:
        return []
    if isinstance(value, str | os.PathLike):
        value = [value]
    return [os.fspath(v) if isinstance(v, os.PathLike) else v for v in value] if isinstance(value, Iterable) else value


def _specs(value: Any) -> Any:
    """Specs and objects as they are; a single spec as a list of one, and no spec as an empty list."""
    return [value] if isinstance(value, str) else list(value) if isinstance(value, tuple | Iterator) else value


def _whole(value: Any) -> Any:
    """A whole number, also as text."""
    try:
        if isinstance(value, str) and value.isascii() and len(value) <= 40:
            return int(value)
        if not isinstance(value, bool):
            return operator.index(value)
    except (TypeError, ValueError):
        pass
    raise ValueError("should be a whole number")


def _real(value: Any) -> Any:
    """A real number, also as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError("should be a number") from None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _batch_size(value: Any) -> Any:
    if isinstance(value, str) and value == "auto":
        return value
    try:
        size = _whole(value)
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError("should be auto or at least 1")
    if size > MOST:
        raise ValueError(f"should be auto or at most {MOST}")
    return size


def depth(value: Any) -> Any:
    return ("full" if value else None) if isinstance(value, bool) else value


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Names = Annotated[list[str], BeforeValidator(_listed)]
Specs = Annotated[Any, BeforeValidator(_specs)]
Whole = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_real)]
Text = Annotated[str, BeforeValidator(_text)]
FilePath = str | os.PathLike[str]
BatchSize = Annotated[int | Literal["auto"], BeforeValidator(_batch_size)]


def takes(config: type[Options], *without: str) -> Callable[[Function], Function]:
    """Show the fields of ``config``, but those in ``without``, in the signature of a function with ``**options``."""

    def decorated(function: Function) -> Function:
        signature = inspect.signature(function)
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [
            inspect.Parameter(name, keyword, default=field.default, annotation=field.annotation)
            for name, field in config.model_fields.items()
            if name not in {*without, *signature.parameters}
        ]
        parameters = sorted([*own, *options], key=lambda p: p.kind)
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return decorated
