"""Options in TOML files: reading them, with the line of what is wrong, and writing them.

A relative path in a file is relative to the folder of the file, so that the file can be used from anywhere.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.files import reason, regular_file, user_path, write_atomically
from freqrobust.core.options import DATA, MODEL, OptionError, Options
from freqrobust.core.text import excerpt, near_miss
from freqrobust.core.toml_lines import line_of

if TYPE_CHECKING:
    from typing_extensions import Self

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Options of which only one can be given: one on the command line replaces the other in the file.
ALTERNATIVES = (("attacks", "suite"), ("limit", "first"))
#: Options about one call, which are not written to a file.
OF_ONE_CALL = frozenset(
    {"config", "save_config", "quiet", "debug", "verbose", "dry_run", "no_progress", "full", "shard"}
)
#: Values of ``data_cache`` that are no directory.
DATA_CACHE_WORDS = ("auto", "memory", "off")
_DELIMITERS = re.compile(r"([:,=+\[\]])")


class FileOptions(Options):
    """Options that can be read from a TOML file and written to one."""

    #: options of the command that have no counterpart in Python; they may be in a file, and Python ignores them
    command_only: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """The options of a TOML file whose keys are names of options; relative paths are relative to its folder.

        Raises:
            SpecError: it cannot be read, or a key or a value is wrong; the message names the line.
        """
        return cls(**read_options(cls, path))

    def to_toml(self, path: str | os.PathLike[str]) -> None:
        """Write the options that were given to a TOML file, which :meth:`from_toml` and ``--config`` read.

        Raises:
            SpecError: an option is an object that has no text form.
            JournalError: the file cannot be written.
        """
        write_options(self, path)


def key_of(name: str) -> str:
    """An option as a file spells it."""
    return name.replace("_", "-")


def place_in(file: str, text: str, path: tuple[str, ...]) -> str:
    """``run.toml, line 3``: where a key is written."""
    line = line_of(text, path)
    return f"{file}, line {line}" if line is not None else file


def read_toml(path: Path, error_class: type[FreqRobustError]) -> tuple[str, dict[str, Any]]:
    """The text and the content of a TOML file.

    Raises:
        FreqRobustError: it cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as error:
        raise error_class(f"{path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise error_class(f"{path.name} is not TOML: {error}") from error


def checked_options(
    cls: type[Options],
    values: Mapping[str, Any],
    file: str,
    text: str,
    error_class: type[FreqRobustError],
    table: str = "",
    elsewhere: Callable[[str], str] = lambda key: "",
    unchecked: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The values of a table of a file by the names of the options, once they are known to be right.

    Args:
        cls: the options.
        values: the content of the table, by key.
        file: the name of the file, for messages.
        text: the text of the file.
        error_class: of the errors.
        table: the name of the table; empty at the top of the file.
        elsewhere: the end of the message about a key that is no option, where no option has a similar name.
        unchecked: values of options that have to be given, but not in the file.

    Raises:
        FreqRobustError: a key or a value is wrong; the message names its line.
    """
    path = (table,) if table else ()
    keys = {key_of(name): name for name in cls.model_fields if name not in OF_ONE_CALL}
    known = f"[{table}] keys" if table else "keys"
    for key in values:
        if key not in keys:
            full = f"{table}.{key}" if table else key
            spelled = key_of(key) if key_of(key) in keys else key
            hint = f"; did you mean {spelled!r}?" if spelled != key else near_miss(key, keys) or elsewhere(key)
            raise error_class(
                f"{place_in(file, text, (*path, key))}: unknown key {excerpt(full)!r}{hint} ({known}: {', '.join(keys)})"
            )
    named = {keys[key]: value for key, value in values.items()}
    try:
        cls(**{**(unchecked or {}), **named})
    except OptionError as error:
        prefix = f"{table}." if table else ""
        place = place_in(file, text, (*path, *([key_of(error.key)] if error.key else [])))
        spelled = error.spelled(lambda name, off: f"{prefix}{key_of(name)}{' = false' if off else ''}")
        raise error_class(f"{place}: {spelled}") from None
    return named


def read_options(cls: type[Options], given: str | os.PathLike[str], what: str = "the config file") -> dict[str, Any]:
    """The options in a TOML file, by name; relative paths are as seen from the current directory.

    Raises:
        SpecError: it cannot be read, or a key or a value is wrong; the message names the line.
    """
    path = regular_file(given, f"{what} {excerpt(os.fspath(given))}", SpecError, "a TOML file")
    text, content = read_toml(path, SpecError)
    ignored = {key_of(name) for name in getattr(cls, "command_only", ()) if name not in cls.model_fields}
    content = {key: value for key, value in content.items() if key not in ignored}
    required = {name: "-" for name, field in cls.model_fields.items() if field.is_required()}
    named = checked_options(cls, content, path.name, text, SpecError, unchecked=required)
    return relocated_options(cls, named, path.parent, Path())


def over_file(cls: type[Options], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command: those that were given, over those of the file that ``config`` names, if there is one.

    Raises:
        SpecError: the file is wrong.
    """
    if given.get("config") is None:
        return dict(given)
    values = read_options(cls, given["config"], "--config:")
    for several in ALTERNATIVES:
        if any(name in given for name in several):
            values = {name: value for name, value in values.items() if name not in several}
    return {**values, **given}


def write_options(options: Options, given: str | os.PathLike[str], **resolved: Any) -> None:
    """Write the options that were given to a TOML file.

    Args:
        options: the options.
        given: the file.
        resolved: other values for some of them.

    Raises:
        SpecError: an option is an object that has no text form.
        JournalError: the file cannot be written.
    """
    path = user_path(given, "--save-config")
    names = [n for n in type(options).model_fields if n in options.model_fields_set or n in resolved]
    values = {name: {**dict(options), **resolved}[name] for name in names if name not in OF_ONE_CALL}
    values = {name: value for name, value in values.items() if value is not None}
    plain = {name: _plain(value, name) for name, value in values.items()}
    plain = relocated_options(type(options), plain, Path(), path.parent)
    write_atomically(path, "".join(f"{key_of(name)} = {_toml(value)}\n" for name, value in plain.items()))


def _plain(value: Any, name: str) -> Any:
    """A value made of texts, numbers and lists."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if type(value).__module__ == "torch" and type(value).__name__ == "device":
        return str(value)
    raise SpecError(
        f"{name}: an object of {type(value).__name__} has no text form, so that it cannot be written to a file; give a spec"
    )


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=True)  # the escapes of JSON are escapes of TOML, surrogates aside
    return str(value).lower() if isinstance(value, bool) else repr(value)


# Paths


def relocated_options(cls: type[Options], values: Mapping[str, Any], old: Path, new: Path) -> dict[str, Any]:
    """The options with all relative paths that are meant from the folder ``old`` as seen from the folder ``new``."""
    if os.path.realpath(old) == os.path.realpath(new):
        return dict(values)
    return {name: _relocated(cls, name, value, old, new) for name, value in values.items()}


def _relocated(cls: type[Options], name: str, value: Any, old: Path, new: Path) -> Any:
    if isinstance(value, list):
        return [_relocated(cls, name, item, old, new) for item in value]
    if not isinstance(value, str):
        return value
    if _is_path(cls, name):
        return value if name == "data_cache" and value in DATA_CACHE_WORDS else _moved(value, old, new)
    if name == "reports":
        form, equals, target = value.rpartition("=")
        return value if target == "-" else f"{form}{equals}{_moved(target, old, new)}"
    spec = cls.shown(name)["panel"] in (MODEL, DATA)
    parts = _DELIMITERS.split(value)
    for position, part in enumerate(parts):
        is_key = parts[position + 1 : position + 2] == ["="]
        pathlike = "/" in part or "." in part or (spec and position > 0)
        if part and not is_key and pathlike and not os.path.isabs(part) and (old / part).exists():
            parts[position] = _moved(part, old, new)
    return "".join(parts)


def _is_path(cls: type[Options], name: str) -> bool:
    """Whether a field is a :data:`FilePath`, optional or not."""
    return any(getattr(item, "__origin__", None) is os.PathLike for item in get_args(cls.model_fields[name].annotation))


def _moved(path: str, old: Path, new: Path) -> str:
    if os.path.isabs(path) or path.startswith("~") or not path:
        return path
    return os.path.relpath(os.path.realpath(old / path), os.path.realpath(new))
