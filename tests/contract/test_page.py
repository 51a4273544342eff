"""The page in a browser: it says what the report says, needs nothing else, and can be worked with the keyboard."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freqrobust import Report
from freqrobust.results.summary import entry_labels, headline

Open = Callable[..., Any]
KINDS = ("clean", "adversarial", "perturbation x 5", "LFC, radius 3", "HFC, radius 3")


@pytest.fixture(scope="session")
def pages(decorate, shown, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of one report and the leaderboard of two, as files."""
    folder = tmp_path_factory.mktemp("pages")
    report = decorate("plain")
    report.diagnostics[0].sentence = "tried: apgd:eps=0.15,norm=linf,steps=20,targets=0,loss=margin"
    other = report.model_copy(deep=True)
    other.seed = 7
    made = {"one": shown("html", report), "board": shown("html", {"a": report, "b": other})}
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", ["one", "board"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wrong_and_nothing_is_asked_for(name: str, width: int, pages, show: Open) -> None:
    page = show(pages[name], width=width)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.querySelectorAll('table').length") > 1
    assert page.complaints == []
    assert page.requests == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width  # tables scroll, the page does not


def test_the_policy_forbids_what_was_not_meant(pages, show: Open, tmp_path: Path) -> None:
    """A script or an address that got into the page all the same is neither run nor asked for."""
    text = pages["one"].read_text(encoding="utf-8")
    bad = '<script>document.title = "run"</script><img src="http://localhost:9/x.png"><p onclick="run()" style="color:red">'
    path = tmp_path / "bad.html"
    path.write_text(text.replace("<main>", f"<main>{bad}"), encoding="utf-8")
    page = show(path)
    assert page.evaluate("document.title") != "run"
    assert len(page.complaints) >= 3  # the script, the picture, the style
    assert page.evaluate("fetch('http://localhost:9/').then(() => 'sent', () => 'refused')") == "refused"


def test_hostile_names_in_the_browser(decorate, shown, show: Open, tmp_path: Path, all_hostile: list[str]) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(shown("html", decorate(" ".join(all_hostile))), encoding="utf-8")
    page = show(path)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    assert page.dialogs == 0
    assert page.complaints == []
    assert page.requests == [path.as_uri()]
    assert page.evaluate("document.scripts.length") == 1


def test_says_what_the_report_says(decorate, pages, show: Open) -> None:
    report: Report = decorate("plain")
    page = show(pages["one"])
    rows = page.evaluate(
        "[...document.querySelectorAll('#headline tbody tr')].map(row => [...row.cells].slice(1)"
        ".map(cell => cell.dataset.v === '' ? null : Number(cell.dataset.v)))"
    )
    expected = [
        [m.found[entry].accuracy if entry in m.found else None for m in headline(report)]
        for entry in entry_labels(report)
    ]
    assert rows == [[pytest.approx(value) for value in row] for row in expected]
    assert page.evaluate("document.querySelectorAll('[id$=cells] tbody tr').length") == len(report.cells)
    text = page.evaluate("document.body.innerText")
    failed = f"1 of {len(report.cells)} cells failed"
    for part in ("overestimated", "gate failed: 1 of 2", failed, report.data.sha256, "some-code"):
        assert part in text


def test_every_verdict_is_to_be_seen(pages, show: Open) -> None:
    page = show(pages["one"])
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    seen = page.evaluate(
        "[...document.querySelectorAll('.badge, .check')].map(e => [e.textContent, e.offsetWidth > 0])"
    )
    assert all(visible for _, visible in seen)
    assert {text for text, _ in seen} == {
        "overestimated",
        "passed",
        "failed",
        "not applicable",
        "regression",
        "not judged",
    }


COLUMN = """
(index) => [...document.querySelector('#headline table').tBodies[0].rows]
    .map(row => row.cells[index].dataset.v ?? row.cells[index].textContent.trim())
"""


def test_tables_sort_by_the_keyboard(pages, show: Open) -> None:
    page = show(pages["one"])

    def values() -> list[float]:
        return [float(value) for value in page.evaluate(f"({COLUMN})(1)")]

    assert values() != sorted(values(), reverse=True)
    page.evaluate("document.querySelectorAll('#headline thead button')[1].focus()")
    page.press("Enter")
    assert values() == sorted(values(), reverse=True)
    assert page.evaluate("document.querySelectorAll('#headline th')[1].getAttribute('aria-sort')") == "descending"
    page.press("Enter")
    assert values() == sorted(values())
    assert page.evaluate("document.querySelectorAll('#headline thead [aria-sort]').length") == 1
    page.evaluate("document.querySelectorAll('#headline thead button')[0].click()")
    names = page.evaluate(f"({COLUMN})(0)")
    assert names == sorted(names)


def test_what_is_missing_sorts_last(pages, show: Open) -> None:
    page = show(pages["one"])
    column = "[...document.querySelectorAll('[id$=cells] tbody tr')].map(row => row.cells[3].dataset.v)"
    for _ in range(2):
        page.evaluate("document.querySelectorAll('[id$=cells] thead button')[3].click()")
        found = page.evaluate(column)
        blanks = found.count("")
        assert blanks > 0
        assert found[-blanks:] == [""] * blanks
        numbers = [float(value) for value in found[:-blanks]]
        assert numbers in (sorted(numbers), sorted(numbers, reverse=True))


def test_rows_are_filtered(pages, show: Open) -> None:
    page = show(pages["one"])
    shown_rows = "[...document.querySelectorAll('.filterable tbody tr')].filter(row => !row.hidden).length"
    before = page.evaluate(shown_rows)
    page.evaluate("const f = document.querySelector('.filter'); f.value = 'fgsm'; f.dispatchEvent(new Event('input'))")
    assert 0 < page.evaluate(shown_rows) < before


BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def lightness(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / (3 * 255)


def test_both_themes(pages, show: Open) -> None:
    page = show(pages["one"], scheme="light")
    assert lightness(page.evaluate(BACKGROUND)) > 0.9
    page.prefer("dark")
    assert lightness(page.evaluate(BACKGROUND)) < 0.2
    page.settle()
    assert page.evaluate("document.getElementById('theme').textContent") == "Light"
    page.evaluate("document.getElementById('theme').click()")  # against what the system says
    assert lightness(page.evaluate(BACKGROUND)) > 0.9
    page.prefer("light")
    page.evaluate("document.getElementById('theme').click()")
    assert lightness(page.evaluate(BACKGROUND)) < 0.2


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_theme_that_was_asked_for(theme: str, decorate, shown, show: Open, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(shown("html", decorate("plain"), theme=theme), encoding="utf-8")
    page = show(path, scheme="dark" if theme == "light" else "light")
    assert (lightness(page.evaluate(BACKGROUND)) > 0.5) == (theme == "light")


CONTRAST = """
(() => {
  const channel = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number); return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const page = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('p, td, th, li, code, dt, dd, .badge, .tick')].filter(e => e.textContent.trim()).map(e => {
    const style = getComputedStyle(e), own = light(e.namespaceURI.endsWith('svg') ? style.fill : style.color);
    return (Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05);
  }).reduce((a, b) => Math.min(a, b));
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(scheme: str, pages, show: Open) -> None:
    """At least 4.5 to 1 against the page, as WCAG 2.1 asks of text (criterion 1.4.3)."""
    assert show(pages["one"], scheme=scheme).evaluate(CONTRAST) >= 4.5


def test_curves_read_by_mouse_and_keys(pages, show: Open) -> None:
    page = show(pages["one"])
    titles = page.evaluate("[...document.querySelectorAll('.chart figcaption')].map(e => e.textContent)")
    assert len(titles) == 5
    assert any("Linf" in title for title in titles)
    assert any("L2" in title for title in titles)
    assert page.evaluate("document.querySelector('.tip').hidden")
    box = page.evaluate(
        "(() => { document.querySelector('.plot').scrollIntoView(); "
        "const b = document.querySelector('.plot svg').getBoundingClientRect(); return [b.x, b.y, b.width, b.height] })()"
    )
    page.move(box[0] + box[2] * 0.95, box[1] + box[3] / 2)
    tip = page.evaluate("document.querySelector('.tip').innerText")
    assert "eps" in tip
    assert re.search(r"\d+\.\d \[\d+, \d+\]", tip)
    page.evaluate("document.querySelector('.chart').focus()")
    page.press("Escape")
    assert page.evaluate("document.querySelector('.tip').hidden")
    page.press("ArrowRight")
    assert page.evaluate("document.querySelector('.tip b').textContent") == "clean"


def test_curves_hold_the_worst_cases(decorate, shown) -> None:
    """The drawn points, read back from the page, are the report's numbers."""
    import html as html_module
    import json

    report: Report = decorate("plain")
    page = shown("html", report)
    stops = [json.loads(html_module.unescape(text)) for text in re.findall(r'data-stops="([^"]*)"', page)]
    linf = stops[0]
    assert [name for _, name, _ in linf] == ["clean", "eps 2.55", "eps 12.75"] or len(linf) == 3
    for eps, (_, _, said) in zip((0.01, 0.05), linf[1:], strict=True):
        rows = [w for w in report.worst_case if w.threat.norm == "linf" and w.threat.eps == eps]
        assert [text.split()[0] for text in said] == [f"{100 * float(w.accuracy or 0):.1f}" for w in rows]


def test_pictures_are_there(pages, show: Open) -> None:
    page = show(pages["one"])
    sizes = page.evaluate("[...document.images].map(image => [image.naturalWidth, image.naturalHeight, image.alt])")
    assert sizes[-1:] == [[2, 2, "plain"]]
    assert sizes[:-1] == [[2, 2, f"{kind}: sample 7"] for kind in KINDS]


def test_examples_say_what_they_show(pages, show: Open) -> None:
    page = show(pages["one"])
    text = page.evaluate("document.getElementById('r0-examples').innerText")
    for part in ("perturbation x 5", "LFC, radius 3", "sample 7", "robust under this attack", "300 x 2"):
        assert part in text
    marks = page.evaluate("[...document.querySelectorAll('.prediction')].map(one => one.className)")
    assert marks == ["prediction wrong", "prediction right", *["prediction wrong"] * 3]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_with_everything_open(width: int, scheme: str, pages, show: Open) -> None:
    page = show(pages["one"], width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.getElementById('glossary').innerText.includes('docs/concepts/verdicts.md')")
    assert page.evaluate(CONTRAST) >= 4.5
    assert page.complaints == []
    assert page.requests == [pages["one"].as_uri()]


def test_the_style_and_the_script_are_those_of_the_policy(pages) -> None:
    text = pages["one"].read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    for tag in ("style", "script"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy[1].replace("&#43;", "+").replace("&#34;", '"')
    assert "://" not in text


def test_without_the_library_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from freqrobust.core.errors import SpecError
    from freqrobust.results import rendering

    monkeypatch.setattr(rendering, "find_spec", lambda name: None)
    outputs = rendering.parse_outputs(["html=out.html"], "--report")
    with pytest.raises(SpecError, match=r"needs jinja2.*pip install 'freqrobust\[plots\]'"):
        rendering.check_outputs(outputs, "--report")
