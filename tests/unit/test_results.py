"""The report file: a round trip changes nothing, and a file that contradicts itself is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from freqrobust import Report, evaluate
from freqrobust.results.analysis_record import ReportError
from freqrobust.results.cells import WorstCase
from freqrobust.results.outcomes import pack, unpack
from support.networks import untrained

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"


@pytest.fixture(scope="module")
def report() -> Report:
    model = untrained(0)
    images, labels = torch.rand(30, 1, 8, 8), torch.randint(0, 4, (30,))
    return evaluate(
        model,
        (images, labels),
        attacks=["pgd:eps=[0.01,0.05],steps=2", "lfc:radius=2"],
        defenses=["smooth:rho=0.1+lowpass:radius=3"],
        device="cpu",
    )


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 500])
def test_pack_and_unpack(n) -> None:
    outcomes = np.random.default_rng(n).random(n) < 0.5
    text = pack(outcomes)
    assert np.array_equal(unpack(text, n), outcomes)
    # the published format: bit i % 8 of byte i // 8
    raw = base64.b64decode(text)
    assert len(raw) == -(-n // 8)
    assert [bool(raw[i // 8] >> (i % 8) & 1) for i in range(n)] == outcomes.tolist()


@pytest.mark.parametrize(
    ("text", "n"),
    [
        (pack(np.ones(9, dtype=bool)), 8),  # a byte too many
        (pack(np.ones(8, dtype=bool)), 9),  # a byte too few
        (pack(np.ones(8, dtype=bool)), 7),  # a bit beyond the end
        ("no base64!", 8),
    ],
)
def test_unpack_refuses_what_does_not_fit(text, n) -> None:
    with pytest.raises(ValueError, match=r"expected the outcomes|base64|padding"):
        unpack(text, n)


def test_round_trip_changes_nothing(report, tmp_path) -> None:
    path = tmp_path / "sub" / "report.json"
    report.to_json(path)
    again = Report.from_json(path)
    assert again == report
    assert again.dumps() == report.dumps() == path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_file_holds_the_derived_rates(report, tmp_path) -> None:
    values = json.loads(report.dumps())
    for cell in values["cells"]:
        right = unpack(cell["outcomes"], cell["n"])
        assert cell["correct"] == right.sum()
        assert cell["accuracy"] == right.mean()
        assert cell["ci95"][0] <= cell["accuracy"] <= cell["ci95"][1]
    assert {"accuracy", "ci95"} <= values["worst_case"][0].keys()


def flipped(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[0] ^= 1
    return base64.b64encode(raw).decode()


TAMPERED = {
    "outcomes": lambda row: row.update(outcomes=flipped(row["outcomes"])),
    "correct": lambda row: row.update(correct=row["correct"] + 1),
    "correct and accuracy": lambda row: row.update(correct=30, accuracy=1.0),
    "accuracy": lambda row: row.update(accuracy=row["accuracy"] / 2 + 0.4),
    "accuracy as text": lambda row: row.update(accuracy="all of them"),
    "interval": lambda row: row.update(ci95=[0.99, 1.0]),
    "n": lambda row: row.update(n=row["n"] + 8),
    "short outcomes": lambda row: row.update(outcomes=""),
    "unknown key": lambda row: row.update(acuracy=0.5),
    "not a number": lambda row: row.update(threat={"norm": "linf", "eps": float("nan")}),
}


@pytest.mark.parametrize("how", TAMPERED)
@pytest.mark.parametrize("part", ["cells", "worst_case"])
def test_a_file_that_contradicts_itself_is_refused(report, tmp_path, how, part) -> None:
    values = json.loads(report.dumps())
    TAMPERED[how](values[part][0])
    path = tmp_path / "report.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ReportError, match=r"report\.json"):
        Report.from_json(path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "schema version 2"),
        ("{}", "schema version 2, but got None"),
        ('{"schema_version": 3}', "schema version 2, but got 3; it was written by a newer freqrobust"),
        ('{"schema_version": 1}', "freqrobust_version"),
    ],
)
def test_what_is_not_a_report_is_refused(tmp_path, content, match) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ReportError, match=match):
        Report.from_json(path)


def test_a_run_directory_is_not_a_report_and_the_message_names_the_one_in_it(tmp_path) -> None:
    with pytest.raises(ReportError, match=r"is a directory; expected the JSON file of a report$"):
        Report.from_json(tmp_path)
    (tmp_path / "report.json").touch()
    with pytest.raises(ReportError, match=r"is a directory; .*; give .*report\.json$"):
        Report.from_json(tmp_path)


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(ReportError, match="No such file"):
        Report.from_json(tmp_path / "none.json")


def test_no_nan_ever() -> None:
    with pytest.raises(ValueError, match="finite"):
        WorstCase(
            defense="undefended",
            defense_spec="undefended",
            defense_params={},
            threat={"norm": "linf", "eps": float("inf")},
            n=1,
            correct=0,
            outcomes=pack(np.zeros(1)),
        )


def test_a_cell_is_found_by_name_or_spec(report) -> None:
    assert report.cell("clean").attack == "clean"
    assert report.cell("smooth+lowpass/lfc:radius=2").defense_spec == "smooth:rho=0.1+lowpass:radius=3"
    assert report.cell("lfc").attack_spec == "lfc:radius=2"
    with pytest.raises(KeyError, match="'pgd' names 2 cells, name one of them: undefended / pgd"):
        report.cell("pgd")
    with pytest.raises(KeyError, match="'fgsm' names no cell"):
        report.cell("fgsm")


def test_difference_is_paired_and_against_the_undefended_model(report) -> None:
    for cell in report.cells:
        if cell.defense == "undefended" or cell.knowledge == "oblivious":
            assert cell.difference is None
            continue
        reference = report.cell(cell.attack_spec)
        assert cell.difference.against == "undefended"
        assert cell.difference.points == pytest.approx((cell.correct - reference.correct) / cell.n)


def test_published_schema_is_that_of_the_code() -> None:
    expected = json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n"
    assert SCHEMA.is_file(), f"{SCHEMA.name} is missing from docs/"
    assert SCHEMA.read_text(encoding="utf-8") == expected, (
        f"the report has changed: write Report.model_json_schema(mode='serialization') to docs/{SCHEMA.name} again"
    )
