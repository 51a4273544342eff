"""A report in Python and in notebooks: one line, a few lines, and a table."""

from __future__ import annotations

from freqrobust.core.percent import interval, percent
from freqrobust.core.text import one_line
from freqrobust.results.analysis_text import on_data
from freqrobust.results.certificates import Counted
from freqrobust.results.fragments import box, escaped, marked, quiet, table
from freqrobust.results.report import Report
from freqrobust.results.summary import Measure, entry_labels, headline, model_labels, statements, warning_lines

#: From so many samples on, an interval is narrow enough for another digit.
_FINE = 2000


def line(report: Report) -> str:
    """``<Report: resnet20 on cifar10, 100 samples, 12 cells, clean 92.0 %, worst case Linf 8/255 4.0 %>``."""
    count = len(report.cells)
    failed = sum(cell.status == "failed" for cell in report.cells)
    parts = [_about(report), f"{count} cell{'s' if count != 1 else ''}"]
    parts += [f"{failed} failed"] if failed else []
    measures = headline(report)
    for measure in (measures[0], _last_worst_case(measures)):
        record = next(iter(measure.found.values()), None) if measure is not None else None
        if measure is not None and record is not None:
            parts.append(f"{one_line(measure.label)} {_share(record)}")
    return f"<Report: {', '.join(parts)}>"


def text(report: Report) -> str:
    """The headline, one accuracy per line, the verdicts and the warnings."""
    lines = [_about(report)]
    for entry, name in entry_labels(report).items():
        lines.append(one_line(name))
        for measure in headline(report):
            record = measure.found.get(entry)
            if record is not None:
                lines.append(f"  {one_line(measure.label)}: {_share(record)} {_interval(record)}".rstrip())
    said = [*(statement.text for statement in statements(report)), *warning_lines(report)]
    return "\n".join([*lines, *map(one_line, said)])


def fragment(report: Report) -> str:
    """The headline as a table, and the verdicts and warnings below it."""
    measures = headline(report)
    first = "model and defense" if len(report.models) > 1 else "defense"
    rows = [
        [f"<code>{escaped(name)}</code>", *(_number(measure.found.get(entry)) for measure in measures)]
        for entry, name in entry_labels(report).items()
    ]
    verdicts = [marked(statement.level, statement.text) for statement in statements(report)]
    warnings = [marked("inconclusive", one) for one in warning_lines(report)]
    head = [first, *(escaped(measure.label) for measure in measures)]
    note = quiet("Accuracy in percent with its 95 % interval.")
    return box(_about(report), table(head, rows), note, *verdicts, *warnings)


def _about(report: Report) -> str:
    names = model_labels(report)
    shown = ", ".join(map(one_line, names)) if len(names) < 4 else f"{len(names)} models"
    return f"{shown}{on_data(report.data)}"


def _last_worst_case(measures: list[Measure]) -> Measure | None:
    """The worst case at the largest eps of the first norm."""
    worst = [(one.threat.norm, one) for one in measures if one.threat is not None and one.certificate is None]
    return [one for norm, one in worst if norm == worst[0][0]][-1] if worst else None


def _share(record: Counted) -> str:
    return "failed" if record.accuracy is None else f"{percent(record.accuracy)} %"


def _interval(record: Counted) -> str:
    return "" if record.ci95 is None else interval(record.ci95, 1 if record.n >= _FINE else 0)


def _number(record: Counted | None) -> str:
    if record is None:
        return "-"
    if record.accuracy is None:
        return "failed"
    return f"<b>{percent(record.accuracy)}</b> {quiet(_interval(record))}"
