"""Reports written where the user says: ``--report html=out.html``, ``--report tensorboard=DIR``, ``freqrobust report``."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from freqrobust.core.errors import FreqRobustError, JournalError, PluginError, SpecError
from freqrobust.core.files import check_writable, user_path, write_atomically
from freqrobust.core.user_code import running_user_code
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.report import Report
from freqrobust.results.reporter import Publisher, Reporter, reports
from freqrobust.results.summary import distinct

#: The target that stands for standard output.
STDOUT = "-"
#: What a gate alone is shown by in a terminal.
GATE_ON_SCREEN = f"table:show=gate={STDOUT}"
#: The form of a file, by its ending.
FORMS = {
    "html": "html",
    "htm": "html",
    "md": "markdown",
    "markdown": "markdown",
    "csv": "csv",
    "tex": "latex",
    "xml": "junit",
    "json": "json",
    "txt": "table",
}
_VALUE = r"(?:\[[^\]]*\]|[^,=\[\]]+)"
_PARAMS = rf":[A-Za-z_]\w*={_VALUE}(?:,[A-Za-z_]\w*={_VALUE})*"
#: A registered name with parameters; a file or a module with its class, and parameters.
_NAMED = re.compile(rf"(?P<spec>[^:=]+(?:{_PARAMS})?)=(?P<target>.+)", re.DOTALL)
_FOUND = re.compile(rf"(?P<spec>[^=]+?:[A-Za-z_]\w*(?:{_PARAMS})?)=(?P<target>.+)", re.DOTALL)


@dataclass(frozen=True)
class Output:
    """One report to write: the reporter, and a file, ``-``, or the place of a publisher."""

    plugin_spec: PluginSpec[Reporter]
    target: str

    @property
    def reporter(self) -> Reporter:
        return self.plugin_spec.plugin

    @property
    def publisher(self) -> Publisher | None:
        """The reporter, where its target is no file."""
        reporter = self.reporter
        return reporter if isinstance(reporter, Publisher) and self.target != STDOUT else None


def parse_outputs(texts: Iterable[str], flag: str) -> list[Output]:
    """Read ``SPEC=TARGET``, such as ``html=out.html`` or ``html:theme=dark=out.html``; or ``out.html`` alone.

    Raises:
        SpecError: no target, no such reporter or parameter; names ``flag``.
    """
    return [_parse(with_form(text, flag), flag) for text in texts]


def with_form(text: str, flag: str) -> str:
    """``out.html`` as ``html=out.html``, by the ending of the name; whatever else is given stays as it is.

    Raises:
        SpecError: a file whose ending says nothing.
    """
    ending = Path(text).suffix.removeprefix(".").lower()
    if "=" in text or text in reports.names() or not ending.isalnum():
        return text
    form = FORMS.get(ending, ending)
    if form not in reports.names():
        endings = ", ".join(f".{one}" for one in FORMS)
        raise SpecError(
            f"{flag} {text}: no form of report is written to files ending in .{ending} ({endings}); "
            f"name the form, for example html={text} (forms: {', '.join(reports.names())})"
        )
    return f"{form}={text}"


def _parse(text: str, flag: str) -> Output:
    head = re.split(r"[:=]", text, maxsplit=1)[0]
    match = (_NAMED if head in reports.names() else _FOUND).fullmatch(text) or _NAMED.fullmatch(text)
    if match is None:
        known = head if head in reports.names() else "html"
        place = _place(known)
        raise SpecError(
            f"{flag} should be FILE or REPORT={place or 'FILE'}, for example out.html or {known}={place or 'out'}, "
            f"but got {text!r} "
            f"(reports: {', '.join(reports.names())})"
        )
    plugin_specs = reports.parse(match["spec"])
    if len(plugin_specs) != 1:
        raise SpecError(f"{flag} {match['spec']} stands for {len(plugin_specs)} reports; give one parameter value each")
    return Output(plugin_specs[0], match["target"])


def page(report: Report, path: str | os.PathLike[str] | None = None, **options: object) -> str:
    """A report as one page of HTML, also written to ``path`` where one is given.

    Args:
        report: what is shown.
        path: a file; it is checked before anything is rendered.
        options: of the reporter.

    Raises:
        FreqRobustError: an option is wrong, a package is missing, or the file cannot be written.
    """
    given = {name: value for name, value in options.items() if value is not None}
    reporter = reports.get("html").build("html", given)
    output = Output(PluginSpec("html", reporter), os.fspath(path) if path is not None else STDOUT)
    check_outputs([output], "path")
    text = rendered(output, {"": report})
    if path is not None:
        write_atomically(path, text)
    return text


def _place(name: str) -> str:
    """What the target of a publisher is; empty for the others."""
    cls = reports.get(name)
    return cls.place if issubclass(cls, Publisher) else ""


def check_outputs(
    outputs: Sequence[Output], flag: str, taken: Iterable[str | Path] = (), several: bool = False
) -> None:
    """Raise early if a report could not be written at the end.

    Args:
        outputs: what is to be written.
        flag: the option, for the message.
        taken: files that a report must not replace.
        several: more than one report is to be shown together.

    Raises:
        FreqRobustError: a file cannot be written or is given twice, a library is missing, or a reporter
            shows only one report at a time.
    """
    used = {user_path(path, flag).resolve(): str(path) for path in taken}
    for output in outputs:
        for module, brought_by in output.reporter.requires.items():
            if find_spec(module) is None:
                raise SpecError(
                    f"the report {output.plugin_spec.name!r} needs {module}, which is not installed: "
                    f"pip install '{brought_by}'"
                )
        if several and not _shows_several(type(output.reporter)):
            able = ", ".join(name for name in reports.names() if _shows_several(reports.get(name)))
            raise SpecError(
                f"the report {output.plugin_spec.name!r} shows one report at a time; these show several: {able}"
            )
        if output.publisher is not None:
            if outputs.count(output) > 1:
                raise SpecError(f"{flag}: {output.plugin_spec.spec}={output.target} is given twice")
            with running_user_code(f"{flag} {output.plugin_spec.name}={output.target}", SpecError):
                output.publisher.check_target(output.target)
            continue
        path = Path() if output.target == STDOUT else user_path(output.target, flag).resolve()
        if path in used:
            where = "standard output" if output.target == STDOUT else output.target
            raise SpecError(f"{flag}: {where} is already taken, by another report or as input")
        used[path] = output.target
        if output.target != STDOUT:
            check_writable(output.target, flag)


def _shows_several(cls: type[Reporter]) -> bool:
    return cls.render_many is not Reporter.render_many


def write_outputs(outputs: Sequence[Output], found: Mapping[str, Report], all_or_none: bool = False) -> list[str]:
    """Write every report: files first, so that none is lost where a publisher fails.

    Args:
        outputs: what to write.
        found: the reports by their names; one is shown by itself, several together.
        all_or_none: write nothing where one fails; else the others are written before the failure is raised.

    Returns:
        The files written, and where else the reports are.

    Raises:
        FreqRobustError: the first failure.
    """
    texts: list[tuple[Output, str | None]] = []
    failures: list[FreqRobustError] = []
    for output in (one for one in outputs if one.publisher is None):
        try:
            texts.append((output, None if _is_terminal_table(output) else rendered(output, found)))
        except FreqRobustError as error:
            failures.append(error)
    written: list[str] = []
    for output, text in [] if failures and all_or_none else texts:
        try:
            if text is None:
                _render(output, found, sys.stdout)
            elif output.target == STDOUT:
                _print(text)
            else:
                write_atomically(output.target, text)
                written.append(output.target)
        except FreqRobustError as error:
            failures.append(error)
    for output in [] if failures and all_or_none else outputs:
        if output.publisher is not None:
            try:
                with running_user_code(f"the report {output.plugin_spec.name!r} failed"):
                    written.append(output.publisher.publish(found, output.target))
            except JournalError as error:
                failures.append(error)
            except FreqRobustError as error:
                wanted = f"{output.plugin_spec.spec}={output.target}"
                failures.append(
                    PluginError(f"{error}; the measured report is kept, try again: freqrobust report RUN --as {wanted}")
                )
    if failures:
        raise failures[0]
    return written


def _is_terminal_table(output: Output) -> bool:
    """The table looks at the terminal itself, for its width and its colours."""
    return output.target == STDOUT and output.plugin_spec.name == "table"


def rendered(output: Output, found: Mapping[str, Report]) -> str:
    """The text of one report.

    Raises:
        PluginError: the reporter failed.
    """
    target = io.StringIO()
    _render(output, found, target)
    return target.getvalue()


def _render(output: Output, found: Mapping[str, Report], target: IO[str]) -> None:
    with running_user_code(f"the report {output.plugin_spec.name!r} failed"):
        if len(found) == 1:
            output.reporter.render(next(iter(found.values())), target)
        else:
            output.reporter.render_many(found, target)


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:  # a terminal or a locale without the characters
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))


def _files(paths: Iterable[str]) -> list[Path]:
    """The files of reports; a folder stands for the ``report.json`` in it."""
    given = [user_path(path, "the report") for path in paths]
    return [path / "report.json" if path.is_dir() else path for path in given]


def read_reports(paths: Sequence[str]) -> dict[str, Report]:
    """Reports by short, distinct names; a folder stands for the ``report.json`` in it.

    Raises:
        ReportError: one cannot be read.
        SpecError: one is given twice.
    """
    files = _files(paths)
    for index, file in enumerate(files):
        if file.resolve() in [other.resolve() for other in files[:index]]:
            raise SpecError(f"{paths[index]} is given twice")
    return name_reports(files, [Report.from_json(file) for file in files])


def name_reports(files: Sequence[Path], found: Sequence[Report]) -> dict[str, Report]:
    """Reports by short, distinct names: of their folder for ``report.json``, else of the file."""
    short = [file.resolve().parent.name if file.name == "report.json" else file.stem for file in files]
    return dict(zip(distinct(short, [str(file) for file in files]), found, strict=True))
