"""Importing the RobustBench package (Croce et al. 2021).

It imports ``autoattack``, which no package index has, and ``pkg_resources``, which recent versions of setuptools do
not contain. Both are replaced by stand-ins during the import; nothing that is used here needs them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from freqrobust.core.errors import ModelError
from freqrobust.core.user_code import running_user_code

PREFIX = "robustbench:"


class _Missing:
    """Stands for the classes of a package that is not installed."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise ModelError("RobustBench's own benchmark needs the package autoattack; use freqrobust's attacks instead")


def _resource_filename(package: str, name: str) -> str:
    return str(Path(str(sys.modules[package].__file__)).parent / name)


def _stand_ins() -> dict[str, ModuleType]:
    """Modules that RobustBench imports and that are not installed, or are deprecated and warn."""
    resources = ModuleType("pkg_resources")
    vars(resources)["resource_filename"] = _resource_filename
    modules = {"pkg_resources": resources}
    if importlib.util.find_spec("autoattack") is None:
        for name, attribute in (("autoattack", "AutoAttack"), ("autoattack.state", "EvaluationState")):
            modules[name] = ModuleType(name)
            vars(modules[name])[attribute] = _Missing
    return modules


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, and print to standard error."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def package(name: str = "robustbench") -> ModuleType:
    """Import the package or one of its modules, with stand-ins for the packages that it does without.

    Raises:
        ModelError: it is not installed, or cannot be imported.
    """
    if "robustbench" not in sys.modules and importlib.util.find_spec("robustbench") is None:
        raise ModelError("robustbench: models and data need the extra 'zoo': pip install 'freqrobust[zoo]'")
    stand_ins = _stand_ins()
    before = {key: sys.modules.get(key) for key in stand_ins}
    sys.modules.update(stand_ins)
    try:
        with running_user_code("robustbench cannot be imported", ModelError), quiet():
            return importlib.import_module(name)
    finally:
        for key, module in before.items():
            if module is None:
                sys.modules.pop(key, None)
            else:
                sys.modules[key] = module


def line(error: BaseException) -> str:
    """The message of an error, on one line."""
    return " ".join(str(error).split())[:300]
