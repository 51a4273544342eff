"""The public names, their signatures, and what type checkers know of them.

After an intended change: ``python tests/contract/test_api.py > tests/contract/api.txt`` from the root of the project.
"""

from __future__ import annotations

import ast
import enum
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import freqrobust
from freqrobust.core import option_signatures, option_types

ROOT = Path(__file__).resolve().parents[2]
#: Public names that `from freqrobust import *` leaves out, because the packages that they need may be missing.
NEED_EXTRAS = {"RobustnessCallback"}
SNAPSHOT = Path(__file__).with_name("api.txt")


def surface() -> str:
    """A line for each public name, and for each parameter, field and method."""
    return "\n".join(line for name in freqrobust.__all__ for line in described(name, getattr(freqrobust, name))) + "\n"


def described(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"class {name}"
        yield from sorted(members(value))
    elif inspect.isfunction(value):
        signature = inspect.signature(value)
        yield f"def {name} -> {signature.return_annotation}"
        for parameter in signature.parameters.values():
            kind = "keyword " if parameter.kind is inspect.Parameter.KEYWORD_ONLY else ""
            # the types of options are in freqrobust/core/option_types.py
            annotation = f": {parameter.annotation}" if isinstance(parameter.annotation, str) else ""
            yield f"    {kind}{parameter.name}{annotation}{default_of(parameter.default)}"
    else:
        yield name if name != "__version__" else "__version__: str"


def default_of(value: Any) -> str:
    if value is inspect.Parameter.empty or type(value).__name__ == "PydanticUndefinedType":
        return ""
    return f" = {value.name if isinstance(value, enum.Enum) else value!r}"


def members(cls: type) -> Iterator[str]:
    """What the class, or a class of freqrobust that it is derived from, declares itself."""
    ours = [owner for owner in cls.__mro__ if owner.__module__.startswith("freqrobust.")]
    names = {name for owner in ours for name in {**vars(owner), **vars(owner).get("__annotations__", {})}}
    for name in names:
        if name.startswith("_") or name in {"model_config", "model_post_init"}:
            continue
        value = inspect.getattr_static(cls, name, None)
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(function):
            parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
            yield f"    {name}({', '.join(p.name + default_of(p.default).replace(' ', '') for p in parameters)})"
        elif issubclass(cls, BaseModel) and name in cls.model_fields:
            yield f"    {name}{default_of(cls.model_fields[name].default)}"
        else:
            yield f"    {name}"


def test_the_public_names_are_those_of_the_snapshot() -> None:
    committed = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    assert surface().splitlines() == committed, "see the docstring of this file"


def test_every_name_is_there_and_declared_for_type_checkers() -> None:
    tree = ast.parse(Path(str(freqrobust.__file__)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and any(map(is_import, node.body)))
    imported = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    homes = {name: f"freqrobust.{home}" for name, home in freqrobust._HOMES.items()}
    assert imported | {"noise": "freqrobust.numerics.noise"} == homes
    assert {*imported, "__version__"} - NEED_EXTRAS == set(freqrobust.__all__) == set(dir(freqrobust))
    assert freqrobust.__all__ == sorted(freqrobust.__all__)
    for name in freqrobust.__all__:
        assert (getattr(freqrobust, name).__doc__ or "").strip(), f"{name} has no docstring"


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="module 'freqrobust' has no attribute 'atack'"):
        freqrobust.atack  # type: ignore[attr-defined]  # noqa: B018


def test_the_types_of_the_options_are_those_of_the_fields() -> None:
    path = Path(str(option_types.__file__))
    assert option_signatures.source() == path.read_text(encoding="utf-8"), (
        "run: python -m freqrobust.core.option_signatures > freqrobust/core/option_types.py"
    )
    for name, (cls, without) in option_signatures.FUNCTIONS.items():
        assert set(getattr(option_types, name).__annotations__) == set(cls.model_fields) - without


def test_the_import_is_cheap() -> None:
    code = "import sys, freqrobust; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600, cwd=ROOT)


if __name__ == "__main__":
    print(surface(), end="")
