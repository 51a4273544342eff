"""Many reports as a folder of pages: a leaderboard for each dataset, and the page of every report."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple

from freqrobust.core.errors import JournalError, SpecError
from freqrobust.core.files import check_writable, exclusive, reason, user_path, write_atomically
from freqrobust.core.text import one_line
from freqrobust.reports.html import HTML, Grid, drawn, ranked_grid
from freqrobust.results.accuracy_curves import Named
from freqrobust.results.reporter import Publisher

if TYPE_CHECKING:
    from freqrobust.results.leaderboard import Board
    from freqrobust.results.report import Report

#: The list of a site's files with their hashes: what makes a directory one that may be written to.
MANIFEST = "freqrobust-site.json"
INDEX, PAGES = "index.html", "reports"
_HASH = re.compile(r"[0-9a-f]{64}")
_PAGE = re.compile(rf"{PAGES}/[a-z0-9][a-z0-9_-]*\.html")


class Table(NamedTuple):
    """Entries ranked under one threat: a heading, numbers, the pages of the entries, and what to know about the ranks."""

    title: str
    grid: Grid
    links: list[str]
    notes: list[str]


class Part(NamedTuple):
    """Reports of the same samples, which can be compared."""

    id: str
    title: str
    about: str
    tables: list[Table]
    charts: list[tuple[Any, str]]
    remarks: list[str]


class _ReportPage(HTML):
    """The page of one report, with a link to the leaderboard."""

    template: ClassVar[str] = "site_report.html"


class Site(HTML, Publisher):
    """A folder of pages for a web server or a disk: a leaderboard for each dataset, and a page per report; the target is a directory."""

    place: ClassVar[str] = "DIR"

    def render(self, report: Report, target: IO[str]) -> None:
        self.render_many({"report": report}, target)

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        parts = list(self._parts(reports, page_names(reports)))
        counted = _many(len(reports), "report")
        about = [f"{counted} on {_many(len(parts), 'dataset')}" if len(parts) > 1 else counted]
        target.write(
            self._page(
                "site.html", heading=self.title or "Robustness leaderboard", about=about, parts=parts, board=None
            )
        )

    def check_target(self, target: str) -> None:
        folder = user_path(target, "the directory of the site")
        _known(folder)
        check_writable(folder / INDEX)

    def publish(self, reports: Mapping[str, Report], target: str) -> str:
        folder = user_path(target, "the directory of the site")
        index = io.StringIO()
        self.render_many(reports, index)
        contents = {INDEX: index.getvalue()}
        for name, page in page_names(reports).items():
            text = io.StringIO()
            _ReportPage(theme=self.theme, title=None, rank_by=None).render(reports[name], text)
            contents[page] = text.getvalue()
        written = write_site(folder, contents)
        return f"{folder / INDEX} ({_many(len(reports), 'report')}, {_many(written, 'file')} written)"

    def _parts(self, reports: Mapping[str, Report], pages: Mapping[str, str]) -> Iterator[Part]:
        """Reports of the same samples and criterion together: largest groups first, then by the name of the dataset."""
        groups: dict[tuple[Any, ...], dict[str, Report]] = {}
        for name, report in sorted(reports.items()):
            data = report.data
            key = (data.sha256, data.n, str(data.ids), str(data.class_subset), report.criterion)
            groups.setdefault(key, {})[name] = report
        ordered = sorted(groups.values(), key=lambda found: (-len(found), *_title(found)))
        for number, group in enumerate(ordered, 1):
            tables, named, remarks = self._tables(group, pages)
            yield Part(f"data-{number}", _title(group)[0], _title(group)[1], tables, drawn(named), remarks)

    def _tables(
        self, group: Mapping[str, Report], pages: Mapping[str, str]
    ) -> tuple[list[Table], list[Named], list[str]]:
        """One table for each threat, first for the one that a leaderboard ranks by."""
        from freqrobust.results.leaderboard import board

        try:
            first = board(group, self.rank_by)
        except SpecError:  # this dataset has nothing to rank by of that name
            first = board(group)
        others = [label for label in first.labels if label.startswith("worst case ") and label != first.by]
        tables = [_table(first, group, pages)]
        tables += [_table(board(group, label.lower().removeprefix("worst case ")), group, pages) for label in others]
        named = [Named(one.name, group[one.report], one.entry) for one in first.standings]
        return tables, named, first.remarks


def _table(made: Board, group: Mapping[str, Report], pages: Mapping[str, str]) -> Table:
    """Entries with a number under the threat; beside it clean, LFC and what is certified under the same threat."""
    threat = made.by.removeprefix("worst case ")
    labels = [
        label
        for label in made.labels
        if label == made.by or not label.startswith(("worst case ", "certified ")) or f"certified {threat} (" in label
    ]
    made.standings = [one for one in made.standings if one.ranks is not None]
    made.labels = labels
    notes = [note for note in made.notes if ": not ranked, as it has no " not in note]
    return Table(made.by, ranked_grid(made, group), [pages[one.report] for one in made.standings], notes)


def _title(group: Mapping[str, Report]) -> tuple[str, str]:
    """The name of a dataset without the folder that it is in, and the conditions."""
    report = next(iter(group.values()))
    data = report.data
    name = PurePath(data.spec).name or data.spec
    shape = "x".join(map(str, data.shape))
    subset = "" if data.ids == "all" else "a subset, "
    criterion = f", criterion {report.criterion}" if report.criterion != "misclassification" else ""
    about = f"{_many(data.n, 'image')} {shape}, {subset}{data.classes} classes, split {data.split}{criterion}"
    return one_line(name), one_line(about)


def page_names(reports: Mapping[str, Report]) -> dict[str, str]:
    """The file of each report, by its name; equal ones are numbered."""
    found: dict[str, str] = {}
    for name in sorted(reports):
        stem = re.sub(r"[^a-z0-9_-]+", "-", name.lower())[:80].strip("-_") or "report"
        number, page = 1, f"{PAGES}/{stem}.html"
        while page in found.values():
            number += 1
            page = f"{PAGES}/{stem}-{number}.html"
        found[name] = page
    return found


def _known(folder: Path) -> dict[str, set[str]]:
    """The files of a site that is already there, with their hashes: two while a site is updated.

    Raises:
        JournalError: the directory contains something else.
    """
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return {}
        if not folder.is_dir():
            raise JournalError(f"cannot write {folder}: it is not a directory")
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        if not all(_is_ours(name) and all(map(_HASH.fullmatch, digests)) for name, digests in files.items()):
            raise ValueError("unknown files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = "" if isinstance(error, FileNotFoundError) else f" ({MANIFEST}: {reason(error)})"
        raise JournalError(
            f"cannot write {folder}: it contains files, and was not written by freqrobust leaderboard{why}; "
            "name an empty or a new directory"
        ) from error
    return {name: set(digests) for name, digests in files.items()}


def _is_ours(name: str) -> bool:
    """Whether a file can be one of a site; no other file is ever replaced or removed."""
    return name == INDEX or _PAGE.fullmatch(name) is not None


def write_site(folder: Path, contents: Mapping[str, str]) -> int:
    """Write the files of a site that changed, and remove those of reports that are no longer there.

    The list of files is written first with what is there and what will be there, then the pages, then the index, so that a process that
    is killed leaves a directory that the next one can update. A file that somebody else changed is not replaced.

    Args:
        folder: of the site; made where it does not exist.
        contents: the files by their names in the folder.

    Returns:
        The number of files written.

    Raises:
        JournalError: the directory contains something else, or cannot be written, or another process writes to it.
    """
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}
    known = _known(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"cannot write {folder}: {reason(error)}") from error
    with exclusive(folder) as free:
        if not free:
            raise JournalError(f"cannot write {folder}: another process writes to it")
        there = {name: _digest(folder / name) for name in {*known, *digests}}
        foreign = [n for n, now in sorted(there.items()) if now not in (None, digests.get(n), *known.get(n, ()))]
        if foreign:
            raise JournalError(
                f"cannot write {folder}: {foreign[0]} was changed by somebody else; move it away, or name another directory"
            )
        both = {name: {digests[name]} if name in digests else set() for name in {*known, *digests}}
        _write_manifest(folder, {name: found | known.get(name, set()) for name, found in both.items()})
        changed = [
            name for name in sorted(digests, key=lambda name: (name == INDEX, name)) if there[name] != digests[name]
        ]
        for name in changed:
            write_atomically(folder / name, contents[name])
        for name in sorted(known.keys() - digests.keys()):
            (folder / name).unlink(missing_ok=True)
        _write_manifest(folder, {name: {digest} for name, digest in digests.items()})
    return len(changed)


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"cannot read {path}: {reason(error)}") from error


def _write_manifest(folder: Path, files: Mapping[str, set[str]]) -> None:
    text = json.dumps({"files": {name: sorted(files[name]) for name in sorted(files)}}, indent=2) + "\n"
    path = folder / MANIFEST
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
