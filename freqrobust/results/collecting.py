"""The reports of many runs, found in directories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.files import user_path
from freqrobust.results.rendering import name_reports
from freqrobust.results.report import Report

#: The file of a run.
REPORT = "report.json"


def collect_reports(
    paths: Sequence[str], out: str, say: Callable[[str], None] = lambda text: None
) -> dict[str, Report]:
    """The reports of files and directories, by short, distinct names, in the order of the names.

    Args:
        paths: JSON reports, directories of runs, or directories that contain such directories at any depth. The same
            report in several places is taken once.
        out: a directory that is not searched.
        say: is told which files of searched directories are left out, as they cannot be read.

    Raises:
        FreqRobustError: a file that is named cannot be read, or nothing is found.
    """
    excluded = user_path(out, "--out").resolve()
    files: dict[Path, Report] = {}
    contents = set()
    for text in paths:
        path = user_path(text, "the reports")
        searched = path.is_dir() and not (path / REPORT).is_file()
        for file in _found(path, excluded) if searched else [path / REPORT if path.is_dir() else path]:
            try:
                report = Report.from_json(file)
            except FreqRobustError as error:
                if not searched:
                    raise
                say(f"left out: {error}")
                continue
            content = report.dumps()
            if content not in contents:
                contents.add(content)
                files[file] = report
    if not files:
        raise SpecError(
            f"there is no report in {', '.join(paths)}: expected files {REPORT} as 'freqrobust eval' writes them into "
            "its run directory, or JSON reports"
        )
    return dict(sorted(name_reports(list(files), list(files.values())).items()))


def _found(folder: Path, excluded: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob(REPORT)):
        if excluded not in path.resolve().parents:
            yield path
