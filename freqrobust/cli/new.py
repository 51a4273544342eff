"""``freqrobust new``: a package with a plugin that works, and its test."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from freqrobust.plugins.registry import Registry

FOLDER = Path(__file__).with_name("templates")
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


class Kind(NamedTuple):
    """One kind of plugin that can be written.

    Attributes:
        group: of its entry point, without ``freqrobust.``.
        registry: module and name of its registry, below ``freqrobust``.
        checks: the beginning of the name of its function in ``freqrobust.testing``.
        command: that uses it, on the embedded demo.
        taken: names that its module imports, which its class cannot have.
    """

    group: str
    registry: tuple[str, str]
    checks: str
    command: str
    taken: tuple[str, ...]


KINDS = {
    "defense": Kind(
        "defenses", ("plugins.registry", "defenses"), "defense", "freqrobust eval --defense {}", ("F", "InputDefense")
    ),
    "attack": Kind(
        "attacks",
        ("plugins.registry", "attacks"),
        "attack",
        "freqrobust eval --attack {}",
        ("Attack", "AttackContext", "ClassVar", "F", "Pixel"),
    ),
    "analysis": Kind(
        "analyses",
        ("harness.analysis", "analyses"),
        "analysis",
        "freqrobust analyze {}",
        ("Analysis", "AnalysisContext", "AnalysisResult", "AnalysisTable", "Any", "ImageData", "Measured", "Sequence"),
    ),
    "report": Kind(
        "reports",
        ("results.reporter", "reports"),
        "reporter",
        "freqrobust eval --report {}=-",
        ("IO", "Report", "Reporter"),
    ),
}


def new(
    *,
    kind: Annotated[str, typer.Argument(help="defense, attack, analysis or report.", metavar="KIND")],
    name: Annotated[
        str,
        typer.Argument(
            help="The name of the plugin and of the folder: lower-case letters, digits, and - or _ between them.",
            metavar="NAME",
        ),
    ],
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")] = False,
) -> int:
    """Write the package; the exit code.

    Raises:
        SpecError: the kind is unknown, or the name cannot be used; nothing is written.
    """
    import shlex

    from freqrobust.core.errors import SpecError

    folder = Path(name)
    files = package_files(kind, name)
    if folder.exists() or folder.is_symlink():
        raise SpecError(f"{name} already exists, and new never overwrites anything; nothing was written")
    try:
        folder.mkdir()
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
            print(f"written: {folder / path}")
    except OSError as error:
        raise SpecError(f"{name} cannot be written: {error.strerror or error}") from error
    print("next:")
    for command in (f"cd {shlex.quote(name)}", "pip install -e .", "pytest", KINDS[kind].command.format(name)):
        print(f"  {command}")
    return 0


def package_files(kind: str, name: str) -> dict[Path, str]:
    """The files of a package, by their paths in its folder.

    Raises:
        SpecError: the kind is unknown, or the name cannot be used.
    """
    from freqrobust.core.errors import SpecError
    from freqrobust.core.text import near_miss

    if kind not in KINDS:
        raise SpecError(f"unknown kind of plugin {kind!r}{near_miss(kind, KINDS)} ({', '.join(KINDS)})")
    described = KINDS[kind]
    module, class_name = names(kind, name)
    registry_module, registry = described.registry
    article = "an" if kind[0] in "aeiou" else "a"
    values = {
        "name": name,
        "module": module,
        "class_name": class_name,
        "distribution": f"freqrobust-{module.replace('_', '-')}",
        "kind": kind,
        "group": described.group,
        "plural": described.group,
        "article": article.capitalize(),
        "checks": described.checks,
        "registry_module": registry_module,
        "registry": registry,
        "command": described.command.format(name),
    }
    templates = {
        Path("pyproject.toml"): "pyproject.toml",
        Path("README.md"): "README.md",
        Path("src") / module / "__init__.py": "init.py",
        Path("src") / module / f"{kind}.py": f"{kind}.py",
        Path("tests") / f"test_{module}.py": "test.py",
    }
    return {
        path: Template((FOLDER / f"{template}.txt").read_text(encoding="utf-8")).substitute(values)
        for path, template in templates.items()
    }


def names(kind: str, name: str) -> tuple[str, str]:
    """The module and the class of a plugin.

    Raises:
        SpecError: they are no names in Python, or are those of something else.
    """
    from freqrobust.core.errors import SpecError
    from freqrobust.plugins.registry import RESERVED_NAMES

    if not _NAME.fullmatch(name):
        raise SpecError(
            f"the name {name!r} cannot be used: expected lower-case letters, digits, and single - or _ between them, beginning "
            "with a letter, for example box-blur"
        )
    registry = _registry(kind)
    if name in registry.names() or name in registry.families():
        raise SpecError(
            f"there is already one of the {registry.plural} named {name!r} ({registry.origin(name)}); use another name"
        )
    if name in RESERVED_NAMES.get(kind, set()):
        raise SpecError(f"the name {name!r} is reserved; use another name")
    module = name.replace("-", "_")
    class_name = "".join(part[0].upper() + part[1:] for part in module.split("_"))
    if keyword.iskeyword(module) or keyword.iskeyword(class_name):
        raise SpecError(f"the name {name!r} cannot be used: it is a keyword of Python")
    if class_name in (*KINDS[kind].taken, "Field"):
        raise SpecError(f"the name {name!r} cannot be used: the module imports another {class_name}")
    if find_spec(module) is not None:
        raise SpecError(f"the name {name!r} cannot be used: there is already a Python module {module!r}")
    return module, class_name


def _registry(kind: str) -> Registry[Any]:
    from importlib import import_module

    module, attribute = KINDS[kind].registry
    found: Registry[Any] = getattr(import_module(f"freqrobust.{module}"), attribute)
    return found
