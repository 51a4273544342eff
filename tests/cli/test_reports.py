"""``--report``, ``freqrobust report`` and several models in one run."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from freqrobust.models.architectures import SmallCNN
from freqrobust.models.classifier import Classifier
from freqrobust.models.files import save_model
from freqrobust.models.normalization import preset
from freqrobust.results.report import Report

Command = Callable[..., Any]
QUICK = ["--attack", "fgsm:eps=0.1", "--attack", "lfc:radius=3", "--quiet"]


@pytest.fixture
def run(base: list[str], command: Command) -> str:
    """A report of a finished run."""
    assert command(*base, *QUICK, "--defense", "lowpass:radius=3", "--json", "run.json").code == 0
    return "run.json"


@pytest.fixture
def other(untrained: SmallCNN, workspace: Path) -> str:
    """Another model of the same architecture."""
    save_model(Classifier(untrained, preset("none", "none"), "other", "small_cnn", None), workspace / "other.pt")
    return "other.pt"


# eval --report


def test_every_format_beside_the_run(base: list[str], command: Command) -> None:
    names = {
        "html": "a.html",
        "markdown": "sub/a.md",
        "junit": "a.xml",
        "csv": "a.csv",
        "latex": "a.tex",
        "json": "a.json",
    }
    wanted = [part for name, file in names.items() for part in ("--report", f"{name}={file}")]
    result = command(*base, *QUICK[:4], *wanted, "--json", "run.json")
    assert result.code == 0, result.err
    report = Report.from_json("run.json")
    assert Report.from_json("a.json") == report
    for file in names.values():
        assert f"written: {file}" in result.err
    for file in ("a.html", "sub/a.md", "a.xml", "a.csv", "a.tex"):
        clean = report.cell("clean").accuracy
        assert clean is not None
        shown = f"{clean}" if file == "a.csv" else f"{100 * clean:.1f}"
        assert shown in Path(file).read_text(encoding="utf-8"), file
    assert "Accuracy in percent, 95 % interval" in result.out
    assert "Every cell" not in result.out


def test_standard_output_is_only_the_report(base: list[str], command: Command) -> None:
    result = command(*base, *QUICK[:4], "--report", "csv=-")
    rows = list(csv.DictReader(io.StringIO(result.out, newline="")))
    assert [row["attack"] for row in rows] == ["clean", "fgsm:eps=0.1", "lfc:radius=3", "worst case"]


def test_options_of_a_report(base: list[str], command: Command) -> None:
    assert command(*base, *QUICK, "--report", "html:theme=dark,title=Mine=out.html").code == 0
    text = Path("out.html").read_text(encoding="utf-8")
    assert '<html lang="en" data-theme="dark">' in text
    assert "<h1>Mine</h1>" in text


LINES = """
from freqrobust import Reporter

class Lines(Reporter):
    "One line a cell."
    def render(self, report, target):
        for cell in report.cells:
            target.write(f"{cell.attack_spec}\\n")

class Broken(Reporter):
    "Fails."
    def render(self, report, target):
        target.write("half")
        raise OSError("no ink")
"""


def test_a_report_of_ones_own(base: list[str], command: Command, write: Callable[[str, str], str]) -> None:
    write("mine.py", LINES)
    assert command(*base, *QUICK, "--report", "mine.py:Lines=a=b.txt").code == 0
    assert Path("a=b.txt").read_text().split() == ["clean", "fgsm:eps=0.1", "lfc:radius=3"]


def test_a_report_that_fails_takes_nothing_with_it(
    base: list[str], command: Command, write: Callable[[str, str], str]
) -> None:
    write("mine.py", LINES)
    Path("old.txt").write_text("old")
    result = command(*base, *QUICK, "--report", "mine.py:Broken=old.txt", "--report", "junit=a.xml", "--run-dir", "run")
    assert result.code == 2
    assert result.error == "freqrobust: the report 'Broken' failed: OSError: no ink"
    assert Path("old.txt").read_text() == "old"
    ElementTree.parse("a.xml")
    assert Report.from_json("run/report.json").status == "complete"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("htm=a.html", "unknown report 'htm'; did you mean 'html'?"),
        (
            "html",
            "--report should be FILE or REPORT=FILE, for example out.html or html=out, but got 'html' (reports: csv, ",
        ),
        ("html=", "--report should be FILE or REPORT=FILE"),
        ("out.pdf", "--report out.pdf: no form of report is written to files ending in .pdf (.html, .htm, .md,"),
        ("mine.py:Broken", "--report should be FILE or REPORT=FILE"),
        ("html:them=dark=a.html", "html: unknown parameter 'them'; did you mean 'theme'?"),
        ("html:theme=red=a.html", "html: parameter 'theme' should be"),
        ("html=.", "cannot write .: it is a directory"),
        ("html=run.json", "--report: run.json is already taken"),
        ("latex:label={a}=a.tex", "latex: parameter 'label'"),
    ],
)
def test_said_before_anything_is_measured(wanted: str, message: str, base: list[str], rejected: Command) -> None:
    assert message in rejected(*base, *QUICK, "--json", "run.json", "--report", wanted)


def test_the_ending_says_the_form(base: list[str], command: Command) -> None:
    named = [("html", "a.html"), ("markdown", "a.md"), ("csv", "a.csv"), ("latex", "a.tex"), ("junit", "a.xml")]
    assert command(*base, *QUICK, "--json", "run.json").code == 0
    for form, file in [*named, ("json", "a.json")]:
        assert command("report", "run.json", "--as", file).code == 0
        assert command("report", "run.json", "--as", f"{form}=named").code == 0
        assert Path(file).read_bytes() == Path("named").read_bytes()
    assert command(*base, *QUICK, "--report", "b.html").code == 0
    assert Path("b.html").read_text().startswith("<!doctype html>")


def test_two_reports_in_one_file(base: list[str], rejected: Command) -> None:
    assert "a.txt is already taken" in rejected(*base, *QUICK, "--report", "csv=a.txt", "--report", "latex=./a.txt")
    assert "standard output is already taken" in rejected(*base, *QUICK, "--report", "csv=-", "--report", "latex=-")


# freqrobust report


def test_later_it_is_the_same(base: list[str], command: Command) -> None:
    assert command(*base, *QUICK, "--json", "run.json", "--report", "html=then.html").code == 0
    assert command("report", "run.json", "--as", "html=now.html").code == 0
    assert Path("now.html").read_text() == Path("then.html").read_text()


def test_the_table_is_the_default(run: str, base: list[str], command: Command) -> None:
    shown = command("report", run)
    assert shown.code == 0
    measured = command(*base, *QUICK[:4], "--defense", "lowpass:radius=3")
    assert shown.out == measured.out
    assert shown.err == f"next: freqrobust report {run} --full\n"
    every = command("report", run, "--full")
    assert "Every cell" in every.out
    assert every.out == command("report", run, "--as", "table:full=true=-").out
    assert every.err == ""


def test_a_folder_is_its_report(base: list[str], command: Command) -> None:
    command(*base, *QUICK, "--run-dir", "here")
    result = command("report", "here", "--as", "json=-")
    assert json.loads(result.out) == json.loads(Path("here/report.json").read_text())


def test_nothing_heavy_is_imported(run: str) -> None:
    code = (
        "import sys\nfrom freqrobust.cli.report import execute\n"
        f"execute([{run!r}], ['html=a.html', 'markdown=a.md', 'junit=a.xml', 'csv=a.csv', 'latex=a.tex', 'table=-'])\n"
        "print([m for m in ('torch', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_leaderboard(run: str, base: list[str], command: Command, other: str) -> None:
    rest = ["--data", base[base.index("--data") + 1], *QUICK, "--json", "other.json"]
    assert command("eval", "--model", other, "--normalize", "none", *rest).code == 0
    result = command("report", run, "other.json", "--as", "table=-", "--as", "html=board.html", "--as", "junit=b.xml")
    assert result.code == 0, result.err
    assert "Leaderboard: worst case Linf 0.1" in result.out
    lines = [line for line in result.out.splitlines() if "|" in line and line.strip()[0].isdigit()]
    assert len(lines) == 3
    assert "other" in lines[-1]
    assert lines[-1].split("|")[0].strip() == "3"
    assert [suite.get("name") for suite in ElementTree.parse("b.xml").getroot()] == ["run", "other"]
    by_clean = command("report", run, "other.json", "--as", "table:rank_by=clean=-").out
    assert "Leaderboard: clean" in by_clean


def test_bad_input_of_report(run: str, rejected: Command, write: Callable[[str, str], str]) -> None:
    Path("copy.json").write_text(Path(run).read_text())
    assert "nowhere.json: No such file" in rejected("report", "nowhere.json")
    assert "run.json is given twice" in rejected("report", run, f"./{run}")
    assert "shows one report at a time; these show several: csv, html," in rejected(
        "report", run, "copy.json", "--as", "json=a.json"
    )
    assert "run.json is already taken" in rejected("report", run, "--as", "json=run.json")
    wanted = ["--as", "csv=a.csv", "--as", "html:rank_by=linf 2/255=a.html"]
    assert "cannot rank by 'linf 2/255' (there is: clean, lfc, linf 0.1)" in rejected(
        "report", run, "copy.json", *wanted
    )
    write("cut.json", Path(run).read_text()[:200])
    assert "cut.json is not JSON" in rejected("report", "cut.json", "--as", "html=a.html")
    assert "--as should be FILE or REPORT=FILE" in rejected("report", run, "--as", "html")
    assert "either --full or --as" in rejected("report", run, "--full", "--as", "out.html")
    assert "--as a.docx: no form of report" in rejected("report", run, "--as", "a.docx")


# several models


def test_models_side_by_side(base: list[str], command: Command, other: str) -> None:
    arguments = [*base, "--model", other, *QUICK[:4], "--normalize", "none", "--json", "both.json"]
    result = command(*arguments)
    assert result.code == 0, result.err
    report = Report.from_json("both.json")
    assert [Path(model.spec).name for model in report.models] == ["digits.pt", "other.pt"]
    assert {cell.model for cell in report.cells} == {0, 1}
    head = next(line for line in result.out.splitlines() if "digits" in line and "other" in line)
    assert head.index("digits") < head.index("other")
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("digits-and-1-more-")
    again = command(*arguments)
    assert command(*arguments, "-v").err.count("from the journal") == len(report.cells)
    assert again.out == result.out


def test_each_its_own_normalisation(base: list[str], command: Command, other: str) -> None:
    given = ["--normalize", "none", "--normalize", "half"]
    assert command(*base, "--model", other, *QUICK, *given, "--json", "both.json").code == 0
    presets = [model.normalize.preset for model in Report.from_json("both.json").models]
    assert presets[1] == "half"
    assert presets[0] != "half"


def test_one_model_in_two_ways(base: list[str], command: Command) -> None:
    given = ["--model", base[base.index("--model") + 1], "--normalize", "none", "--normalize", "half"]
    assert command(*base, *given, *QUICK, "--json", "both.json").code == 0
    a, b = (c for c in Report.from_json("both.json").cells if c.attack == "clean")
    assert a.outcomes != b.outcomes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--model", "other.pt", *["--arch", "auto"] * 3],
            "--arch should be given once for all models, or once for each model",
        ),
        (["--normalize", "none", "--normalize", "half"], "--normalize should be given once for all models"),
        (["--model", "other.pt", "--save-model", "m.pt", "--defense", "smooth"], "--save-model takes one --model"),
        (["--model", "other.pt", "--save-adversarial", "adv"], "--save-adversarial takes one --model"),
        (["--model", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_bad_input_of_several(more: list[str], message: str, base: list[str], other: str, rejected: Command) -> None:
    assert message in rejected(*base, *more, *QUICK)


def test_the_same_model_twice(base: list[str], rejected: Command) -> None:
    model = base[base.index("--model") + 1]
    assert "is given twice" in rejected(*base, "--model", model, *QUICK)


def test_verify_takes_one(base: list[str], rejected: Command, other: str) -> None:
    assert "verify needs --model once, but it is given 2 times" in rejected(
        "verify", "adv", "--model", other, "--model", other
    )
