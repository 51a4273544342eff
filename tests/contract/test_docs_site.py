"""The documentation site: complete, current, built without a warning, and without requests to other hosts."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import freqrobust
from support.pages import ROOT
from support.waiting import PATIENCE, processor_seconds_of_children

DOCS = ROOT / "docs"
MKDOCS = ROOT / ".venv-docs" / ("Scripts" if os.name == "nt" else "bin") / "mkdocs"
#: Attributes whose address a browser requests when it shows the page.
LOADS = {("script", "src"), ("img", "src"), ("img", "srcset"), ("iframe", "src"), ("source", "src"), ("video", "src")}


def test_the_generated_pages_are_current() -> None:
    """Otherwise run ``python docs/_site/reference.py``."""
    pages = runpy.run_path(str(DOCS / "_site" / "reference.py"))["pages"]()
    for name, text in pages.items():
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == text, f"{name}: run docs/_site/reference.py"


def test_every_public_name_is_in_the_reference() -> None:
    named = re.findall(r"^::: freqrobust\.(\w+)$", (DOCS / "reference" / "python.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(set(freqrobust.__all__) - {"__version__"})


def test_the_citation_and_the_metadata_have_the_version_of_the_code() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == freqrobust.__version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["tests", "docs", "release"])
def test_a_workflow_calls_what_exists_and_needs_no_secret(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert "secrets." not in text
    assert workflow["permissions"] == {"contents": "read"}
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 45
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/checkout@v4"))
            assert set(re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE)) <= set(targets)
    if name == "tests":
        assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12", "3.13"]


class Requests(HTMLParser):
    """The addresses on other hosts that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loaded = [value for name, value in attrs if (tag, name) in LOADS and value]
        if tag == "link" and dict(attrs).get("rel") not in ("canonical", "next", "prev"):
            loaded.append(dict(attrs).get("href") or "")
        self.found += [address for address in loaded if re.match(r"(https?:)?//", address)]


def test_a_request_is_found() -> None:
    page = Requests()
    page.feed('<a href="https://a.b"><img src="pictures/x.png"><script src="https://c.d/e.js"></script>')
    assert page.found == ["https://c.d/e.js"]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    if not MKDOCS.exists():
        pytest.skip("no .venv-docs: `make docs` creates it")
    before = processor_seconds_of_children()
    done = subprocess.run(
        [MKDOCS, "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert processor_seconds_of_children() - before < 120
    pages = {page.relative_to(tmp_path / "site").as_posix(): page for page in (tmp_path / "site").rglob("*.html")}
    sources = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert {source.replace(".md", ".html") for source in sources} | {"changelog.html", "contributing.html"} <= set(
        pages
    )
    for name, page in pages.items():
        text = page.read_text(encoding="utf-8")
        requests = Requests()
        requests.feed(text)
        assert requests.found == [], name
        assert not re.search(r"(?<!&lt;)\]\([\w./-]+\.md[)#]", re.sub(r"<code.*?</code>", "", text, flags=re.DOTALL)), (
            name
        )
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name
    reference = pages["reference/python.html"].read_text(encoding="utf-8")
    assert 'id="freqrobust.evaluate"' in reference
    assert "Measure a classifier, undefended and with each defense" in reference
