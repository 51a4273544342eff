"""The commands ``runs`` and ``cache``: list what is on disk, show its size, delete old or large parts of it."""

from __future__ import annotations

import json as json_module
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from freqrobust.cli import completion
from freqrobust.core.errors import SpecError
from freqrobust.core.files import cache_root, check_writable, user_path, write_atomically
from freqrobust.core.stored_files import (
    Stored,
    age_text,
    delete,
    entries_of,
    is_plain_file,
    is_plain_folder,
    parse_duration,
    parse_size,
    size_text,
    split_files,
)
from freqrobust.core.text import excerpt, near_miss, one_line, print_error

#: What the commands do, and the form of standard output as a file.
ACTIONS, STDOUT = ("list", "size", "prune"), "-"
#: Files that freqrobust keeps in its cache, by folder: what they are, and their names.
KEPT = {
    "models": ("trained model", r"(?:demo|madry)-[0-9a-f]{32}\.pt"),
    "experiments": ("experiment", r"[0-9a-f]{32}\.pt"),
    "trials": ("trial of normalisations", r"[0-9a-f]{32}\.json"),
    "sources": ("hashes of source files", r"[0-9a-f]{32}\.json"),
    "manifests": ("folder of images", r"[0-9a-f]{32}\.json"),
}
#: The folders of decoded images in the directory that ``--data-cache`` names, and the files in each.
DECODED, PIXELS = re.compile(r"[0-9a-f]{32}"), (r"pixels\.bin", r"entries\.bin", r"about\.json")
#: Folders of the cache into which other libraries download; they are shown, and never deleted.
DOWNLOADS = {"data": "downloaded dataset", "robustbench": "downloaded weights"}
NOT_ALL, NOTHING_TO_DO = 3, 0
#: Columns of a line of the list.
WIDTH = 80

Action = Annotated[
    str,
    typer.Argument(
        help="list (the default), size or prune.", metavar="[ACTION]", autocompletion=completion.choices(ACTIONS)
    ),
]
OlderThan = Annotated[
    str | None, typer.Option(help="prune: only what is older, such as 12h, 30d or 2w.", metavar="DURATION")
]
LargerThan = Annotated[
    str | None, typer.Option(help="prune: only what is larger, such as 500k, 100M or 1.5G.", metavar="SIZE")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", metavar="", help="prune: show what would be deleted, and delete nothing.")
]
Yes = Annotated[bool, typer.Option("--yes", metavar="", help="prune: do not ask. Needed where there is no terminal.")]
Json = Annotated[
    str | None, typer.Option(help="Write the list as JSON to this file; - is standard output.", metavar="FILE")
]
Debug = Annotated[bool, typer.Option("--debug", metavar="", help="Print the traceback of errors.")]


def runs(
    action: Action = "list",
    folder: Annotated[
        str, typer.Option("--dir", help="The directory of the runs.", metavar="DIR", rich_help_panel=None)
    ] = "runs",
    older_than: OlderThan = None,
    larger_than: LargerThan = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = None,
    debug: Debug = False,
) -> int:
    """The runs in a directory; the exit code."""
    from freqrobust.results.stored_runs import stored_runs

    _check(action, older_than, larger_than, dry_run, yes, json)
    path = user_path(folder, "--dir")
    if not path.is_dir():
        raise SpecError(
            f"there is no directory {one_line(folder)}; 'freqrobust eval' makes runs/, and --dir names another"
        )
    found = stored_runs(path)
    return _act(action, found, path, "run", older_than, larger_than, dry_run, yes, json)


def cache(
    action: Action = "list",
    folder: Annotated[
        str | None,
        typer.Option("--dir", help="Another directory: one that was given as --data-cache.", metavar="DIR"),
    ] = None,
    older_than: OlderThan = None,
    larger_than: LargerThan = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = None,
    debug: Debug = False,
) -> int:
    """What the cache directory contains; the exit code."""
    _check(action, older_than, larger_than, dry_run, yes, json)
    root = cache_root() if folder is None else user_path(folder, "--dir")
    if folder is not None and not root.is_dir():
        raise SpecError(f"--dir: there is no directory {one_line(folder)}")
    return _act(action, stored_in_cache(root), root, "file", older_than, larger_than, dry_run, yes, json)


def stored_in_cache(root: Path) -> list[Stored]:
    """The files that freqrobust keeps in its cache, oldest first, and the downloads of other libraries."""
    found = []
    for name, (what, pattern) in KEPT.items():
        if is_plain_folder(root / name):
            paths = [p for p in entries_of(root / name) if is_plain_file(p) and re.fullmatch(pattern, p.name)]
            found += [Stored(path, what, (path,)) for path in paths]
    for path in entries_of(root):
        if is_plain_folder(path) and DECODED.fullmatch(path.name):
            known, others = split_files(path, PIXELS)
            if known:
                found.append(Stored(path, "decoded images", known, _about(path), others))
    found.sort(key=lambda entry: entry.modified)
    for name, what in DOWNLOADS.items():
        for path in entries_of(root / name) if is_plain_folder(root / name) else []:
            files, _ = (
                split_files(path, [".*"]) if is_plain_folder(path) else ((path,) if is_plain_file(path) else (), ())
            )
            if files:
                found.append(Stored(path, what, files))
    return found


def _about(folder: Path) -> dict[str, str]:
    """What is known of a folder of decoded images."""
    try:
        about = json_module.loads((folder / "about.json").read_text(encoding="utf-8"))
        return {"data": one_line(str(about["spec"])), "images": one_line("x".join(map(str, about["shape"])))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _check(
    action: str, older_than: str | None, larger_than: str | None, dry_run: bool, yes: bool, json: str | None
) -> None:
    """Refuse an unknown action, and options of ``prune`` with another one.

    Raises:
        SpecError: one line that says what would work.
    """
    if action not in ACTIONS:
        raise SpecError(f"unknown action {excerpt(repr(action))}{near_miss(action, ACTIONS)} ({', '.join(ACTIONS)})")
    given = {"--older-than": older_than, "--larger-than": larger_than, "--dry-run": dry_run, "--yes": yes}
    for flag, value in given.items():
        if value and action != "prune":
            raise SpecError(f"{flag} needs the action prune, but the action is {action}")
    if json is not None and json != STDOUT:
        check_writable(json, "--json")


def _act(
    action: str,
    entries: list[Stored],
    folder: Path,
    word: str,
    older_than: str | None,
    larger_than: str | None,
    dry_run: bool,
    yes: bool,
    json: str | None,
) -> int:
    """List, sum up or prune; the exit code."""
    if action == "prune":
        entries = [entry for entry in entries if entry.what not in DOWNLOADS.values()]
        age = parse_duration(older_than, "--older-than") if older_than is not None else 0.0
        size = parse_size(larger_than, "--larger-than") if larger_than is not None else -1.0
        entries = [entry for entry in entries if entry.age() >= age and entry.size > size]
    _write_json(entries, json)
    if json != STDOUT:
        if action != "size":
            _print(entries)
        _print_total(entries, folder, word)
    return _prune(entries, word, dry_run, yes) if action == "prune" else 0


def _write_json(entries: Sequence[Stored], target: str | None) -> None:
    if target is None:
        return
    rows = [
        {
            "path": str(entry.path),
            "what": entry.what,
            "bytes": entry.size,
            "age_seconds": round(entry.age()),
            **{key.replace(" ", "_"): value for key, value in entry.facts.items()},
            "other_files": list(entry.others),
        }
        for entry in entries
    ]
    text = json_module.dumps(rows, indent=1) + "\n"
    if target == STDOUT:
        sys.stdout.write(text)
    else:
        write_atomically(target, text)


def _print(entries: Sequence[Stored]) -> None:
    """Two lines for each entry: name, kind, status, size and age; below, what else is known of it."""
    if not entries:
        return
    with_status = any(entry.facts.get("status") for entry in entries)
    heads = ["name", "what", *(["status"] if with_status else []), "size", "age"]
    rows = []
    for e in entries:
        status = [e.facts.get("status", "")] if with_status else []
        rows.append([one_line(e.path.name), e.what, *status, size_text(e.size), age_text(e.age())])
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for head, row in zip([None, *entries], [heads, *rows], strict=True):
        cells = [
            t.rjust(w) if n >= len(row) - 2 else t.ljust(w) for n, (t, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        facts = head.facts.items() if head is not None else ()
        below = "; ".join(f"{key} {value}" for key, value in facts if key != "status" and value)
        if below:
            print(textwrap.fill(below, WIDTH, initial_indent="  ", subsequent_indent="  "))


def _print_total(entries: Sequence[Stored], folder: Path, word: str) -> None:
    kinds: dict[str, list[Stored]] = {}
    for entry in entries:
        kinds.setdefault(entry.what.partition(" ")[0] if word == "run" else entry.what, []).append(entry)
    total = size_text(sum(entry.size for entry in entries))
    lines = [f"{name}: {len(several)}, {size_text(sum(e.size for e in several))}" for name, several in kinds.items()]
    for line in lines if len(lines) > 1 else []:
        print(one_line(line))
    print(one_line(f"{folder}: {_counted(len(entries), word)}, {total}"))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count or 'no'} {word}s"


def _prune(entries: Sequence[Stored], word: str, dry_run: bool, yes: bool) -> int:
    """Delete the entries, after asking; the exit code: 3 where not everything could be deleted.

    Raises:
        SpecError: nobody can be asked, and ``--yes`` is not given.
    """
    if not entries:
        return NOTHING_TO_DO
    total = f"{_counted(len(entries), word)}, {size_text(sum(entry.size for entry in entries))}"
    if dry_run:
        print_error(f"dry run: nothing was deleted ({total})")
        return NOTHING_TO_DO
    if not yes:
        if not sys.stdin.isatty():
            raise SpecError(
                "prune asks before it deletes, but there is no terminal; give --yes, or --dry-run to look first"
            )
        print(f"Delete {total}? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print_error("nothing was deleted")
            return NOTHING_TO_DO
    kept = [(entry, why) for entry in entries if (why := delete(entry)) is not None]
    for entry, why in kept:
        print_error(f"{entry.path}: {why}")
    print_error(f"deleted: {len(entries) - len(kept)} of {_counted(len(entries), word)}")
    return NOT_ALL if kept else 0
