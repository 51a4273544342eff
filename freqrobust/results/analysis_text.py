"""An analysis in Python and in notebooks: one line, a few lines, and its picture with its tables."""

from __future__ import annotations

from freqrobust.core.text import one_line
from freqrobust.results.analysis_record import AnalysisRecord
from freqrobust.results.fragments import box, escaped, marked, picture, table
from freqrobust.results.records import DataRecord

_KINDS = {"png": "image/png", "svg": "image/svg+xml"}
#: Width of a picture on the page, in pixels.
_WIDTH = 560


def line(record: AnalysisRecord) -> str:
    """``<AnalysisRecord: heatmap of resnet20 on cifar10, 100 samples>``."""
    return f"<AnalysisRecord: {_about(record)}>"


def text(record: AnalysisRecord) -> str:
    """What was analysed, and the sentence of each result."""
    return "\n".join([_about(record), *_sentences(record)])


def fragment(record: AnalysisRecord) -> str:
    """The picture, the sentences and the tables."""
    content = [marked("neutral", sentence) for sentence in _sentences(record)]
    if record.picture is not None:
        shown = record.picture
        content.append(picture(_KINDS[shown.format], shown.base64, shown.alt or record.spec, _WIDTH))
    for one in record.tables:
        rows = [[escaped(value) for value in row] for row in one.rows]
        inside = table([escaped(column) for column in one.columns], rows)
        content.append(f"<details><summary>{escaped(one.title)}</summary>{inside}</details>")
    return box(_about(record), *content)


def on_data(data: DataRecord | None) -> str:
    """``on cifar10, 100 samples``; nothing where no data was used."""
    return "" if data is None else f" on {one_line(data.spec)}, {data.n} sample{'s' if data.n != 1 else ''}"


def _about(record: AnalysisRecord) -> str:
    names = [one_line(model.name or model.spec) for model in record.models]
    shown = ", ".join(names) if len(names) < 4 else f"{len(names)} models"
    return f"{one_line(record.spec)} of {shown}{on_data(record.data)}"


def _sentences(record: AnalysisRecord) -> list[str]:
    return [
        one_line(f"{result.label or result.defense_spec}: {result.sentence}")
        for result in record.results
        if result.sentence
    ]
