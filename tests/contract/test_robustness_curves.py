"""Robustness curves of real runs: the analysis and the reports of ``evaluate`` say the same, and what they should."""

from __future__ import annotations

import csv
import html
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import AnalysisRecord, ImageData, Report, analyze, evaluate
from freqrobust.cli.main import main
from freqrobust.core.errors import SpecError
from freqrobust.harness.analyze import put_into
from freqrobust.harness.report_builder import NO_BUDGET
from freqrobust.reports._robustness import _across, _line
from freqrobust.reports.curves import down
from freqrobust.results.analysis_record import ReportError
from freqrobust.results.cells import joined
from freqrobust.results.robustness_curve import BUDGETS, MeasuredCurve, RobustnessCurve, budgets, robustness_curves
from freqrobust.results.robustness_tables import UPPER_BOUND, Axis, estimate_text
from freqrobust.results.summary import Entry, oblivious_attacks
from freqrobust.results.view import footnotes, ranges

NEAREST = "support.nearest:Nearest"
REPORTS = ["table", "html", "markdown", "csv", "latex"]


@pytest.fixture(scope="module")
def data(digits: ImageData) -> ImageData:
    return digits.first(40)


@pytest.fixture(scope="module")
def evaluated(trained: nn.Module, data: ImageData) -> Report:
    """Two minimum-norm attacks of one norm, one of the other, and attacks with budgets of one of them."""
    attacks = [f"{NEAREST}:farthest=0.2", f"{NEAREST}:steps=3", f"{NEAREST}:norm=l2,farthest=3"]
    attacks += ["pgd:eps=[8/255,32/255],steps=3", "fgsm:eps=32/255"]
    return evaluate(trained, data, attacks=attacks, defenses=["smooth:rho=0.1"], device="cpu")


@pytest.fixture(scope="module")
def analyzed(trained: nn.Module, data: ImageData) -> AnalysisRecord:
    return analyze(trained, data, f"robustness-curve:attack=[{NEAREST}]", defenses=["smooth:rho=0.1"], device="cpu")


def test_a_curve_has_the_smallest_distance_of_all_attacks(evaluated: Report) -> None:
    found = robustness_curves(evaluated)
    assert list(found) == ["linf", "l2"]
    assert [one.entry.defense for one in found["linf"]] == ["undefended", "smooth:rho=0.1"]
    for norm, curves in found.items():
        for one in curves:
            cells = [
                cell
                for cell in evaluated.cells
                if cell.defense_spec == one.entry.defense and cell.distances is not None and cell.distances.norm == norm
            ]
            lists = [cell.distances.distances().tolist() for cell in cells]  # type: ignore[union-attr]
            expected = [min(values) for values in zip(*lists, strict=True)]
            assert one.curve.distances.tolist() == expected
            assert list(one.attacks) == list(dict.fromkeys(cell.attack_spec for cell in cells))
            assert len(lists) == 1 or all(values != expected for values in lists)
    assert len(found["linf"][0].attacks) == 2


def test_a_curve_begins_at_the_clean_accuracy_and_is_never_below_the_worst_case(evaluated: Report) -> None:
    for one in robustness_curves(evaluated)["linf"]:
        clean = evaluated.cell(f"{one.entry.defense}/clean")
        assert one.curve.clean.robust == clean.correct
        rows = [w for w in evaluated.worst_case if w.defense_spec == one.entry.defense]
        assert len(rows) == 2
        for row in rows:
            assert row.correct <= one.curve.at(row.threat.eps).robust
        names = sorted((point.name, round(255 * point.eps)) for point in one.points)
        assert names == [
            ("fgsm:eps=32/255", 32),
            ("pgd:eps=32/255,steps=3", 32),
            ("pgd:eps=8/255,steps=3", 8),
            ("worst case", 8),
            ("worst case", 32),
        ]


def test_values_of_different_norms_are_not_mixed(evaluated: Report) -> None:
    found = dict(re.findall(r"(median distance \(\w+\)) ([\d.]+) to [\d.]+", "; ".join(ranges(evaluated))))
    for norm, name in (("linf", "Linf"), ("l2", "L2")):
        records = [c.distances for c in evaluated.cells if c.distances is not None and c.distances.norm == norm]
        medians = [record.median for record in records if record.median is not None]
        assert float(found[f"median distance ({name})"]) == pytest.approx(min(medians), rel=1e-3)


def test_oblivious_accuracies_without_a_budget_are_not_compared(evaluated: Report) -> None:
    """Under an adaptive minimum-norm attack the accuracy is 0 whatever the defense."""
    cells = {(c.attack_spec, c.knowledge) for c in evaluated.cells if c.distances is not None}
    assert {knowledge for _, knowledge in cells} == {"adaptive", "oblivious"}
    compared = {pair.adaptive.attack for pair in oblivious_attacks(evaluated)}
    assert compared == {"pgd", "fgsm"}


def test_a_note_on_several_cells_is_written_once(evaluated: Report) -> None:
    found = [note for note in map(str, footnotes(evaluated)) if "has no budget" in note]
    specs = list(dict.fromkeys(c.attack_spec for c in evaluated.cells if c.distances is not None))
    assert len(specs) == 3
    assert found == [f"undefended, smooth:rho=0.1 / {', '.join(specs)}: {NO_BUDGET}"]


def test_a_drawn_curve_begins_at_the_left_end_of_its_axis() -> None:
    """On a logarithmic axis the steps before the axis have no place; one path vertex has the smallest x."""
    curve = MeasuredCurve(
        Entry("", "undefended"), ["fmn"], RobustnessCurve("l2", np.float32([0, 1e-9, 1e-8, 0.1, 0.2, 0.3, 0.4])), []
    )
    axis = Axis(0.01, 1.0, True)
    path = _line(0, "a", curve, axis, _across(axis)).path
    places = [tuple(map(float, vertex.split(","))) for vertex in path[1:].split("L")]
    assert [y for x, y in places if x == places[0][0]] == [down(4 / 7)]
    assert sorted({y for _, y in places}) == [down(k / 7) for k in (4, 3, 2, 1, 0)]


def test_budgets_are_those_of_the_attacks_or_the_usual_ones(evaluated: Report) -> None:
    found = robustness_curves(evaluated)
    assert budgets("linf", found["linf"]) == [8 / 255, 32 / 255]
    assert budgets("l2", found["l2"]) == list(BUDGETS["l2"])


def test_without_a_minimum_norm_attack_there_is_nothing(measured: Report, shown: Callable[..., str]) -> None:
    assert robustness_curves(measured) == {}
    for name in REPORTS:
        assert "obustness curve" not in shown(name, measured)
        assert UPPER_BOUND not in shown(name, measured)


def test_the_analysis_says_what_the_evaluation_says(
    trained: nn.Module, data: ImageData, analyzed: AnalysisRecord
) -> None:
    report = evaluate(trained, data, attacks=[NEAREST], defenses=["smooth:rho=0.1"], device="cpu")
    for result, curve in zip(analyzed.results, robustness_curves(report)["linf"], strict=True):
        assert result.defense_spec == curve.entry.defense
        distances = [np.inf if value is None else value for value in result.distances]  # type: ignore[attr-defined]
        assert distances == curve.curve.distances.tolist()
        median, cell = result.median, report.cell(f"{result.defense_spec}/{NEAREST.split(':')[1]}")  # type: ignore[attr-defined]
        assert median.value == cell.distances.median
        assert result.half_accuracy_eps.value == cell.distances.half_accuracy_eps  # type: ignore[attr-defined]
        clean = report.cell(f"{result.defense_spec}/clean")
        assert result.forwards == cell.forwards + clean.forwards
        assert result.backwards == cell.backwards


def test_its_numbers_by_hand(analyzed: AnalysisRecord) -> None:
    for result in analyzed.results:
        distances = [np.inf if value is None else value for value in result.distances]  # type: ignore[attr-defined]
        assert [one.eps for one in result.accuracies] == list(BUDGETS["linf"])  # type: ignore[attr-defined]
        for one in result.accuracies:  # type: ignore[attr-defined]
            assert one.robust == sum(distance > np.float32(one.eps) for distance in distances)
            assert one.accuracy == one.robust / 40
        area = sum(min(distance, 8 / 255) for distance in distances) / 40
        assert result.area.value == pytest.approx(area)  # type: ignore[attr-defined]
        assert result.band == pytest.approx(np.sqrt(np.log(40) / 80))  # type: ignore[attr-defined]
    summary, by_eps = analyzed.tables
    assert len(summary.rows) == len(by_eps.rows) == 2
    assert by_eps.columns == ["model", "0.5/255", "1/255", "2/255", "4/255", "8/255"]
    assert "Linf, in 255ths" in summary.title


def test_samples_that_no_example_is_found_for(trained: nn.Module, data: ImageData, tmp_path: Any) -> None:
    spec = f"robustness-curve:attack=[{NEAREST}:farthest=0.03],eps=[0.01,0.02],scale=log"
    record = analyze(trained, data, spec, device="cpu", picture="png")
    (result,) = record.results
    assert result.half_accuracy_eps.value is None  # type: ignore[attr-defined]
    assert result.distances.count(None) > 20  # type: ignore[attr-defined]
    assert "half-accuracy eps inf" in result.sentence
    assert "inf [" in record.tables[0].rows[0][3]
    assert record.picture is not None
    record.to_json(tmp_path / "record.json")
    again = AnalysisRecord.from_json(tmp_path / "record.json").results[0]
    assert again.distances == result.distances  # type: ignore[attr-defined]


@pytest.mark.parametrize(("attack", "norm"), [(NEAREST, "l2"), ("support.nearest:NearestL2", None)])
def test_the_norm_is_given_or_that_of_the_attack(attack: str, norm: str | None, network: nn.Module, data: Any) -> None:
    spec = f"robustness-curve:attack=[{attack}]" + (f",norm={norm}" if norm else "")
    (result,) = analyze(network, data.first(10), spec, device="cpu").results
    assert result.norm == "l2"  # type: ignore[attr-defined]
    assert [one.eps for one in result.accuracies] == list(BUDGETS["l2"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("eps=[8/255,4/255]", "parameter 'eps' should be in increasing order without repetitions, but got"),
        ("eps=[1/255,1/255]", "parameter 'eps' should be in increasing order without repetitions, but got"),
        ("eps=[-1/255]", "parameter 'eps' should be greater than or equal to 0"),
        ("eps=[0]", "parameter 'eps' should contain a budget above 0"),
        ("eps=[4,8]", "parameter 'eps' is 8, but pixels are in [0, 1]; did you mean 8/255?"),
        ("eps=[x]", "parameter 'eps' should be a valid number"),
        ("norm=l3", "parameter 'norm' should be 'linf', 'l2' or 'l1'"),
        ("norm=l1", "parameter 'norm' should be 'linf' or 'l2'"),
        ("scale=cubic", "parameter 'scale' should be 'auto', 'linear' or 'log'"),
        ("attack=pgd", "robustness-curve needs a minimum-norm attack, such as fmn, but pgd has a budget or none"),
        ("attack=lfc:radius=3", "robustness-curve needs a minimum-norm attack, such as fmn, but lfc"),
        (f"attack=[{NEAREST}:steps=[2,3]]", "is a sweep of 2; give one attack"),
        ("attack=fnm", "unknown attack 'fnm'"),
        ("attack=[support.nearest:NearestL2],norm=linf", "NearestL2 minimises L2, not Linf"),
        (f"attack=[{NEAREST}:norm=l2],norm=l2", "parameter 'norm' is given twice"),
    ],
)
def test_bad_input(parameters: str, message: str, network: nn.Module, data: ImageData) -> None:
    if "attack" not in parameters:
        parameters = f"attack=[{NEAREST}],{parameters}"
    with pytest.raises(SpecError, match=re.escape(message)) as raised:
        analyze(network, data, f"robustness-curve:{parameters}", device="cpu")
    assert "\n" not in str(raised.value)


def test_a_random_defense_is_refused_before_anything_is_measured(network: nn.Module, data: ImageData) -> None:
    calls: list[int] = []
    hook = network.register_forward_hook(lambda *_: calls.append(1))
    spec = f"robustness-curve:attack=[{NEAREST}]"
    message = (
        "Nearest needs a deterministic model, but gaussian-noise:sigma=0.1 is stochastic; "
        "use an attack with a budget, such as pgd:eps=8/255"
    )
    with pytest.raises(SpecError, match=re.escape(message)):
        analyze(network, data, spec, defenses=["gaussian-noise:sigma=0.1"], device="cpu")
    with pytest.raises(SpecError, match=re.escape(message)):
        analyze(network, data, f"spectrum:attacks=[{NEAREST}],shifts=[none]", defenses=["gaussian-noise:sigma=0.1"])
    assert not calls
    hook.remove()


def test_warnings_about_the_attack_are_in_the_record(data: ImageData) -> None:
    class Flat(nn.Module):
        """Correct or not, with gradients that are zero."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot((x.flatten(1).sum(dim=1) > 0).long(), 10).float() + 0 * x.sum()

    record = analyze(Flat(), data, f"robustness-curve:attack=[{NEAREST}]", device="cpu")
    (found,) = [one for one in record.warnings if one.code == "zero-gradients"]
    assert found.message.startswith("Flat: Nearest: 100% of the first gradients")
    assert found.defense == "undefended"


def text_of(name: str, shown: str) -> str:
    plain = re.sub(r"<[^>]*>", " ", shown) if name in ("html", "markdown") else shown
    return " ".join(html.unescape(plain).replace("{}", "").split())


@pytest.mark.parametrize(
    ("name", "together"),
    [("table", False), ("latex", False), ("html", False), ("html", True), ("markdown", False), ("markdown", True)],
)
def test_reports_show_the_curves(name: str, together: bool, evaluated: Report, shown: Callable[..., str]) -> None:
    options: dict[str, Any] = {"latex": {"interval": True}, "table": {"full": True}}.get(name, {})
    text = text_of(name, shown(name, {"a": evaluated, "b": evaluated} if together else evaluated, **options))
    for norm, curves in robustness_curves(evaluated).items():
        for one in curves:
            for estimate in (one.curve.median(), one.curve.half_accuracy_eps()):
                expected = estimate_text(norm, estimate)
                if name == "latex":
                    value, _, ends = expected.partition(" ")
                    expected = f"{value} {{\\scriptsize {{{ends}}}}}"
                assert expected in text
    assert ("upper bound" if name != "latex" else "Upper bounds, found by Nearest:") in text


def test_csv_has_a_row_for_each_eps(evaluated: Report, shown: Callable[..., str]) -> None:
    rows = list(csv.DictReader(io.StringIO(shown("csv", evaluated))))
    found = [row for row in rows if row["kind"] == "robustness curve"]
    curves = robustness_curves(evaluated)
    expected = [
        (one.entry.defense, norm, rate.eps, rate.robust, rate.accuracy)
        for norm, several in curves.items()
        for one in several
        for rate in map(one.curve.at, budgets(norm, several))
    ]
    assert [
        (row["defense"], row["norm"], float(row["eps"]), int(row["correct"]), float(row["accuracy"])) for row in found
    ] == expected
    assert {row["notes"] for row in found} == {
        "found by Nearest:farthest=0.2, Nearest:steps=3",
        "found by Nearest:norm=l2,farthest=3",
    }


def test_tables_fit_80_columns(evaluated: Report, shown: Callable[..., str]) -> None:
    for width in (80, 120):
        lines = shown("table", evaluated, width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert any(line.startswith("Robustness curves: distances (Linf, in 255ths)") for line in lines)


def charts_of(page: str) -> dict[str, str]:
    return {title: part for part in page.split("<figure")[1:] for title in re.findall(r"<figcaption>(.*?)<", part)}


def test_the_drawn_curve_is_the_curve(evaluated: Report, shown: Callable[..., str]) -> None:
    """The path, read back as numbers: a step down at every distance, as high as the robust accuracy."""
    from freqrobust.reports.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
    from freqrobust.results.robustness_tables import eps_axis

    charts = charts_of(shown("html", evaluated))
    assert {"Robustness curve, Linf", "Robustness curve, L2"} <= set(charts)
    for norm, title in (("linf", "Robustness curve, Linf"), ("l2", "Robustness curve, L2")):
        several = robustness_curves(evaluated)[norm]  # type: ignore[index]
        axis = eps_axis([one.curve for one in several], [point.eps for one in several for point in one.points])
        assert not axis.logarithmic
        paths = re.findall(r'<path class="stroke" d="(M[^"]+)"/>\n', charts[title])
        bands = re.findall(r'<path class="band" d="(M[^"]+)"/>', charts[title])
        assert len(paths) == len(bands) == 2
        for one, path in zip(several, paths, strict=True):
            for vertex, after in zip(path[1:].split("L")[::1], path[1:].split("L")[1:], strict=False):
                (x, y), (right, _) = (tuple(map(float, v.split(","))) for v in (vertex, after))
                if right - x < 0.05:  # the vertical part of a step
                    continue
                eps = ((x + right) / 2 - LEFT) / (WIDTH - LEFT - RIGHT) * axis.high
                share = 1 - (y - TOP) / (HEIGHT - TOP - BOTTOM)
                assert share == pytest.approx(one.curve.at(eps).accuracy, abs=1e-4)
    points = charts["Robustness curve, Linf"]
    assert points.count('class="mark"') == 4  # two worst cases of each defense
    assert points.count('class="mark open"') == 6
    assert 'class="mark' not in charts["Robustness curve, L2"]


def test_curves_that_differ_much_are_drawn_on_a_logarithmic_axis(evaluated: Report, shown: Callable[..., str]) -> None:
    report = evaluated.model_copy(deep=True)
    for cell in report.cells:
        if cell.distances is not None and cell.defense != "undefended":
            values = cell.distances.distances() * np.float32(0.01)
            cell.distances = type(cell.distances).of(cell.distances.norm, values)
    chart = charts_of(shown("html", Report.model_validate(report.model_dump())))["Robustness curve, Linf"]
    assert "eps (Linf, in 255ths, logarithmic)" in chart
    assert "nan" not in chart
    assert "inf" not in chart.replace("Linf", "")


def test_an_analysis_is_added_to_a_report(evaluated: Report, analyzed: AnalysisRecord, tmp_path: Any) -> None:
    evaluated.to_json(tmp_path / "run.json")
    assert put_into(analyzed, tmp_path / "run.json") == 1
    again = Report.from_json(tmp_path / "run.json")
    assert again.analyses[0].tables == analyzed.tables


def test_distances_that_contradict_the_report_are_refused(evaluated: Report, tmp_path: Any) -> None:
    for change, message in (("AAAA", "should be float32 numbers of 4 bytes"), ("AACAPw==", "1 distances, but n is 40")):
        text = evaluated.dumps()
        values = re.findall(r'"values": "([^"]+)"', text)
        (tmp_path / "run.json").write_text(text.replace(values[0], change, 1), encoding="utf-8")
        with pytest.raises(ReportError, match=message):
            Report.from_json(tmp_path / "run.json")


def test_parts_of_a_cell_are_one_curve(evaluated: Report) -> None:
    cell = next(cell for cell in evaluated.cells if cell.distances is not None)
    both = joined(cell, cell)
    assert both.distances is not None
    assert len(both.distances.distances()) == both.n == 80


def test_the_documented_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """The commands of docs/robustness-curve.md, with few samples and steps."""
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "robustness-curve.md").read_text(encoding="utf-8")
    blocks = [block.replace("\\\n", " ") for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    lines = [line for block in blocks for line in block.splitlines()]
    lines = [line for line in lines if "SHARED" not in line and line.startswith("freqrobust")]
    assert len(lines) == 3
    for line in lines:
        quick = re.sub(r"--attack fmn(:steps=50)?", "--attack fmn:steps=3", line).replace("--first 100", "--first 8")
        quick += "" if "--attack" in quick else " --attack fmn:steps=3"
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(quick)[1:])
        assert stop.value.code == 0, line
        assert "Robustness curves: distances (L" in capsys.readouterr().out
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")
    assert "Robustness curve, Linf" in Path("run.html").read_text(encoding="utf-8")
