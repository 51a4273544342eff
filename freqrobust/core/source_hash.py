"""Hashes of source code, so that an edited file is never served from a journal."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from functools import cache
from pathlib import Path

from freqrobust.core.user_code import FILE_MODULE


def source_hash(cls: type) -> str:
    """Hash of the source of a class, its bases, and the modules of the same package that these import."""
    files: dict[str, Path | None] = {}
    for base in cls.__mro__:
        _collect(base.__module__, files)
    digest = hashlib.sha256(cls.__qualname__.encode())
    for name in sorted(files):
        file = files[name]
        digest.update(name.encode())  # of a single file the name holds the hash of what was executed
        if file is not None and not name.startswith(FILE_MODULE):
            digest.update(file.read_bytes())
    if all(file is None for file in files.values()):  # a notebook, or a session at the prompt
        digest.update(_code_of(cls))
    return digest.hexdigest()[:16]


def _code_of(cls: type) -> bytes:
    """What can be hashed of a class that has no file: its source, else its compiled methods."""
    try:
        return inspect.getsource(cls).encode()
    except (OSError, TypeError):
        codes = [v.__code__ for v in vars(cls).values() if inspect.isfunction(v)]
        return repr(
            [(c.co_name, c.co_code, [k for k in c.co_consts if not inspect.iscode(k)], c.co_names) for c in codes]
        ).encode()


_NOT_OURS = {"freqrobust", "torch", "torchvision", "numpy", "pydantic", "builtins", "abc", "typing"}
_PLUGINS = ("freqrobust.attacks", "freqrobust.defenses", "freqrobust.reports", "freqrobust.analyses")


def _collect(name: str, found: dict[str, Path | None], importer: tuple[str, Path] | None = None) -> None:
    """Add a module and, from there on, what it imports of its own package or, for a lone file, of its own folder."""
    if name in found or (name.split(".")[0] in _NOT_OURS and not name.startswith(_PLUGINS)):
        return
    file = _file_of(name)
    if importer is not None and (file is None or not _near(name, file, *importer)):
        return
    found[name] = file
    if file is None:
        return
    package = getattr(sys.modules.get(name), "__package__", None) or name.rpartition(".")[0]
    for imported in _imported(file, package):
        _collect(imported, found, (name, file))


def _file_of(name: str) -> Path | None:
    """The source file of a module, imported or not."""
    module = sys.modules.get(name)
    try:
        origin = getattr(module, "__file__", None) if module is not None else _origin(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(origin).resolve() if origin and origin.endswith(".py") and Path(origin).is_file() else None


def _origin(name: str) -> str | None:
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return None  # asking for it would import the parent
    spec = importlib.util.find_spec(name)
    return spec.origin if spec is not None else None


def _near(name: str, file: Path, importer: str, importer_file: Path) -> bool:
    top = name.split(".")[0]
    if top == importer.split(".")[0]:
        return True
    folder = importer_file.parent
    return folder in file.parents and folder.name not in ("site-packages", "dist-packages")


def _imported(file: Path, package: str) -> list[str]:
    """Full names of the modules that a source file names in its import statements, also inside of functions."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            start = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (start, node.module or "") if part)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


@cache
def engine_hash() -> str:
    """Hash of freqrobust's own numerical code, a part of every identity; what was imported does not change."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.name.startswith("cli"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
