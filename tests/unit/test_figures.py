"""The one place that saves pictures: equal figures are equal files, whatever the user's own settings are."""

from __future__ import annotations

from pathlib import Path

import pytest

from freqrobust.core.errors import SpecError
from freqrobust.results.figures import DPI, FORMATS, Line, draw_lines, figure, file_of, picture_format, styled

matplotlib = pytest.importorskip("matplotlib", reason="the extra 'plots' is not installed")


def content(format: str) -> bytes:
    with styled():
        drawn = figure(1.5)
        draw_lines(
            drawn.add_subplot(), [Line("one", [0, 1], [0.2, 0.8]), Line("other", [0, 1], [0.8, 0.2])], markers=True
        )
        return file_of(drawn, format)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", FORMATS)
def test_equal_figures_are_equal_files(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = content(format)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)  # a user's own style does not matter
    assert content(format) == first
    assert matplotlib.rcParams["font.size"] == 30
    for word in (b"Date", b"date>", b"matplotlib.org", b"Software"):
        assert word not in first


def test_a_file_is_in_the_size_of_a_column() -> None:
    from io import BytesIO

    from PIL import Image

    assert Image.open(BytesIO(content("png"))).size == (round(3.25 * DPI), round(1.5 * DPI))


def test_the_format_is_that_of_the_name() -> None:
    assert [picture_format(Path(name)) for name in ("a.png", "a.SVG", "b.c.pdf")] == ["png", "svg", "pdf"]
    with pytest.raises(SpecError, match=r"should end in \.png, \.svg or \.pdf, but got 'a\.eps'"):
        picture_format("a.eps")


def test_pictures_are_saved_in_one_place() -> None:
    """No other module of the package saves a figure, or sets a style."""
    root = Path(__file__).parents[2]
    code = [
        path
        for part in ("freqrobust", "attacks", "defenses", "reports", "benchmarks")
        for path in (root / part).rglob("*.py")
    ]
    saving = {
        path.resolve().relative_to(root).as_posix() for path in code if "savefig(" in path.read_text(encoding="utf-8")
    }
    styling = {
        path.resolve().relative_to(root).as_posix() for path in code if "rcParams" in path.read_text(encoding="utf-8")
    }
    assert saving == styling == {"freqrobust/results/figures.py"}
