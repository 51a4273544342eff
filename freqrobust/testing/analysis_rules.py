"""The rules for analyses."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from freqrobust.harness.analysis import Analysis, analyses
from freqrobust.harness.analyze import analyze
from freqrobust.models.fingerprint import state_hash
from freqrobust.results.analysis_record import AnalysisRecord
from freqrobust.testing.rules import Contract, Setting, expect

ANALYSES: Contract[Analysis] = Contract(analyses, "docs/writing-an-analysis.md")
#: Beside the undefended model, so that results are shown side by side.
DEFENSE = "smooth:rho=0.5"
SAMPLES = 20


def look(analysis: Analysis, setting: Setting, *, images: bool = True, **options: Any) -> AnalysisRecord:
    """The record of an analysis of the model, undefended and defended."""
    given: dict[str, Any] = {"defenses": [DEFENSE], "device": "cpu", "picture": "png", **options}
    return analyze(setting.model, setting.data.first(SAMPLES) if images else None, analysis, **given)


def first_look(analysis: Analysis, setting: Setting) -> AnalysisRecord:
    """The same, made once for a plugin and a setting; not to be changed."""
    key = f"analysis {type(analysis).__qualname__} {analysis!r}"
    if key not in setting.cached:
        setting.cached[key] = look(analysis, setting)
    record: AnalysisRecord = setting.cached[key]
    return record


def content(record: AnalysisRecord) -> tuple[Any, Any]:
    """All that is measured: results without their times, and tables."""
    found = json.loads(record.dumps())
    for result in found["results"]:
        del result["seconds"]
    return found["results"], found["tables"]


def close(a: Any, b: Any) -> bool:
    """Equal up to the last digits of floating-point numbers."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6)
    if isinstance(a, dict):
        return set(a) == set(b) and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(a == b)


def looks_at_models(analysis: Analysis) -> bool:
    return analysis.needs_model


@ANALYSES.rule(
    "each result has a sentence, tables are complete, and the record can be written and read", looks_at_models
)
def record(analysis: Analysis, setting: Setting) -> None:
    before = state_hash(setting.model)
    made = first_look(analysis, setting)
    expect(state_hash(setting.model) == before, "run() changes parameters or buffers of the model")
    expect(
        [result.defense for result in made.results] == ["undefended", DEFENSE.partition(":")[0]],
        f"there should be a result for the undefended and one for the defended model, but there are {len(made.results)}",
    )
    for result in made.results:
        expect(result.sentence, "a result has no sentence; give sentence=... to the result, which is what is printed")
    expect(made.tables or made.picture is not None, "neither tables() nor draw() shows anything")
    for table in made.tables:
        for row in table.rows:
            expect(
                len(row) == len(table.columns),
                f"every row of the table {table.title!r} should have {len(table.columns)} values, but one has {len(row)}",
            )
    numbers = made.model_copy(update={"picture": None}).dumps()
    expect("NaN" not in numbers and "Infinity" not in numbers, "a result has values that are not finite; use None")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        made.to_json(path)
        text = path.read_text(encoding="utf-8")
        expect(AnalysisRecord.from_json(path).dumps() == text, "the JSON record that is read should be the one written")


@ANALYSES.rule("the same again, with any batch size, up to rounding", looks_at_models)
def repeatable(analysis: Analysis, setting: Setting) -> None:
    first, second = first_look(analysis, setting), look(analysis, setting)
    expect(content(first) == content(second), "two runs with the same seed should have the same results, but differ")
    expect(first.picture == second.picture, "two runs with the same seed should draw the same picture, but differ")
    results, _ = content(look(analysis, setting, batch_size=7, picture=None))
    expected, _ = content(first)
    for a, b in zip(results, expected, strict=True):
        different = [key for key in b if key != "sentence" and not close(a.get(key), b[key])]
        expect(
            not different,
            f"with batches of 7 the values of {', '.join(different)} should be those of one batch, but differ; go through "
            "the passes of the context, and sum over samples",
        )


@ANALYSES.rule("with needs_data = False, it runs without images", lambda a: looks_at_models(a) and not a.needs_data)
def no_images(analysis: Analysis, setting: Setting) -> None:
    before = state_hash(setting.model)
    made = look(analysis, setting, images=False)
    expect(state_hash(setting.model) == before, "run() changes parameters or buffers of the model")
    expect(made.data is None, "without images the record should name no data")
