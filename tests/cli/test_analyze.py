"""``freqrobust analyze``: tables, JSON, pictures, reports; and what cannot be done."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freqrobust.core.command_config import AnalyzeCommand
from freqrobust.core.commands import reserved_names
from freqrobust.harness.analysis import analyses
from freqrobust.results.report import Report

Rejected = Callable[..., str]


@pytest.fixture
def look(trained: Path, digits: Path) -> list[str]:
    """``analyze heatmap`` of a good model on good data."""
    return ["analyze", "heatmap", "--model", str(trained), "--data", str(digits), "--first", "10"]


def test_table_json_and_picture(look: list[str], command: Callable[..., Any]) -> None:
    result = command(*look, "--out", "map.png", "--json", "map.json", "--norm", "1")
    assert result.code == 0, result.err
    assert "Error in percent under one Fourier basis vector" in result.out
    assert "digits" in result.out
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
    text = Path("map.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert "NaN" not in text
    assert "Infinity" not in text
    assert found["name"] == "heatmap"
    assert found["params"] == {"norm": 1.0, "layer": None, "clip": False}
    assert found["data"]["n"] == 10
    (one,) = found["results"]
    assert (one["label"], one["defense"], one["directions"]) == ("digits", "undefended", 34)
    assert len(one["error"]) == 8
    assert all(len(row) == 8 for row in one["error"])


def test_svg_by_the_ending_and_always_the_same(look: list[str], command: Callable[..., Any]) -> None:
    for name in ("a.svg", "b.SVG"):
        assert command(*look, "--out", name, "--quiet").code == 0
    assert "<svg" in Path("a.svg").read_text(encoding="utf-8")
    assert Path("a.svg").read_bytes() == Path("b.SVG").read_bytes()


@pytest.mark.slow
def test_pdf_and_the_same_picture_in_the_report(look: list[str], command: Callable[..., Any]) -> None:
    for name in ("a.pdf", "b.pdf"):
        assert command(*look, "--out", name, "--quiet").code == 0
    assert Path("a.pdf").read_bytes().startswith(b"%PDF")
    assert Path("a.pdf").read_bytes() == Path("b.pdf").read_bytes()


def test_models_and_defenses_side_by_side(look: list[str], trained: Path, command: Callable[..., Any]) -> None:
    given = ["--model", trained, "--label", "one", "--label", "two", "--defense", "smooth:rho=1", "--json", "both.json"]
    result = command(*look, *given, "--out", "both.png")
    assert result.code == 0, result.err
    found = json.loads(Path("both.json").read_text(encoding="utf-8"))
    labels = [(one["model"], one["label"], one["defense_spec"]) for one in found["results"]]
    assert labels == [
        (0, "one", "undefended"),
        (0, "one + smooth:rho=1", "smooth:rho=1"),
        (1, "two", "undefended"),
        (1, "two + smooth:rho=1", "smooth:rho=1"),
    ]
    assert found["results"][0]["error"] == found["results"][2]["error"]
    assert len(found["models"]) == 2


def test_a_layer_by_its_name(look: list[str], command: Callable[..., Any]) -> None:
    result = command(*look, "--layer", "conv1", "--json", "map.json", "--defense", "lowpass:radius=2")
    assert result.code == 0, result.err
    plain, filtered = json.loads(Path("map.json").read_text(encoding="utf-8"))["results"]
    assert plain["change"][0][0] > 0.01
    assert filtered["change"][0][0] < 1e-5  # beyond the filter: the layer does not see the wave
    assert filtered["change"][4][4] > 0.01


def test_the_demo(command: Callable[..., Any]) -> None:
    result = command("analyze", "heatmap", "--first", "5")
    assert result.code == 0, result.err
    assert "demo" in result.out


@pytest.mark.slow
@pytest.mark.parametrize("picture", ["map.svg", None])
def test_into_a_report(picture: str | None, look: list[str], base: list[str], command: Callable[..., Any]) -> None:
    assert command(*base, "--first", "10", "--attack", "lfc:radius=2", "--json", "run.json").code == 0
    given = ["--into", "run.json", *(["--out", picture] if picture else [])]
    for norm, count in (("1", 1), ("1", 1), ("2", 2)):
        assert command(*look, *given, "--norm", norm).code == 0
        report = Report.from_json("run.json")
        assert len(report.analyses) == count
    found = report.analyses[-1]
    assert found.params["norm"] == 2.0
    assert found.tables
    assert found.picture is not None
    assert found.picture.format == ("svg" if picture else "png")
    start = base64.b64decode(found.picture.base64)[:8]
    assert start.startswith(b"<?xml" if picture else b"\x89PNG")
    assert found.results[0].error[4][4] >= 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--norm 0", "heatmap: parameter 'norm' should be greater than 0, but got '0'"),
        ("--norm -4", "heatmap: parameter 'norm' should be greater than 0"),
        ("--norm loud", "heatmap: parameter 'norm' should be a valid number"),
        ("--norm nan", "heatmap: parameter 'norm' should be a finite number"),
        ("--norm 1 --norm 2", "is a sweep of 2; run one at a time"),
        ("--layer conv3", "the model has no layer 'conv3'; did you mean 'conv"),
        ("--layer zzz", "the model has no layer 'zzz' (layers: conv1, bn1, conv2, bn2, pool, linear"),
        ("--out map.gif", "a picture should end in .png, .svg or .pdf, but got 'map.gif'"),
        ("--out map", "a picture should end in .png, .svg or .pdf, but got 'map'"),
        ("--out folder/map.png/map.png", "cannot write"),
        ("--json folder", "cannot write"),
        ("--into missing.json", "missing.json: No such file"),
        ("--into broken.json", "broken.json is not JSON"),
        ("--no-baseline", "--no-undefended needs --defense"),
        ("--defense smoth", "unknown defense 'smoth'; did you mean 'smooth'?"),
        (
            "--arch auto --arch auto",
            "--arch should be given once for all models, or once for each model, but it is given 2 times",
        ),
        ("--label a --label b", "--label should be given once for each model, but it is given 2 times for 1 model"),
        ("--rho 1", "no such option: --rho"),
        ("surplus", "unexpected extra argument"),
        ("--batch-size 0", "--batch-size should be auto or at least 1"),
    ],
)
def test_bad_request(arguments: str, expected: str, look: list[str], rejected: Rejected) -> None:
    Path("folder").mkdir()
    Path("folder/map.png").touch()
    Path("broken.json").write_text("{", encoding="utf-8")
    assert expected in rejected(*look, *arguments.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("heatmpa", "unknown analysis 'heatmpa'; did you mean 'heatmap'? (analyses: "),
        ("", "missing argument 'NAME'"),
        ("pgd", "unknown analysis 'pgd'"),
        ("heatmap:nrom=2", "heatmap: unknown parameter 'nrom'; did you mean 'norm'? (parameters: norm, layer, clip)"),
        ("heatmap:norm=2 --norm 2", "parameter 'norm' is given twice, in the spec and as an option"),
        ("heatmap --model x.pt", "--model needs --data"),
    ],
)
def test_bad_analysis(arguments: str, expected: str, rejected: Rejected) -> None:
    assert expected in rejected("analyze", *arguments.split())


def test_into_a_report_of_other_samples(look: list[str], base: list[str], command: Callable[..., Any]) -> None:
    assert command(*base, "--first", "12", "--attack", "lfc:radius=2", "--json", "run.json").code == 0
    before = Path("run.json").read_bytes()
    result = command(*look, "--into", "run.json")
    assert result.code == 2
    assert "is about other samples" in result.error
    assert "give the same --data, --limit and --first" in result.error
    assert Path("run.json").read_bytes() == before


def test_pictures_need_an_extra(look: list[str], rejected: Rejected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert rejected(*look, "--out", "map.png") == "pictures need the extra 'plots': pip install 'freqrobust[plots]'"


def test_without_a_picture_no_extra_is_needed(
    look: list[str], command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        assert command(*look, "--json", "map.json").code == 0


def test_an_analysis_brings_its_options(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for arguments in (["heatmap", "--help"], ["--quiet", "--data", "heatmap", "heatmap:norm=2", "-h"]):
        result = command("analyze", *arguments)
        assert result.code == 0
        assert "Parameters of heatmap" in result.out
        assert "--layer" in result.out
    assert "--layer" not in command("analyze", "--help").out


@pytest.mark.parametrize("name", analyses.names())
def test_every_analysis_is_listed(name: str, command: Callable[..., Any]) -> None:
    assert f"\n  {name}  " in command("list", "analyses").out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("misalignment --radii -1", "misalignment: parameter 'radii' should be greater than or equal to 0"),
        ("misalignment --radii 1,x", "misalignment: parameter 'radii' should be a valid number"),
        ("misalignment --radii [1", "the brackets do not match"),
        ("misalignment --gallery 1000", "misalignment: parameter 'gallery' should be less than or equal to 32"),
        ("misalignment --gallery-radius 0", "misalignment: parameter 'gallery_radius' should be greater than 0"),
        ("misalignment --shape round", "misalignment: parameter 'shape' should be 'circle' or 'square'"),
        (
            "spectrum --attacks lfc:radius=2",
            "expected an adversarial attack, but lfc:radius=2 is a shift; give it with --shifts",
        ),
        ("spectrum --attacks fgms", "unknown attack 'fgms'; did you mean 'fgsm'?"),
        (
            "spectrum --shifts fgsm",
            "expected a shift, such as a corruption or lfc:radius=8, but fgsm is an adversarial attack",
        ),
        ("spectrum --radius 0", "spectrum: parameter 'radius' should be greater than 0"),
        (
            "spectrum --shifts none --attacks none --radius loud",
            "spectrum: parameter 'radius' should be a valid number",
        ),
        ("energy", "energy compares with a natural model; give it as --reference or as the first --model"),
        ("energy --reference missing.pt", "missing.pt"),
        ("energy --severities 6", "energy: parameter 'severities' should be less than or equal to 5"),
        (
            "energy --shifts pgd --reference demo",
            "expected a shift, such as a corruption or lfc:radius=8, but pgd is an adversarial attack",
        ),
        ("sensitivity --unit perhaps", "sensitivity: parameter 'unit' should be a valid boolean"),
        ("kernels --filters 0", "kernels: parameter 'filters' should be greater than or equal to 1"),
        ("radius-curve --per-class perhaps", "radius-curve: parameter 'per_class' should be a valid boolean"),
    ],
)
def test_bad_parameters(arguments: str, expected: str, look: list[str], rejected: Rejected) -> None:
    name, *given = arguments.split()
    assert expected in rejected("analyze", name, *look[2:], *given)


def test_a_model_without_convolutions_has_no_kernels(
    digits: Path, write: Callable[[str, str], str], rejected: Rejected
) -> None:
    write(
        "flat.py", "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    message = rejected("analyze", "kernels", "--model", "flat.py:build", "--data", digits)
    assert message == "flat.py:build has no convolution with a kernel larger than 1x1"


def test_a_layer_that_takes_no_part(digits: Path, write: Callable[[str, str], str], rejected: Rejected) -> None:
    code = """
from torch import nn

class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x):
        return self.used(x.flatten(1))
"""
    write("half.py", code)
    arguments = ["analyze", "heatmap", "--model", "half.py:Half", "--data", str(digits), "--first", "3", "--layer"]
    assert rejected(*arguments, "unused") == "the layer is not used in the model's predictions"


@pytest.mark.slow
def test_every_analysis_on_the_demo(command: Callable[..., Any]) -> None:
    """What a person sees first: each with its defaults, against a defended model."""
    for name in (name for name in analyses.names() if analyses.get(name).needs_model):
        given = ["--attacks", "fgsm:eps=0.1", "--shifts", "frequency"] if name == "spectrum" else []
        given = ["--shifts", "frequency"] if name == "energy" else given
        given = ["--attack", "fmn:steps=3"] if name == "robustness-curve" else given
        result = command("analyze", name, "--first", "8", "--defense", "smooth", "--out", f"{name}.svg", *given)
        assert result.code == 0, result.err
        assert "demo" in result.out, name
        assert "smooth" in result.out, name
        assert "<svg" in Path(f"{name}.svg").read_text(encoding="utf-8")


MINE = """
from freqrobust import Analysis, AnalysisResult, AnalysisTable

class Brightest(AnalysisResult):
    brightest: float

class Mine(Analysis):
    times: float = 1.0

    def run(self, model, data, context):
        BODY
        return Brightest(brightest=self.times * float(data.images.max()))

    def tables(self, results):
        return [AnalysisTable(title="Mine", columns=["", "max"], rows=[[r.label, f"{r.brightest:g}"] for r in results])]
"""


def test_an_analysis_from_a_file(
    look: list[str], command: Callable[..., Any], write: Callable[[str, str], str]
) -> None:
    write("mine.py", MINE.replace("BODY", ""))
    result = command("analyze", "mine.py:Mine", *look[2:], "--times", "2", "--json", "mine.json")
    assert result.code == 0, result.err
    assert "digits" in result.out
    found = json.loads(Path("mine.json").read_text(encoding="utf-8"))
    assert found["spec"] == "Mine:times=2"
    assert found["results"][0]["brightest"] == 2 * 255
    picture = command("analyze", "mine.py:Mine", *look[2:], "--out", "mine.png")
    assert (picture.code, picture.error) == (2, "freqrobust: Mine draws no picture")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (MINE.replace("BODY", "return 7"), "Mine.run() should return an AnalysisResult, but got int"),
        (MINE.replace("BODY", "1 / 0"), "Mine failed on digits: ZeroDivisionError: division by zero"),
        (MINE.replace("BODY", "return Brightest(brightest=float('nan'))"), "Mine failed on digits: ValidationError"),
        (MINE.replace("def run", "def ran"), "mine.py:Mine does not implement run()"),
        ("from freqrobust import InputDefense as Mine", "expected a subclass of freqrobust.Analysis"),
    ],
)
def test_bad_plugin(
    source: str, expected: str, look: list[str], rejected: Rejected, write: Callable[[str, str], str]
) -> None:
    write("mine.py", source)
    assert expected in rejected("analyze", "mine.py:Mine", *look[2:])


def test_core_options_cannot_be_fields(look: list[str], rejected: Rejected, write: Callable[[str, str], str]) -> None:
    names = reserved_names("analyze")
    assert {"out", "into", "model", "seed", "label", "labels", "no_undefended", "json"} <= names
    assert set(AnalyzeCommand.model_fields) <= names
    for name in sorted(names - {"json"}):  # pydantic itself warns of that one
        write("mine.py", MINE.replace("times", name).replace("BODY", ""))
        message = rejected("analyze", "mine.py:Mine", *look[2:])
        assert f"the parameter {name!r} has the name of an option of freqrobust analyze" in message


def test_weights_need_no_data(trained: Path, command: Callable[..., Any]) -> None:
    given = ["kernels", "--model", trained, "--defense", "smooth:rho=1"]
    result = command("analyze", *given, "--json", "found.json")
    assert result.code == 0, result.err
    assert "data:" not in result.err
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert found["data"] is None
    assert [one["label"] for one in found["results"]] == ["digits", "smooth:rho=1"]
    assert found["results"][0]["first"] != found["results"][1]["first"]


def test_weights_are_the_same_with_data(trained: Path, digits: Path, command: Callable[..., Any]) -> None:
    command("analyze", "kernels", "--model", trained, "--json", "without.json", "--quiet")
    command("analyze", "kernels", "--model", trained, "--data", digits, "--json", "with.json", "--quiet")
    without, beside = (json.loads(Path(f"{name}.json").read_text(encoding="utf-8")) for name in ("without", "with"))
    assert (without["data"], beside["data"]["n"]) == (None, 60)
    assert without["results"][0]["layers"] == beside["results"][0]["layers"]


def test_an_analysis_of_weights_goes_into_any_report(
    base: list[str], trained: Path, command: Callable[..., Any]
) -> None:
    assert command(*base, "--attack", "fgsm:eps=0.1", "--quiet", "--json", "run.json").code == 0
    result = command("analyze", "kernels", "--model", trained, "--into", "run.json")
    assert result.code == 0, result.err
    page = command("report", "run.json", "--as", "html=-")
    assert "Smoothness of the convolutions" in page.out


def test_an_analysis_that_asks_for_images_all_the_same(
    trained: Path, write: Callable[[str, str], str], rejected: Callable[..., str]
) -> None:
    source = """
from freqrobust import Analysis

class Odd(Analysis):
    \"\"\"Says that it needs none.\"\"\"
    needs_data = False

    def run(self, model, data, context):
        return context.data.images
"""
    message = rejected("analyze", f"{write('odd.py', source)}:Odd", "--model", trained, "--json", "a.json")
    assert "Odd declares needs_data = False, but asks for images" in message


def test_verbose_prints_a_line_for_each_model(look: list[str], command: Callable[..., Any]) -> None:
    quiet, verbose = command(*look).err, command(*look, "--verbose").err
    assert "digits: " not in quiet
    (line,) = set(verbose.splitlines()) - set(quiet.splitlines())
    assert line.startswith("digits: ")


def test_the_result_is_kept_without_being_asked(look: list[str], command: Callable[..., Any]) -> None:
    result = command(*look)
    assert result.code == 0, result.err
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("heatmap-")
    assert sorted(file.name for file in folder.iterdir()) == ["analysis.json", "heatmap.png"]
    assert json.loads((folder / "analysis.json").read_text(encoding="utf-8"))["name"] == "heatmap"
    assert f"written: {folder / 'analysis.json'}, {folder / 'heatmap.png'}" in result.err
    assert command(*look, "--quiet").code == 0
    assert command(*look, "--defense", "lowpass:radius=2", "--quiet").code == 0
    assert len(list(Path("runs").iterdir())) == 2


def test_nothing_else_is_written_where_a_file_is_named(look: list[str], command: Callable[..., Any]) -> None:
    assert command(*look, "--json", "map.json", "--quiet").code == 0
    assert not Path("runs").exists()
