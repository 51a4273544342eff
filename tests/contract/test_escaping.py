"""Text of others stays text: hostile names change no structure, in any format, and are still shown."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from freqrobust import Report
from freqrobust.core.text import one_line
from freqrobust.results.reporter import reports

HARMLESS = "harmless"
Render = Callable[..., str]
Decorate = Callable[[str], Report]


class Skeleton(HTMLParser):
    """Tags with the names of their attributes, and the text between."""

    IGNORED = ("wbr",)

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, ...]] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.IGNORED:
            self.tags.append((tag, *(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}",))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment",))

    def handle_data(self, data: str) -> None:
        self.text += data


def squeezed(text: str) -> str:
    """Without white space, and without the spaces of no width that keep names from being mentions."""
    return re.sub(r"\s+", "", text).replace("\u200b", "")


def both(decorate: Decorate, text: str) -> list[Report | dict[str, Report]]:
    """One report, and several with the text as the name of one."""
    report = decorate(text)
    return [report, {text: report, "b": report}]


@pytest.fixture(scope="module")
def harmless(decorate: Decorate, shown: Render) -> Callable[[str], list[str]]:
    """``harmless(name)``: what a reporter makes of both where the text is harmless."""
    return functools.cache(lambda name: [shown(name, found) for found in both(decorate, HARMLESS)])


@pytest.mark.slow
def test_html(decorate, shown: Render, harmless, hostile: str) -> None:
    for hard, easy in zip(both(decorate, hostile), harmless("html"), strict=True):
        page, usual = Skeleton(shown("html", hard)), Skeleton(easy)
        assert page.tags == usual.tags
        assert page.links == usual.links
        assert squeezed(one_line(hostile)) in squeezed(page.text)


def test_html_of_several_attributes(decorate, shown: Render) -> None:
    """What ends up inside of attributes is text there too."""
    page = shown("html", decorate('x" onload="alert(1)'))
    assert 'onload="' not in page.replace("&#34;", "'")


def markdown(text: str) -> str:
    renderer = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    return renderer.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


@pytest.mark.slow
def test_markdown(decorate, shown: Render, harmless, hostile: str) -> None:
    for hard, easy in zip(both(decorate, hostile), harmless("markdown"), strict=True):
        text = shown("markdown", hard, max_chars=1_000_000)  # escaped text is long: nothing is cut
        page, usual = Skeleton(markdown(text)), Skeleton(markdown(easy))
        assert page.tags == usual.tags
        assert page.links == []
        assert squeezed(one_line(hostile)) in squeezed(page.text)


def test_markdown_mentions_nobody(decorate, shown: Render) -> None:
    """An at sign is in code, or does not touch the name after it."""
    rendered = markdown(shown("markdown", decorate("@everyone")))
    assert "@everyone" not in re.sub(r"<code>[^<]*</code>", "", rendered)
    assert "@everyone" in rendered


def test_junit(decorate, shown: Render, harmless, hostile: str) -> None:
    def skeleton(text: str) -> list[tuple[str, ...]]:
        return [(e.tag, *sorted(e.attrib)) for e in ElementTree.fromstring(text).iter()]

    for hard, easy in zip(both(decorate, hostile), harmless("junit"), strict=True):
        text = shown("junit", hard)
        assert skeleton(text) == skeleton(easy)
        said = "".join(v for e in ElementTree.fromstring(text).iter() for v in [e.text or "", *e.attrib.values()])
        assert squeezed(one_line(hostile)) in squeezed(said)


def test_csv(decorate, shown: Render, harmless, hostile: str) -> None:
    for hard, easy in zip(both(decorate, hostile), harmless("csv"), strict=True):
        text, usual = shown("csv", hard), easy
        rows, others = (list(csv.reader(io.StringIO(t, newline=""), strict=True)) for t in (text, usual))
        assert [len(row) for row in rows] == [len(row) for row in others]
        assert text.count("\r\n") == usual.count("\r\n") == len(rows)
        assert "\n" not in text.replace("\r\n", "")
        for row in rows:
            for value in row:
                assert not value.startswith(("=", "@", "\t", "\r"))
                if value.startswith(("+", "-")):
                    float(value)  # a number, not a formula
        # a program that splits at semicolons does not find a formula behind one either
        assert all(line.count('"') % 2 == 0 for line in text.split("\r\n"))
        assert squeezed(one_line(hostile)) in squeezed("".join(map("".join, rows)))


#: Commands that the table has without any hostile text, and those that stand for characters.
COMMANDS = re.compile(r"\\([A-Za-z]+|[^A-Za-z])")
CHARACTERS = {
    *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "textquotedbl"),
    *("textquotesingle", "textasciigrave", "{", "}", "#", "$", "%", "&", "_"),
}


def test_latex(decorate, shown: Render, harmless, hostile: str) -> None:
    def skeleton(text: str) -> list[str]:
        return [one for one in COMMANDS.findall(text) if one not in CHARACTERS]

    def plain(text: str) -> str:
        return COMMANDS.sub("", text)

    for hard, easy in zip(both(decorate, hostile), harmless("latex"), strict=True):
        text, usual = shown("latex", hard), easy
        assert skeleton(text) == skeleton(usual)
        assert text.isascii()
        for character in "$%#^~&":  # those left are the table's own
            assert plain(text).count(character) == plain(usual).count(character)
        depth = 0
        for character in plain(text):
            depth += (character == "{") - (character == "}")
            assert depth >= 0
        assert depth == 0


@pytest.mark.parametrize("name", ["table"])
def test_terminal(name: str, decorate, shown: Render) -> None:
    """No escape sequence of a report reaches a terminal."""
    for found in both(decorate, "\x1b[31mred\x07\x00\u202e"):
        text = shown(name, found)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)


def test_every_format_is_tried_here() -> None:
    """A built-in report that is added has to be tried as well; JSON is the report itself."""
    ours = [name for name in reports.names() if reports.origin(name).startswith("freqrobust ")]
    tracked = {"mlflow", "tensorboard", "wandb"}  # test_trackers.py
    assert set(ours) == {"html", "markdown", "junit", "csv", "latex", "table", "json", "site"} | tracked
