"""Reports of older schema versions, read as the current one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from freqrobust.results.records import SCHEMA_VERSION


def migrated(values: Any) -> dict[str, Any]:
    """The content of a report or an analysis of the current schema version, from that or an older one.

    Raises:
        ValueError: it has no version, or a newer one.
    """
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        hint = "; it was written by a newer freqrobust: upgrade to read it" if newer else ""
        raise ValueError(f"expected a report of schema version {SCHEMA_VERSION}, but got {version!r}{hint}")
    for step in range(version, SCHEMA_VERSION):
        values = {**_STEPS[step](values), "schema_version": step + 1}
    return dict(values)


_VERDICTS = {"believable": "no problem found", "doubtful": "inconclusive"}
_CELL = {"by_chance": "chance_accuracy", "agreement": "clean_agreement"}
_CHECK = {"beyond": "additional"}
_GATE = {"lost": "newly_misclassified", "gained": "newly_correct", "detectable": "minimum_detectable_drop"}


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    """The undefended model was "none"; some fields and verdicts had other names; empty notes were null."""
    for key in ("worst_case", "corruptions", "warnings", "results"):  # the results are those of an analysis
        values = _each(values, key, _defended)
    values = _each(values, "cells", _cell)
    values = _each(values, "diagnostics", _diagnosis)
    values = _each(values, "analyses", migrated)
    return {**values, "gate": _gate(values["gate"])} if "gate" in values else values


def _each(values: dict[str, Any], key: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """With the records of a list changed; whatever else is there is left to the validation."""
    if not isinstance(values.get(key), list):
        return values
    return {**values, key: [change(part) if isinstance(part, dict) else part for part in values[key]]}


def _renamed(part: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in part.items()}


def _defended(part: dict[str, Any]) -> dict[str, Any]:
    part = {**part, **{key: "undefended" for key in ("defense", "defense_spec") if part.get(key) == "none"}}
    if isinstance(part.get("difference"), dict):
        part["difference"] = {**part["difference"], "against": "undefended"}
    return part


def _cell(cell: dict[str, Any]) -> dict[str, Any]:
    cell = _defended(_renamed(cell, _CELL))
    return {key: value for key, value in cell.items() if value is not None or key not in ("breakdown", "notes")}


def _diagnosis(diagnosis: dict[str, Any]) -> dict[str, Any]:
    diagnosis = _each(_defended(diagnosis), "checks", lambda check: _renamed(check, _CHECK))
    verdict, sentence = diagnosis.get("verdict"), diagnosis.get("sentence")
    if verdict in _VERDICTS:
        diagnosis["verdict"] = _VERDICTS[verdict]
        if isinstance(sentence, str) and sentence.startswith(verdict):
            diagnosis["sentence"] = _VERDICTS[verdict] + sentence.removeprefix(verdict)
    return diagnosis


def _gate(value: Any) -> Any:
    """Of any part of a gate: names of fields, and the names of cells in its texts."""
    if isinstance(value, dict):
        return {_GATE.get(key, key): _gate(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_gate(content) for content in value]
    return re.sub(r"(?<!\S)none / ", "undefended / ", value) if isinstance(value, str) else value


#: What turns the content of a version into that of the next.
_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
