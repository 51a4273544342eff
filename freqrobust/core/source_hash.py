"""Hashes of source code, so that a result is never served from a journal after the code behind it changed.

A hash covers a module and, recursively, what it imports: of freqrobust, of its own package and, for a lone file, of
its own folder. Lines of comments, docstrings and imports for type checkers alone do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.files import write_atomically
from freqrobust.core.user_code import FILE_MODULE

_PACKAGE = "freqrobust"
_ROOT = Path(__file__).resolve().parents[1]
#: The import statements of a file, and a digest of its code.
_Parsed = tuple[list[tuple[int, str, tuple[str, ...]]], bytes]
#: By the hash of the content.
_known: dict[str, _Parsed] = {}
#: Packages that are not followed: their versions are recorded instead.
_LIBRARIES = {"torch", "torchvision", "numpy", "pydantic", "builtins", "abc", "typing"}


def code_hash(modules: Iterable[str]) -> str:
    """Hash of modules of freqrobust and of all that they import of freqrobust."""
    files: dict[str, Path | None] = {}
    for module in modules:
        _collect(module, files)
    return _digest("", files).hexdigest()[:16]


def source_hash(cls: type, modules: Iterable[str] = ()) -> str:
    """Hash of the source of a class, its bases, further modules, and the modules that these import."""
    if cls.__module__.startswith(f"{_PACKAGE}."):  # loaded code of freqrobust does not change in a process
        return _own_source_hash(cls, tuple(modules))
    return _source_hash(cls, modules)


@lru_cache(maxsize=1024)
def _own_source_hash(cls: type, modules: tuple[str, ...]) -> str:
    return _source_hash(cls, modules)


def _source_hash(cls: type, modules: Iterable[str]) -> str:
    files: dict[str, Path | None] = {}
    for base in cls.__mro__:
        _collect(base.__module__, files)
    for module in modules:
        _collect(module, files)
    digest = _digest(cls.__qualname__, files)
    if all(file is None for file in files.values()) or _file_of(cls.__module__) is None:
        digest.update(_code_of(cls))  # a notebook, or a session at the prompt
    return digest.hexdigest()[:16]


def covered(modules: Iterable[str]) -> list[str]:
    """The names of all modules that :func:`code_hash` covers."""
    files: dict[str, Path | None] = {}
    for module in modules:
        _collect(module, files)
    return sorted(name for name, file in files.items() if file is not None)


def _digest(start: str, files: dict[str, Path | None]) -> hashlib._Hash:
    digest = hashlib.sha256(start.encode())
    for name in sorted(files):
        file = files[name]
        digest.update(name.encode())  # of a single file the name holds the hash of what was executed
        if file is not None and not name.startswith(FILE_MODULE):
            digest.update(_parsed(file.read_bytes())[1])
    return digest


def _code_of(cls: type) -> bytes:
    """What can be hashed of a class that has no file: its source, else its compiled methods."""
    try:
        return inspect.getsource(cls).encode()
    except (OSError, TypeError):
        codes = [v.__code__ for v in vars(cls).values() if inspect.isfunction(v)]
        return repr(
            [(c.co_name, c.co_code, [k for k in c.co_consts if not inspect.iscode(k)], c.co_names) for c in codes]
        ).encode()


def _collect(name: str, found: dict[str, Path | None], importer: tuple[str, Path] | None = None) -> None:
    """Add a module and, from there on, what it imports."""
    if name in found or name.split(".")[0] in _LIBRARIES or name == _PACKAGE:
        return
    if importer is not None and importer[0].startswith(f"{_PACKAGE}.") and not name.startswith(f"{_PACKAGE}."):
        return  # what lies in freqrobust is imported as a part of it
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
    if name.startswith(f"{_PACKAGE}."):
        return _own_file(name)
    module = sys.modules.get(name)
    try:
        origin = getattr(module, "__file__", None) if module is not None else _origin(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(origin).resolve() if origin and origin.endswith(".py") and Path(origin).is_file() else None


@lru_cache(maxsize=4096)
def _own_file(name: str) -> Path | None:
    """The source file of a module of freqrobust, without importing anything."""
    path = _ROOT.joinpath(*name.split(".")[1:])
    return next((file.resolve() for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _origin(name: str) -> str | None:
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return None  # asking for it would import the parent
    spec = importlib.util.find_spec(name)
    return spec.origin if spec is not None else None


def _near(name: str, file: Path, importer: str, importer_file: Path) -> bool:
    top = name.split(".")[0]
    if top in (importer.split(".")[0], _PACKAGE):
        return True
    folder = importer_file.parent
    return folder in file.parents and folder.name not in ("site-packages", "dist-packages")


def _imported(file: Path, package: str) -> list[str]:
    """Full names of the modules that a source file imports, also inside of functions."""
    names: list[str] = []
    for level, module, imported in _parsed(file.read_bytes())[0]:
        parts = package.split(".")
        start = ".".join(parts[: len(parts) - level + 1]) if level else ""
        base = ".".join(part for part in (start, module) if part)
        names += [base, *(f"{base}.{name}" for name in imported)]
    return names


@lru_cache(maxsize=1024)
def _parsed(content: bytes) -> _Parsed:
    """The import statements of a file, and a digest of its code."""
    name = hashlib.sha256(content).hexdigest()
    if name not in _known:
        _known[name] = _parse(content)
    return _known[name]


@contextmanager
def remembering(folder: Path, only_read: bool = False) -> Iterator[None]:
    """Inside, files that were parsed by an earlier process with this folder are not parsed again.

    What is known of a file is found by the hash of its content.

    Args:
        folder: where that is kept.
        only_read: write nothing.
    """
    code = Path(__file__).read_bytes()
    path = folder / f"{hashlib.sha256(code + sys.version.encode()).hexdigest()[:32]}.json"
    try:
        for name, (imports, digest) in json.loads(path.read_text(encoding="utf-8")).items():
            _known[name] = [(level, module, tuple(names)) for level, module, names in imports], bytes.fromhex(digest)
    except (OSError, ValueError, TypeError, AttributeError):  # not there, or not what was written
        pass
    before = len(_known)
    try:
        yield
    finally:
        if len(_known) > before and not only_read:
            found = {name: [imports, digest.hex()] for name, (imports, digest) in _known.items()}
            with suppress(FreqRobustError):  # a full disk: they are parsed again
                write_atomically(path, json.dumps(found))


def _parse(content: bytes) -> _Parsed:
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return [], hashlib.sha256(content).digest()
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    for node in _running(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return imports, hashlib.sha256(_code(content, tree)).digest()


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for other in child.orelse:
                yield other
                yield from _running(other)
            continue
        yield child
        yield from _running(child)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _code(content: bytes, tree: ast.Module) -> bytes:
    """The lines of a file that are code: no docstrings, no lines of comments, nothing that only a type checker sees."""
    dropped: set[int] = set()
    text: set[int] = set()  # lines inside of strings, where a leading # is no comment
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and _is_type_checking(node.test) and not node.orelse:
            dropped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
                dropped.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text.update(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
    lines = content.splitlines()
    kept = [
        line
        for number, line in enumerate(lines, start=1)
        if number not in dropped and line.strip() and (number in text or not line.lstrip().startswith(b"#"))
    ]
    return b"\n".join(kept)
