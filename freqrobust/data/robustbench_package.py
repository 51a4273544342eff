"""The RobustBench package, and what it needs to be imported."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import running_user_code
from freqrobust.plugins.specs import parse_params

PREFIX = "robustbench:"


class _NotHere:
    """Takes the place of what the missing package would bring."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise ModelError("RobustBench's own benchmark needs the package autoattack; use freqrobust's attacks instead")


def _resource_filename(package: str, name: str) -> str:
    return str(Path(str(sys.modules[package].__file__)).parent / name)


def _stand_ins() -> dict[str, ModuleType]:
    """The modules that RobustBench imports and that are missing, or warn that they will be."""
    resources = ModuleType("pkg_resources")
    vars(resources)["resource_filename"] = _resource_filename
    found = {"pkg_resources": resources}
    if importlib.util.find_spec("autoattack") is None:
        for name, attribute in (("autoattack", "AutoAttack"), ("autoattack.state", "EvaluationState")):
            found[name] = ModuleType(name)
            vars(found[name])[attribute] = _NotHere
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, and what is printed goes to standard error."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def package(name: str = "robustbench") -> ModuleType:
    """The package or one of its modules, whatever its imports need.

    Raises:
        ModelError: it is not installed, or cannot be imported.
    """
    if "robustbench" not in sys.modules and importlib.util.find_spec("robustbench") is None:
        raise ModelError("robustbench: models and data need the extra 'zoo': pip install 'freqrobust[zoo]'")
    stand_ins = _stand_ins()
    before = {key: sys.modules.get(key) for key in stand_ins}
    sys.modules.update(stand_ins)
    try:
        with running_user_code("robustbench cannot be imported", ModelError), _quiet():
            return importlib.import_module(name)
    finally:
        for key, module in before.items():
            if module is None:
                sys.modules.pop(key, None)
            else:
                sys.modules[key] = module


def line(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:300]


def options(text: str, spec: str, known: Iterable[str]) -> dict[str, str]:
    """The parameters of a spec, none but the known ones."""
    found: dict[str, str] = {}
    for key, value in parse_params(text, spec):
        if key not in known:
            raise SpecError(
                f"{spec!r}: unknown parameter {key!r}{near_miss(key, known)} (parameters: {', '.join(known)})"
            )
        if key in found:
            raise SpecError(f"{spec!r}: parameter {key!r} is given twice")
        found[key] = value
    return found
