"""The engine stands alone: it imports no plugin, is cheap to import, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import freqrobust
from freqrobust.harness.analysis import analyses
from freqrobust.plugins.registry import attacks, certificates, defenses
from freqrobust.results.reporter import reports
from support.waiting import PATIENCE

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PACKAGES = ("cli", "core", "data", "gate", "harness", "models", "numerics", "plugins", "results", "training")
ENGINE = sorted(path for name in ENGINE_PACKAGES for path in (ROOT / "freqrobust" / name).rglob("*.py"))
PLUGIN_PACKAGES = (
    "freqrobust.analyses",
    "freqrobust.attacks",
    "freqrobust.certificates",
    "freqrobust.defenses",
    "freqrobust.reports",
)
MODULES = sorted(
    module.name
    for package in ("freqrobust",)
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    if not module.ispkg
)


def imported(tree: ast.AST) -> set[str]:
    """Every module that a file imports, by statement or by ``import_module("...")``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "freqrobust" if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in ("import_module", "__import__"):
                found |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found


def names_plugin(module: str) -> bool:
    head = module.split(".")
    return module.startswith(PLUGIN_PACKAGES) or head[0] in ("attacks", "defenses", "reports")


@pytest.mark.parametrize(
    "source", ["from freqrobust.attacks.pgd import PGD", "from . import reports", "import attacks"]
)
def test_the_walk_would_notice(source) -> None:
    assert any(names_plugin(module) for module in imported(ast.parse(source)))


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: "-".join(path.parts[-2:]))
def test_the_engine_imports_no_plugin(path) -> None:
    found = imported(ast.parse(path.read_text(encoding="utf-8")))
    kinds = ("analyses", "attacks", "certificates", "defenses", "reports")
    objects = {f"freqrobust.plugins.registry.{kind}" for kind in kinds}
    assert not sorted(module for module in found - objects if names_plugin(module))


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, **options)


def test_importing_is_cheap() -> None:
    """Neither the package nor what help texts need brings torch."""
    code = "import sys, freqrobust, freqrobust.plugins.base, freqrobust.plugins.registry, freqrobust.plugins.help, freqrobust.cli"
    plugins = (
        "from freqrobust.plugins.registry import attacks, certificates, defenses\nfrom freqrobust.results.reporter import reports\n"
        "from freqrobust.harness.analysis import analyses"
    )
    load = "[r.get(n) for r in (analyses, attacks, certificates, defenses, reports) for n in r.names() if not n.startswith('example_')]"
    done = python(
        f"{code}\n{plugins}\n{load}\nprint([m for m in ('torch', 'torchvision', 'sklearn') if m in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_public_names_exist() -> None:
    assert sorted(freqrobust.__all__) == list(freqrobust.__all__)
    for name in freqrobust.__all__:
        assert getattr(freqrobust, name) is not None
    assert set(freqrobust.__all__) <= set(dir(freqrobust))
    with pytest.raises(AttributeError, match="no attribute 'evalaute'"):
        freqrobust.evalaute  # noqa: B018


@pytest.mark.parametrize("folder", ["attacks", "defenses", "reports"])
def test_folders_of_plugins_refuse_to_be_imported_by_their_bare_name(folder) -> None:
    done = python(f"import {folder}", cwd=ROOT)
    assert done.returncode != 0
    assert f"import freqrobust.{folder} instead" in done.stderr


@pytest.mark.parametrize(
    "registry", [analyses, attacks, certificates, defenses, reports], ids=lambda registry: registry.kind
)
def test_entry_points_are_those_of_the_project_file(registry) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][registry.group]
    installed = {e.name: e.value for e in entry_points(group=registry.group) if e.value.startswith("freqrobust.")}
    assert installed == declared, "the installed entry points are old: reinstall with pip install -e ."
    for name in declared:
        assert issubclass(registry.get(name), registry.base)
        assert registry.origin(name).startswith("freqrobust ")


def test_packages_are_all_declared() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = settings["package-dir"]
    assert set(settings["packages"]) == set(folders) >= {"freqrobust", *PLUGIN_PACKAGES}
    found = {path.parent for folder in folders.values() for path in (ROOT / folder).rglob("__init__.py")}
    assert found == {ROOT / folder for folder in folders.values()}


@pytest.mark.parametrize("module", ["freqrobust", *MODULES])
def test_examples_in_docstrings_run(module) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0


def test_there_are_examples_to_run() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    count = sum(len(test.examples) for m in MODULES for test in finder.find(importlib.import_module(m)))
    assert count >= 3
