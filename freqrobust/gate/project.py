"""``freqrobust.toml``: what ``freqrobust check`` evaluates, and what it is judged by."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.numbers import Number
from freqrobust.core.text import near_miss
from freqrobust.gate.regression import DEFAULT, Rules
from freqrobust.gate.sequential import ERROR_RATE
from freqrobust.gate.thresholds import Threshold

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "freqrobust.toml"
UPDATE_COMMAND = "freqrobust check --update-baseline"


class ProjectError(FreqRobustError):
    """A project file cannot be found, read or understood."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[str], BeforeValidator(_as_list)]


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
        protected_namespaces=(),
    )


class GateTable(_Table):
    """``[gate]``: what counts as a regression, and how thresholds are judged."""

    cells: Texts = [DEFAULT]
    alpha: float = 0.05
    max_drop: Number = 0.01
    max_drops: dict[str, Number] = {}
    strict: bool = False
    confident: bool = False


class SequentialTable(_Table):
    """``[sequential]``: the error rates of ``check --sequential``."""

    false_pass: float = ERROR_RATE
    false_fail: float = ERROR_RATE


class Project(_Table):
    """The whole file. What is not in it is as in ``freqrobust eval``."""

    model: Texts = []
    arch: Texts = []
    normalize: Texts = []
    trust_checkpoint: bool = False
    data: str | None = None
    data_dir: str | None = None
    split: str = "test"
    limit: int | None = Field(None, ge=1)
    first: int | None = Field(None, ge=1)
    train_data: str | None = None
    suite: str | None = None
    attacks: Texts | None = None
    defenses: Texts = []
    undefended: bool = Field(True, description="evaluate the undefended model as well")
    oblivious: bool = True
    diagnose: bool = Field(
        False, description="run other attacks to see whether the robust accuracies are to be believed"
    )
    batch_size: int | str = "auto"
    device: str = "auto"
    precision: str = "fp32"
    seed: int = 0
    mce_reference: str | None = Field(None, description="the report that corruption errors are divided by, or alexnet")
    baseline: str | None = Field(None, description="the report that must not be fallen behind")
    gate: GateTable = GateTable()
    thresholds: dict[str, Number] = Field({}, description="the accuracy that each cell has to reach")
    sequential: SequentialTable = SequentialTable()

    @property
    def rules(self) -> Rules:
        gate = self.gate
        return Rules(tuple(gate.cells), gate.alpha, gate.max_drop, tuple(gate.max_drops.items()), gate.strict)

    @property
    def required(self) -> list[Threshold]:
        return [Threshold(cell, share) for cell, share in self.thresholds.items()]


def find_project(start: Path | None = None) -> Path:
    """The nearest ``freqrobust.toml``, from a folder upwards.

    Raises:
        ProjectError: there is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / NAME).is_file():
            return folder / NAME
    raise ProjectError(f"there is no {NAME} in {here} or above it; freqrobust init writes one")


def read_project(path: Path) -> Project:
    """Read a project file.

    Raises:
        ProjectError: it is not TOML, or has a key or a value that means nothing; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise ProjectError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ProjectError(f"{path.name} is not TOML: {error}") from error
    try:
        project = Project.model_validate(values)
        _ = project.rules, project.required
    except ValidationError as error:
        raise ProjectError(_explain(path.name, text, error)) from None
    except FreqRobustError as error:
        raise ProjectError(f"{path.name}: {error}") from error
    if project.suite is not None and project.attacks is not None:
        raise ProjectError(f"{_place(path.name, text, ('attacks',))}: give either attacks or a suite, not both")
    if project.limit is not None and project.first is not None:
        raise ProjectError(f"{_place(path.name, text, ('limit',))}: give either limit or first, not both")
    return project


def _explain(name: str, text: str, error: ValidationError) -> str:
    """The first problem, an unknown key before any other, with the line it is on."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    path = tuple(str(part) for part in first["loc"])
    place, key = _place(name, text, path), ".".join(path)
    if first["type"] == "extra_forbidden":
        tables: dict[tuple[str, ...], type[_Table]] = {
            (): Project,
            ("gate",): GateTable,
            ("sequential",): SequentialTable,
        }
        known = _keys(tables.get(path[:-1], Project))
        where = f"[{'.'.join(path[:-1])}] " if path[:-1] else ""
        moved = next((f"; it belongs into [{t[0]}]" for t, m in tables.items() if t and path[-1] in _keys(m)), "")
        return f"{place}: unknown key {key!r}{near_miss(path[-1], known) or moved} ({where}keys: {', '.join(known)})"
    message = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{place}: {key} {message}, but got {first['input']!r}"


def _keys(table: type[_Table]) -> list[str]:
    return [field.alias or name for name, field in table.model_fields.items()]


def _place(name: str, text: str, path: tuple[str, ...]) -> str:
    line = line_of(text, path)
    return f"{name}, line {line}" if line is not None else name


_HEADER = re.compile(r"^\s*\[\s*(?P<table>[^\[\]]+?)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"""^\s*(?P<key>(?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*=""")
_PART = re.compile(r""""[^"]*"|'[^']*'|[\w-]+""")


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    """The line, from 1, on which a key or the table that it is in is written; None where it is not found."""
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None  # how much of the path, and where
    for number, line in enumerate(text.splitlines(), start=1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header is not None:
            table = _parts(header["table"])
            here = table
        elif key is not None:
            here = (*table, *_parts(key["key"]))
        else:
            continue
        if here and here == path[: len(here)] and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best is not None else None


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(key))


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """The paths in a project file are relative to its folder."""
    import os

    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
