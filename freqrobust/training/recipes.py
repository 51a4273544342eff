"""Recipes: how a network is trained, as named TOML files, files of the user, and options on top.

This module does not import torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from freqrobust.core.errors import SpecError
from freqrobust.core.files import reason, regular_file
from freqrobust.core.options import OptionError
from freqrobust.core.text import excerpt, near_miss
from freqrobust.core.toml_lines import line_of
from freqrobust.core.training_config import Recipe, TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).with_name("recipes")


class RecipeError(SpecError):
    """A recipe cannot be found, read or understood."""


def recipe_names() -> list[str]:
    """The names of the recipes that come with freqrobust."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def recipe_about(name: str) -> str:
    """What a named recipe is: the comment at the top of its file."""
    lines = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in lines[: _comments(lines)]]
    return " ".join(comment)


def _comments(lines: Sequence[str]) -> int:
    return next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))


def resolve(config: TrainConfig) -> Recipe:
    """The recipe of a training: the named one or the file, with ``set`` on top of it, and the given options on top of both.

    Raises:
        SpecError: there is no such recipe, or a key or a value is wrong; the message names the line of a file.
    """
    values = read_recipe(config.recipe) if config.recipe is not None else {}
    for item in config.set:
        key, value = _assignment(item)
        values[key] = value
        _checked({key: value}, partial(_set_by, item))
    given = {name: getattr(config, name) for name in config.model_fields_set if name in Recipe.model_fields}
    return Recipe(**{**values, **given})


def read_recipe(given: str) -> dict[str, Any]:
    """The values of a recipe, by field.

    Args:
        given: a name from ``freqrobust list recipes``, or a TOML file.

    Raises:
        RecipeError: it does not exist, is not TOML, or has an unknown key or a wrong value; the message names the line.
    """
    if given in recipe_names():
        path = FOLDER / f"{given}.toml"
    elif given.endswith(".toml") or "/" in given:
        path = regular_file(given, f"the recipe {given}", RecipeError, "a TOML file")
    else:
        names = recipe_names()
        raise RecipeError(f"unknown recipe {given!r}{near_miss(given, names)} ({', '.join(names)}, or a file .toml)")
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(f"the recipe {given} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise RecipeError(f"the recipe {given} is not TOML: {error}") from error
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in Recipe.model_fields:
            raise RecipeError(f"{_place(given, text, key)}: {_unknown(key)}")
        if name in values:
            raise RecipeError(f"{_place(given, text, key)}: {name.replace('_', '-')!r} is given twice")
        values[name] = value
    written = {key.replace("-", "_"): key for key in content}
    return _checked(values, lambda name: _place(given, text, written.get(name, "")))


def _place(file: str, text: str, key: str) -> str:
    line = line_of(text, (key,))
    return f"{file}, line {line}" if line is not None else file


def _unknown(key: str) -> str:
    keys = [name.replace("_", "-") for name in Recipe.model_fields]
    hint = near_miss(key.replace("_", "-"), keys)
    return f"unknown key {excerpt(key)!r}{hint} (keys of a recipe: {', '.join(keys)})"


def _checked(values: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """The values, if they make a recipe.

    Raises:
        RecipeError: one is wrong; ``place`` gets its name and says where it is written.
    """
    try:
        Recipe(**values)
    except OptionError as error:
        said = error.spelled(lambda name, _: name.replace("_", "-"))
        raise RecipeError(f"{place(error.key or '')}: {said}") from None
    return dict(values)


def _set_by(item: str, _: str = "") -> str:
    return f"--set {excerpt(item)}"


def _assignment(item: str) -> tuple[str, Any]:
    """A field and its value, from ``key=value``."""
    key, equals, text = (part.strip() for part in item.partition("="))
    if not equals or not text:
        raise RecipeError(f"{_set_by(item)}: expected key=value, such as epochs=20")
    name = key.replace("-", "_")
    if name not in Recipe.model_fields:
        raise RecipeError(f"{_set_by(item)}: {_unknown(key)}")
    field = Recipe.model_fields[name]
    if text == "none" and type(None) in get_args(field.annotation):
        return name, None
    if field.annotation is bool or (Recipe.shown(name)["many"] and text.startswith("[")):
        try:
            return name, tomllib.loads(f"value = {text}")["value"]
        except ValueError:
            form = "true or false" if field.annotation is bool else 'a list such as ["clean", "pgd"]'
            raise RecipeError(f"{_set_by(item)}: expected {form}") from None
    return name, text
