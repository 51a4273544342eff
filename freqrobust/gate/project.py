"""``freqrobust.toml``: what ``freqrobust check`` evaluates, and what it is judged by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freqrobust.core.config import EvalConfig
from freqrobust.core.config_file import checked_options, key_of, place_in, read_toml
from freqrobust.core.errors import FreqRobustError
from freqrobust.core.numbers import Number, fraction
from freqrobust.core.options import Names, Options, option
from freqrobust.core.text import excerpt, near_miss
from freqrobust.gate.regression import DEFAULT, Rules
from freqrobust.gate.sequential import ERROR_RATE
from freqrobust.gate.thresholds import Threshold

NAME = "freqrobust.toml"
UPDATE_COMMAND = "freqrobust check --update-baseline"


class ProjectError(FreqRobustError):
    """A project file cannot be found, read or understood."""


class GateTable(Options):
    """``[gate]``: the baseline, what counts as a regression, and how thresholds are judged."""

    baseline: str | None = option(None, "The report with which a new one is compared.")
    cells: Names = option([DEFAULT], "The cells that can fail the gate.")
    alpha: float = option(0.05, "Probability of a false alarm, over all gate cells together.")
    max_drop: Number = option(0.01, "Allowed drop of an accuracy.")
    max_drops: dict[str, Number] = option({}, "Allowed drop of an accuracy, by cell.")
    strict: bool = option(False, "Fail if seeds, versions or cells differ.")
    confident: bool = option(False, "Compare the lower end of the confidence interval with the thresholds.")

    @property
    def rules(self) -> Rules:
        """What counts as a regression.

        Raises:
            SpecError: a share or a probability is not valid.
        """
        return Rules(tuple(self.cells), self.alpha, self.max_drop, tuple(self.max_drops.items()), self.strict)


class SequentialTable(Options):
    """``[sequential]``: the error rates of ``check --sequential``."""

    false_pass: float = option(ERROR_RATE, "Probability of passing a cell that all samples would fail.")
    false_fail: float = option(ERROR_RATE, "Probability of failing a cell that all samples would pass.")


#: The tables whose keys are options.
TABLES: dict[str, type[Options]] = {"eval": EvalConfig, "gate": GateTable, "sequential": SequentialTable}


@dataclass(frozen=True)
class Project:
    """The whole file. What is not in it is as in ``freqrobust eval``."""

    eval: EvalConfig = field(default_factory=EvalConfig)
    gate: GateTable = field(default_factory=GateTable)
    sequential: SequentialTable = field(default_factory=SequentialTable)
    required: tuple[Threshold, ...] = ()

    @property
    def rules(self) -> Rules:
        return self.gate.rules


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
    text, values = read_toml(path, ProjectError)
    known = [*TABLES, "thresholds"]
    for key, value in values.items():
        if key not in known or not isinstance(value, dict):
            raise ProjectError(f"{place_in(path.name, text, (key,))}: {_misplaced(key, known)}")
    tables: dict[str, Any] = {
        name: _table(path.name, text, name, cls, values.get(name, {})) for name, cls in TABLES.items()
    }
    required = _thresholds(path.name, text, values.get("thresholds", {}))
    project = Project(**tables, required=required)
    try:
        _ = project.rules
    except FreqRobustError as error:
        raise ProjectError(f"{path.name}: {error}") from error
    return project


def _misplaced(key: str, known: list[str]) -> str:
    """Why a key at the top of the file is wrong."""
    if key in known:
        return f"{key!r} should be a table: write [{key}]"
    tables = {name: list(map(key_of, cls.model_fields)) for name, cls in TABLES.items()}
    home = next((name for name, keys in tables.items() if key in keys), None)
    if home is not None:
        return f"{key!r} belongs into the table [{home}]: move it below the line [{home}]"
    hint = near_miss(key, [*known, *(key for keys in tables.values() for key in keys)])
    return f"unknown key {key!r}{hint} (tables: {', '.join(known)})"


def _table(file: str, text: str, table: str, cls: type[Options], values: Mapping[str, Any]) -> Any:
    """The options of a table.

    Raises:
        ProjectError: one is unknown or wrong; the message names its line.
    """

    def elsewhere(key: str) -> str:
        return next((f"; it belongs into [{t}]" for t, c in TABLES.items() if key in map(key_of, c.model_fields)), "")

    return cls(**checked_options(cls, values, file, text, ProjectError, table, elsewhere))


def _thresholds(file: str, text: str, values: Mapping[str, Any]) -> tuple[Threshold, ...]:
    """The accuracy that each cell has to reach.

    Raises:
        ProjectError: one is no share.
    """
    thresholds = []
    for cell, given in values.items():
        place = place_in(file, text, ("thresholds", cell))
        try:
            share = fraction(given)
            if isinstance(share, bool) or not isinstance(share, int | float):
                raise ProjectError(f"thresholds.{cell} should be a number, but got {excerpt(repr(given))}")
            thresholds.append(Threshold(cell, share))
        except (FreqRobustError, ValueError) as error:
            raise ProjectError(f"{place}: {error}") from None
    return tuple(thresholds)


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
