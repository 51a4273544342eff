"""Each format says what the report says, in a form that the programs it is meant for take."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from freqrobust import Report
from freqrobust.reports.markdown import COMMENT
from freqrobust.results.gate_record import Comparison, GateRecord, RegressionRow, ThresholdRow
from freqrobust.results.summary import Entry, attacks, entry_labels, headline
from support.waiting import PATIENCE

SCHEMA = Path(__file__).with_name("junit.xsd")


def percent(share: float | None) -> str:
    assert share is not None
    return f"{100 * share:.1f}"


# JUnit


def test_junit_keeps_to_the_schema(decorate, shown) -> None:
    etree = pytest.importorskip("lxml.etree", reason="lxml is not installed (extra 'dev')")
    schema = etree.XMLSchema(etree.parse(str(SCHEMA)))
    for text in (shown("junit", decorate("plain")), shown("junit", {"a": decorate("a"), "b": decorate("b")})):
        schema.assertValid(etree.fromstring(text.encode()))
    wrong = shown("junit", decorate("plain")).replace("<testcase classname", "<testcase class-name", 1)
    assert not schema.validate(etree.fromstring(wrong.encode()))


def test_junit_counts(decorate, shown) -> None:
    report: Report = decorate("plain")
    root = ElementTree.fromstring(shown("junit", report))
    (suite,) = root
    cases = suite.findall("testcase")
    failures = [case for case in cases if case.find("failure") is not None]
    errors = [case for case in cases if case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    # every cell, two certificates, two rows of a comparison and one threshold, three checks
    assert len(cases) == len(report.cells) + 2 + 3 + 3
    assert [case.get("name") for case in failures] == ["plain", "plain"]  # the regression, the failed check
    assert len(errors) == 2  # a cell and a certificate
    assert len(skipped) == 2  # shown as information, not applicable
    for element in (root, suite):
        assert [int(element.attrib[key]) for key in ("tests", "failures", "errors")] == [len(cases), 2, 2]
    names = [(case.get("classname"), case.get("name")) for case in cases]
    assert len(set(names)) == len(names)
    seconds = sum(float(case.attrib["time"]) for case in cases)
    assert seconds == pytest.approx(sum(cell.seconds for cell in report.cells), abs=0.001 * len(cases))


# Markdown


class Tables(HTMLParser):
    """The rows of every table, and which parts are folded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.folded: list[bool] = []
        self.depth = 0
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.depth += tag == "details"
        if tag == "table":
            self.tables.append([])
            self.folded.append(self.depth > 0)
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True
        if tag == "br":
            self.handle_data("\n")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "details"
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data


def rendered(text: str) -> Tables:
    renderer = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    return Tables(renderer.MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def test_markdown_has_the_headline_first_and_the_rest_folded(decorate, shown) -> None:
    report: Report = decorate("plain")
    text = shown("markdown", report)
    page = rendered(text)
    assert page.depth == 0
    assert page.folded == [False] + [True] * (len(page.tables) - 1)
    head, *rows = page.tables[0]
    measures = headline(report)
    assert head[1:] == [measure.label for measure in measures]
    for row, (entry, name) in zip(rows, entry_labels(report).items(), strict=True):
        assert row[0] == name
        for value, measure in zip(row[1:], measures, strict=True):
            one = measure.found.get(entry)
            expected = "-" if one is None else percent(one.accuracy) if one.accuracy is not None else "failed"
            assert value.split()[0].rstrip("~") == expected
    assert text.index("gate failed") < text.index("| clean |") < text.index("<details>")


@pytest.mark.slow
def test_markdown_fits_a_comment(measured, shown) -> None:
    many = measured.model_copy(deep=True)
    cells = [cell for cell in measured.cells if cell.attack != "clean"]
    for number in range(35):
        many.cells += [c.model_copy(update={"attack_spec": f"{c.attack_spec},restarts={number}"}) for c in cells]
    full = shown("markdown", many, max_chars=10_000_000)
    assert len(full) > COMMENT
    for limit in (2000, 9000, COMMENT):
        text = shown("markdown", many, max_chars=limit)
        assert len(text) <= limit
        page = rendered(text)
        assert page.depth == 0
        assert page.tables[0] == rendered(full).tables[0]
        assert "would not fit" in text


# CSV


def test_csv_is_tidy(decorate, shown) -> None:
    report: Report = decorate("plain")
    rows = list(csv.DictReader(io.StringIO(shown("csv", report), newline="")))
    assert report.gate is not None
    curves = sum(row["kind"] == "robustness curve" for row in rows)
    counts = [len(report.cells), len(report.worst_case), len(report.certificates), curves, len(report.gate.rows)]
    assert len(rows) == sum(counts)
    for row, cell in zip(rows, report.cells, strict=False):
        assert (row["attack"], row["defense"], row["status"]) == (cell.attack_spec, cell.defense_spec, cell.status)
        assert (float(row["accuracy"]) if row["accuracy"] else None) == cell.accuracy
        assert int(row["n"]) == cell.n
    certificates = [row for row in rows if row["kind"] == "certificate"]
    for row, certified in zip(certificates, report.certificates, strict=True):
        assert (row["attack"], row["kind"], row["status"]) == (
            certified.certificate_spec,
            "certificate",
            certified.status,
        )
        assert row["accuracy"] == (repr(certified.accuracy) if certified.accuracy is not None else "")
    for row, worst in zip(rows[counts[0] : counts[0] + counts[1]], report.worst_case, strict=True):
        assert row["attack"] == "worst case"
        assert float(row["eps"]) == worst.threat.eps
        assert (float(row["ci95_low"]), float(row["ci95_high"])) == worst.ci95
    for row, judged in zip(rows[-counts[-1] :], report.gate.rows, strict=True):
        assert (row["gate_cell"], row["kind"]) == (judged.name, judged.kind)
        assert row["gate_required" if judged.kind == "threshold" else "gate_allowed_drop"] == (
            "" if judged.required is None else repr(judged.required)
        )
    without = report.model_copy(update={"gate": None})
    assert "gate" not in shown("csv", without).partition("\r\n")[0]
    together = list(csv.DictReader(io.StringIO(shown("csv", {"a": report, "b": report}), newline="")))
    assert [row["report"] for row in together] == ["a"] * len(rows) + ["b"] * len(rows)


# LaTeX


def cells_of(text: str) -> list[list[str]]:
    body = text.partition("\\midrule")[2].partition("\\bottomrule")[0]
    return [[cell.strip() for cell in line.removesuffix("\\\\").split(" & ")] for line in body.strip().splitlines()]


def test_latex_has_defenses_as_rows(measured, shown) -> None:
    text = shown("latex", measured, bold=False)
    heads = re.search(r"\\toprule\n(.*?)\\\\", text, re.DOTALL)
    assert heads is not None
    columns = [head.strip() for head in heads[1].split(" & ")]
    assert columns[0] == "Model and defense"
    assert [c for c in columns if c.startswith("{Worst")] == [
        r"{Worst, $\ell_\infty$ 0.05}",
        r"{Worst, $\ell_2$ 0.5}",
    ]
    assert [c for c in columns if "PGD" in c or "FGSM" in c] == [r"{PGD, $\ell_\infty$ 0.05}", r"{FGSM, $\ell_2$ 0.5}"]
    rows = cells_of(text)
    names = entry_labels(measured)
    by_attack = {measure.label: measure.found for measure in attacks(measured)}
    for row, entry in zip(rows, names, strict=True):
        assert len(row) == len(columns)
        assert row[1] == percent(by_attack["clean"][entry].accuracy)
        (pgd,) = [value for value, column in zip(row, columns, strict=True) if "PGD" in column]
        assert pgd == percent(by_attack["pgd:eps=0.05,steps=2"][entry].accuracy)


def test_latex_options(measured, shown) -> None:
    assert "[" not in "".join(map("".join, cells_of(shown("latex", measured))))
    assert re.search(r"\d+\.\d \{\\scriptsize \{\[\d+, \d+\]\}\}", shown("latex", measured, interval=True))
    assert shown("latex", measured, threats="all").count("{Worst") == 3
    assert "\\caption{Mine \\& yours}" in shown("latex", measured, caption="Mine & yours", label="tab:a")


def test_bold_is_what_cannot_be_told_from_the_best(measured, shown) -> None:
    """Of two models that agree on nearly all samples both are bold; one that is clearly worse is not."""
    report = measured.model_copy(deep=True)
    clean = {Entry(c.model, c.defense_spec): c for c in report.cells if c.attack == "clean"}
    bold = {
        name: r"\textbf" in row[1]
        for row, name in zip(cells_of(shown("latex", report)), entry_labels(report).values(), strict=True)
    }
    accuracies = {entry_labels(report)[entry]: float(cell.accuracy or 0) for entry, cell in clean.items()}
    best = max(accuracies.values())
    assert any(bold.values())
    assert not all(bold.values())
    for name, accuracy in accuracies.items():
        if accuracy == best:
            assert bold[name]
        if accuracy < best - 0.4:
            assert not bold[name]


@pytest.mark.parametrize("document", [True, False])
def test_a_wide_latex_table_is_scaled_to_the_line(document: bool, measured, shown) -> None:
    """The box closes around the tabular alone, and all that it takes is named."""
    text = shown("latex", {"a": measured, "b": measured}, document=document, threats="all")
    assert "% needs \\usepackage{booktabs} and \\usepackage{graphicx}" in text
    assert ("\n\\usepackage{graphicx}" in text) == document
    box = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
    before, found, after = text.partition(box)
    assert found
    assert before.rstrip().endswith("\\label{tab:robustness}")
    assert after.lstrip().startswith("\\begin{tabular}")
    assert "\\end{tabular}}\n\\end{table}" in after


def compiler() -> str:
    found = next(filter(None, map(shutil.which, ("pdflatex", "tectonic", "lualatex", "xelatex"))), None)
    if found is None:
        pytest.skip("no LaTeX on this machine")
    return found


@pytest.mark.slow
def test_latex_compiles(decorate, shown, tmp_path: Path, all_hostile: list[str]) -> None:
    program = compiler()
    for number, text in enumerate(["plain", " ".join(all_hostile), *all_hostile]):
        for found in (decorate(text), {"a": decorate(text), "b": decorate("b")}):
            source = tmp_path / f"table{number}.tex"
            source.write_text(shown("latex", found, document=True, interval=True, threats="all"), encoding="utf-8")
            mode = [] if program.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
            done = subprocess.run(
                [program, *mode, source.name], cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=False
            )
            assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
            assert b"in alignment" not in done.stdout  # what TeX says of a table that is wider than the page


# Gate


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_gates_say_what_is_an_accuracy_and_what_a_drop(form: str, measured, shown) -> None:
    report = measured.model_copy(deep=True)
    drop = {"measured": 0.28, "required": 0.01, "baseline": 0.8, "new": 0.52, "p_value": 5e-8, "p_adjusted": 1e-7}
    report.gate = GateRecord(
        passed=False,
        thresholds=[
            ThresholdRow(name="pgd", passed=True, required=0.45, accuracy=0.5, ci95=(0.4, 0.6), text="reached", n=60),
            ThresholdRow(
                name="sure", passed=True, required=0.3, accuracy=0.5, ci95=(0.4, 0.6), confident=True, text="low", n=60
            ),
            ThresholdRow(name="gone", passed=False, required=0.5, text="could not be measured", n=60),
        ],
        comparison=Comparison(
            baseline="old.json",
            passed=False,
            alpha=0.05,
            max_drop=0.01,
            rows=[
                RegressionRow(
                    name="clean",
                    passed=False,
                    text="a regression",
                    n=60,
                    newly_misclassified=17,
                    minimum_detectable_drop=0.2,
                    **drop,
                ),
                RegressionRow(name="fgsm", passed=None, baseline=0.5, new=0.5, measured=0.0, text="not judged", n=60),
            ],
        ),
    )
    text = shown(form, report)
    if form == "html":
        rows = [re.split(r"</t[hd]>", row)[:-1] for row in text.split("<tr>")]
    else:
        rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    rows = [[" ".join(unescape(re.sub(r"<[^>]*>|[*`]", "", cell)).split()) for cell in row] for row in rows]
    assert ["cell", "result", "accuracy", "95 % interval", "required"] in rows
    assert ["pgd", "passed", "50.0", "[40.0, 60.0]", "45"] in rows
    assert ["sure", "passed", "50.0", "[40.0, 60.0]", "low end 30"] in rows
    assert ["gone", "failed", "-", "-", "50"] in rows
    assert "gone: could not be measured" in text
    heads = ["baseline", "new", "change", "allowed drop", "newly misclassified", "newly correct", "p", "corrected p"]
    assert ["cell", "result", *heads, "minimum detectable drop (80 % power)"] in rows
    assert ["clean", "regression", "80.0", "52.0", "-28.0", "1", "17", "0", "5e-8", "1e-7", "20.0"] in rows
    assert ["fgsm", "not judged", "50.0", "50.0", "+0.0", "-", "0", "0", "-", "-", "-"] in rows
