"""Pictures for papers: one column wide (3.25 inches), colour-blind-safe, drawn with matplotlib (the extra ``plots``).

All pictures are drawn in this style and saved by :func:`file_of`: PNG, SVG or PDF, equal figures as equal files. Only the curves
of the HTML report are drawn without matplotlib (``reports/curves.py``), since they follow the theme and show values on hover.
"""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from freqrobust.core.errors import SpecError
from freqrobust.results.analysis import PictureRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

#: Width of a paper's column, in inches.
COLUMN = 3.25
DPI = 300
#: The formats of picture files; those of a :class:`PictureRecord` can be shown by a browser.
PictureFormat = Literal["png", "svg", "pdf"]
FORMATS: tuple[PictureFormat, ...] = ("png", "svg", "pdf")
#: What a file would contain besides the figure: dates and versions, so that no two files would be equal.
_WITHOUT: dict[PictureFormat, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
#: Colours that people who see few colours tell apart (Okabe and Ito 2008), dark enough for thin lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
_STYLE: dict[str, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "nearest",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "svg.hashsalt": "freqrobust",  # the same picture, the same file
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # text that can be searched and that journals accept
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def require() -> None:
    """Raise early where pictures cannot be drawn.

    Raises:
        SpecError: matplotlib is not installed.
    """
    if not can_draw():
        raise SpecError("pictures need the extra 'plots': pip install 'freqrobust[plots]'")


def picture_format(path: str | Path) -> PictureFormat:
    """The format of a picture file, by the ending of its name.

    Raises:
        SpecError: a format that is not written here.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise SpecError(f"a picture should end in .png, .svg or .pdf, but got {str(path)!r}")
    return suffix


@contextmanager
def styled() -> Iterator[None]:
    """Figures made inside are in the house style."""
    require()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, _STYLE))
        yield


def figure(height: float, width: float = COLUMN) -> Figure:
    """An empty figure, in inches; it belongs to no window and to no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def encode(drawn: Figure, format: Literal["png", "svg"], alt: str) -> PictureRecord:
    """A figure as a file inside of a report. Call it within :func:`styled`."""
    return PictureRecord(format=format, base64=base64.b64encode(file_of(drawn, format)).decode(), alt=alt)


def file_of(drawn: Figure, format: PictureFormat) -> bytes:
    """The content of a picture file: equal figures give equal files. Call it within :func:`styled`."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=format, dpi=DPI, metadata=_WITHOUT[format])
    return buffer.getvalue()


def decode(picture: PictureRecord) -> bytes:
    """The picture's file."""
    return base64.b64decode(picture.base64)


def frequency_map(
    axes: Axes,
    rows: Sequence[Sequence[float]],
    low: float,
    high: float,
    *,
    logarithmic: bool = False,
    colours: str = "viridis",
    rings: Sequence[float] = (),
) -> AxesImage:
    """Draw ``H x W`` values with the zero frequency at ``(H // 2, W // 2)`` and both axes in cycles per image.

    Args:
        axes: where.
        rows: the values.
        low: the value of the darkest colour.
        high: the value of the brightest colour.
        logarithmic: colours follow the logarithm.
        colours: a colour map.
        rings: radii to draw circles at.
    """
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.patches import Circle
    from matplotlib.ticker import MaxNLocator

    values = np.asarray(rows, dtype=float)
    height, width = values.shape
    left, top = -(width // 2) - 0.5, -(height // 2) - 0.5
    scale = LogNorm(low, high, clip=True) if logarithmic else Normalize(low, high)
    image = axes.imshow(
        values, cmap=colours, norm=scale, extent=(left, left + width, top + height, top), interpolation="nearest"
    )
    for radius in rings:
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor="white", linewidth=0.6, linestyle="--"))
    axes.spines[:].set_visible(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return image


@dataclass(frozen=True)
class Maps:
    """Maps of equal size on one colour scale, side by side.

    Attributes:
        panels: title and ``H x W`` values of each, the zero frequency at ``(H // 2, W // 2)``.
        label: what the colours mean, with the unit.
        low: the value of the darkest colour.
        high: the value of the brightest colour.
        percent: values are shares.
        logarithmic: colours follow the logarithm.
        rings: radii to draw circles at.
        columns: panels side by side, at most.
    """

    panels: Sequence[tuple[str, Sequence[Sequence[float]]]]
    label: str
    low: float
    high: float
    percent: bool = False
    logarithmic: bool = False
    rings: Sequence[float] = ()
    columns: int = 2

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        columns = min(len(self.panels), self.columns)
        return -(-len(self.panels) // columns), columns

    @property
    def height(self) -> float:
        """Inches that they take in a column's width."""
        rows, columns = self.grid
        values = self.panels[0][1]
        side = (COLUMN - 0.95 - 0.1 * columns) / columns
        titles = max(self._title(title).count("\n") for title, _ in self.panels) + 1
        return rows * (side * min(len(values) / len(values[0]), 1.6) + 0.1 + 0.11 * titles) + 0.3

    def _title(self, title: str) -> str:
        return wrapped(title, {1: 44, 2: 20}.get(self.grid[1], 11))

    def draw(self, part: SubFigure | Figure) -> None:
        """Draw into a part of a figure."""
        rows, columns = self.grid
        axes = part.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        image: AxesImage | None = None
        for axis, (title, values) in zip(axes.flat, self.panels, strict=False):
            image = frequency_map(axis, values, self.low, self.high, logarithmic=self.logarithmic, rings=self.rings)
            axis.set_title(self._title(title), pad=3, fontsize=7 if columns < 3 else 6)
            if columns > 2:
                axis.locator_params(nbins=3)
        for axis in axes.flat[len(self.panels) :]:
            axis.set_visible(False)
        for column in range(columns):
            lowest = axes[rows - 1 if axes[rows - 1, column].get_visible() else rows - 2, column]
            lowest.tick_params(labelbottom=True)
        middle = axes[(rows - 1) // 2, 0] if rows % 2 else None
        if middle is not None and rows == 1:
            middle.set_ylabel("cycles per image")
        else:
            part.supylabel("cycles per image", fontsize=7)
        part.supxlabel("cycles per image", fontsize=7)
        assert image is not None
        bar = part.colorbar(image, ax=list(axes.flat), aspect=14 * rows, pad=0.03)
        bar.set_label(self.label)
        if self.percent:
            from matplotlib.ticker import PercentFormatter

            bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))


@dataclass(frozen=True)
class Line:
    """One curve: a label, its points, and a band around it where there is one."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None


def draw_lines(axes: Axes, lines: Sequence[Line], markers: bool = False) -> None:
    """Curves that differ in colour, dashes and, on request, markers, with a legend."""
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            line.x,
            line.y,
            LINES[number % len(LINES)],
            color=colour,
            marker=MARKERS[number % len(MARKERS)] if markers else None,
            label=wrapped(line.label, 40),
        )
        if line.band is not None:
            axes.fill_between(line.x, line.band[0], line.band[1], color=colour, alpha=0.15, linewidth=0)
    axes.legend()


def profiles(
    lines: Sequence[tuple[str, Sequence[float]]], label: str, radius: float, *, logarithmic: bool = False
) -> tuple[float, Callable[[SubFigure | Figure], None]]:
    """A part of a figure: values by distance from DC, with a mark where the high frequencies begin."""

    def draw(part: SubFigure | Figure) -> None:
        axes = part.subplots()
        draw_lines(axes, [Line(title, range(len(values)), values) for title, values in lines])
        axes.axvline(radius, color="0.5", linewidth=0.6, linestyle=":")
        axes.set_xlabel("distance from DC (cycles per image)")
        axes.set_ylabel(label)
        if logarithmic and any(value > 0 for _, values in lines for value in values):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)

    return 1.7, draw


def stacked(*parts: tuple[float, Callable[[SubFigure | Figure], None]]) -> Figure:
    """A figure of parts one below the other, each with its height in inches."""
    drawn = figure(sum(height for height, _ in parts))
    if len(parts) == 1:
        parts[0][1](drawn)
        return drawn
    below = drawn.subfigures(len(parts), 1, height_ratios=[height for height, _ in parts], squeeze=False)
    for (_, draw), part in zip(parts, below[:, 0], strict=True):
        draw(part)
    return drawn


def wrapped(text: str, width: int = 26) -> str:
    """A title on several lines, broken after the marks that specs consist of."""
    pieces, line = [], ""
    for word in _words(text):
        if line and len(line) + len(word) > width:
            pieces.append(line.rstrip())
            line = ""
        line += word
    return "\n".join([*pieces, line.rstrip()])


def _words(text: str) -> list[str]:
    words, start = [], 0
    for i, char in enumerate(text):
        if char in " ,:=+_-/":
            words.append(text[start : i + 1])
            start = i + 1
    return [*words, text[start:]]
