"""The site of many reports: what may be compared is together, the same input gives the same files, foreign files stay."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freqrobust import Report
from freqrobust.cli.main import main
from freqrobust.core.errors import JournalError, SpecError
from freqrobust.core.files import exclusive
from freqrobust.reports.site import INDEX, MANIFEST, page_names, write_site
from freqrobust.results.collecting import collect_reports
from freqrobust.results.reporter import reports

pytest.importorskip("jinja2", reason="the extra 'plots' is not installed")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def renamed(report: Report, name: str) -> Report:
    """The same numbers of a network of another name."""
    found = report.model_copy(deep=True)
    for number, model in enumerate(found.models):
        model.name = f"{name}{number}"
    return found


@pytest.fixture
def runs(measured: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs on the same samples and one on others, at different depths."""
    monkeypatch.chdir(tmp_path)
    other = renamed(measured, "elsewhere")
    other.data = other.data.model_copy(update={"sha256": "f" * 64, "spec": "folder/other.npz"})
    for folder, report in (("a", renamed(measured, "a")), ("deep/b", renamed(measured, "b")), ("c", other)):
        path = tmp_path / "runs" / folder / "report.json"
        path.parent.mkdir(parents=True)
        report.to_json(path)
    return tmp_path / "runs"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["leaderboard", *arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_command_writes_the_same_files_again(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("runs", "--out", "site", "--title", "Ours, all of them") == 0
    assert f"written: {Path('site') / INDEX} (3 reports, 4 files written)" in capsys.readouterr().err
    first = files(Path("site"))
    assert set(first) == {INDEX, MANIFEST, "reports/a.html", "reports/b.html", "reports/c.html"}
    times = {path: path.stat().st_mtime_ns for path in Path("site").rglob("*.html")}
    assert run("runs", "--out", "site", "--title", "Ours, all of them") == 0
    assert "0 files written" in capsys.readouterr().err
    assert files(Path("site")) == first
    assert {path: path.stat().st_mtime_ns for path in Path("site").rglob("*.html")} == times
    assert run("runs/c", "runs/deep/b/report.json", "runs/a", "--out", "again", "--title", "Ours, all of them") == 0
    assert files(Path("again")) == first  # the order of the arguments does not matter
    assert b"<h1>Ours, all of them</h1>" in first[INDEX]
    assert b'href="../index.html"' in first["reports/a.html"]


def test_only_the_same_samples_are_ranked_together(runs: Path) -> None:
    site: Any = reports.get("site")()
    parts = list(site._parts(found := collect_reports(["runs"], "site"), page_names(found)))
    assert [part.title for part in parts] == ["tensors", "other.npz"]
    names = [{row.name for row in part.tables[0].grid.rows} for part in parts]
    assert names[1] == {name for name in names[1] if name.startswith("elsewhere")}
    assert {name[0] for name in names[0]} == {"a", "b"}
    for part in parts:
        assert [table.title for table in part.tables] == [
            "worst case Linf 0.05",
            "worst case Linf 0.01",
            "worst case L2 0.5",
        ]
        for table in part.tables:
            values = [
                (row.numbers[0].value, row.numbers[table.grid.columns.index("clean")].value) for row in table.grid.rows
            ]
            assert values == sorted(values, reverse=True)  # by the worst case, then by the clean accuracy
            assert len(table.links) == len(table.grid.rows)


def test_reports_of_another_criterion_are_apart(measured: Report) -> None:
    other = measured.model_copy(update={"criterion": "topk:k=3"})
    site: Any = reports.get("site")()
    parts = list(site._parts({"a": measured, "b": other}, page_names({"a": measured, "b": other})))
    assert len(parts) == 2
    assert any("criterion topk:k=3" in part.about for part in parts)


@pytest.mark.slow
def test_an_update_removes_pages_of_reports_that_are_gone(runs: Path) -> None:
    assert run("runs", "--out", "site") == 0
    (Path("site") / "CNAME").write_text("ours")  # a file beside the site is not touched
    assert run("runs/a", "--out", "site") == 0
    assert set(files(Path("site"))) == {INDEX, MANIFEST, "reports/a.html", "CNAME"}
    assert set(json.loads(Path("site", MANIFEST).read_text())["files"]) == {INDEX, "reports/a.html"}


@pytest.mark.slow
def test_foreign_files_are_neither_replaced_nor_removed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = Path("homepage")
    foreign.mkdir()
    (foreign / INDEX).write_text("mine")
    assert run("runs", "--out", "homepage") == 2
    assert "it contains files, and was not written by freqrobust leaderboard" in capsys.readouterr().err
    assert files(foreign) == {INDEX: b"mine"}
    assert run("runs", "--out", "site") == 0
    Path("site/reports/a.html").write_text("edited")
    assert run("runs", "--out", "site", "--title", "other") == 2
    assert "reports/a.html was changed by somebody else" in capsys.readouterr().err
    assert Path("site/reports/a.html").read_text() == "edited"
    Path("file").write_text("")
    assert run("runs", "--out", "file") == 2


@pytest.mark.parametrize(
    "manifest",
    [
        '{"files": {"../outside.html": ["' + "0" * 64 + '"]}}',
        '{"files": {"reports/../../outside.html": ["' + "0" * 64 + '"]}}',
        '{"files": {"reports/a.txt": ["' + "0" * 64 + '"]}}',
        '{"files": {"index.html": ["short"]}}',
        '{"files": []}',
        "[]",
        "{",
    ],
)
def test_a_damaged_list_of_files_is_refused(manifest: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "outside.html").write_text("mine")
    (site / MANIFEST).write_text(manifest)
    with pytest.raises(JournalError, match="was not written by freqrobust leaderboard"):
        write_site(site, {INDEX: "new"})
    assert (tmp_path / "outside.html").read_text() == "mine"


def test_a_process_that_was_killed_leaves_a_site_that_can_be_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from freqrobust.reports import site

    contents = {INDEX: "index", "reports/a.html": "a", "reports/b.html": "b"}
    write_site(tmp_path / "site", {INDEX: "old", "reports/old.html": "old"})
    whole = site.write_atomically
    written: list[str] = []

    def killed(path: Path, text: str) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(str(path))
        whole(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(site, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            write_site(tmp_path / "site", contents)
    assert (tmp_path / "site" / INDEX).read_text() == "old"  # the index is written last
    assert write_site(tmp_path / "site", contents) == 2
    assert set(files(tmp_path / "site")) == {*contents, MANIFEST}


@pytest.mark.skipif(os.name == "nt", reason="no locks")
def test_two_processes_do_not_write_at_once(tmp_path: Path) -> None:
    write_site(tmp_path, {INDEX: "a"})
    with exclusive(tmp_path), pytest.raises(JournalError, match="another process writes to it"):
        write_site(tmp_path, {INDEX: "b"})


@pytest.mark.slow
def test_what_cannot_be_read_is_left_out_of_a_search_and_refused_by_name(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "bad").mkdir()
    (runs / "bad" / "report.json").write_text("{}")
    (runs / "copy").mkdir()
    (runs / "copy" / "report.json").write_bytes((runs / "a" / "report.json").read_bytes())
    said: list[str] = []
    assert len(collect_reports(["runs"], "site", said.append)) == 3  # the copy is taken once
    assert [text for text in said if "bad" in text and text.startswith("left out: ")] == said != []
    assert run("runs/bad", "--out", "site") == 2
    capsys.readouterr()
    assert run("nothing", "--out", "site") == 2
    assert "nothing: No such file" in capsys.readouterr().err
    Path("empty").mkdir()
    assert run("empty", "--out", "site") == 2
    assert "there is no report in empty" in capsys.readouterr().err
    assert run("runs", "--out", "site", "--rank-by", "linf 9") == 2
    assert "cannot rank by 'linf 9'" in capsys.readouterr().err
    assert not Path("site").exists()
    with pytest.raises(SpecError):
        collect_reports(["runs"], "runs")  # what a site contains is not its input


def test_the_same_names_have_pages_of_their_own(measured: Report) -> None:
    found = page_names(dict.fromkeys(("a b", "a/b", "..", "ÄB", "x" * 200), measured))
    assert sorted(found.values()) == sorted(set(found.values()))
    assert all(len(page) < 100 and ".." not in page for page in found.values())


@pytest.mark.slow
def test_hostile_names(decorate: Callable[[str], Report], hostile: str, shown: Callable[..., str]) -> None:
    """The page has the same elements whatever the names are."""
    import re

    def tags(text: str) -> list[str]:
        return re.findall(r"<\s*/?\s*([a-zA-Z]+)", text)

    plain = shown("site", {"a": decorate("plain"), "b": renamed(decorate("plain"), "plain")})
    made = shown("site", {"a": decorate(hostile), "b": renamed(decorate(hostile), hostile)})
    kept = [tag for tag in tags(made) if tag != "wbr"]
    assert kept == [tag for tag in tags(plain) if tag != "wbr"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_the_browser(width: int, scheme: str, runs: Path, show: Callable[..., Any]) -> None:
    assert run("runs", "--out", "site") == 0
    index = Path("site", INDEX).resolve()
    page = show(index, width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.complaints == []
    assert page.requests == [index.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelectorAll('#data-1 table').length") == 3
    order = "[...document.querySelector('#data-1 table').tBodies[0].rows].map(row => Number(row.cells[3].dataset.v))"
    page.evaluate("document.querySelectorAll('#data-1 thead button')[3].click()")
    assert page.evaluate(order) == sorted(page.evaluate(order), reverse=True)
    target = page.evaluate("document.querySelector('#data-1 tbody a').href")
    linked = show(Path(target.removeprefix("file://")), width=width, scheme=scheme)
    assert linked.complaints == []
    assert linked.evaluate("document.querySelector('header a').href") == index.as_uri()
    assert linked.evaluate("document.querySelectorAll('#headline tbody tr').length") > 1
