"""The pictures of the misalignment: shares by radius, and a gallery of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from freqrobust.pictures import COLUMN, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from freqrobust.analyses.misalignment import MisalignmentResult

    Part = tuple[float, Callable[[SubFigure | Figure], None]]

#: Cases from bottom to top; light to dark in cividis order, so that they stay apart in grey.
_STACK = [
    ("both", "both right", "#FEE838"),
    ("only_lfc", "only LFC right", "#A59C74"),
    ("only_hfc", "only HFC right", "#575D6D"),
    ("neither", "neither", "#00204D"),
]


def shares(results: Sequence[MisalignmentResult]) -> Part:
    """A part of a figure: stacked shares by radius, a panel a result, with what chance would give for the HFC."""
    columns = min(len(results), 2)
    rows = -(-len(results) // columns)

    def draw(part: SubFigure | Figure) -> None:
        axes = part.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, one in zip(axes.flat, results, strict=False):
            places = range(len(one.table))
            below = [0.0] * len(one.table)
            for key, label, colour in _STACK:
                values = [100 * getattr(row, key).count / one.n for row in one.table]
                axis.bar(places, values, 0.85, bottom=below, color=colour, label=label, linewidth=0)
                below = [a + b for a, b in zip(below, values, strict=True)]
            chance = [100 * row.hfc.by_chance / one.n for row in one.table]
            hfc = [100 * row.hfc.count / one.n for row in one.table]
            axis.plot(places, hfc, "-", marker="o", color="#D55E00", label="HFC right, in all", linewidth=0.9)
            axis.plot(places, chance, ":", color="#D55E00", label="HFC right, by chance", linewidth=0.9)
            axis.set_xticks(list(places), [f"{row.radius:g}" for row in one.table])
            axis.set_title(wrapped(one.label, 44 if columns == 1 else 20))
            axis.set_ylim(0, 100)
        for axis in axes.flat[len(results) :]:
            axis.set_visible(False)
        for axis in axes[:, 0]:
            axis.set_ylabel("share of samples (%)")
        part.supxlabel("radius (cycles per image)", fontsize=7)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        part.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=6)

    return 1.75 * rows + 0.55, draw


def gallery(one: MisalignmentResult) -> Part:
    """A part of a figure: original, LFC and HFC of samples, each with its prediction and confidence."""
    side = COLUMN / 3.6
    titles = ["original", f"LFC, radius {one.gallery_radius:g}", f"HFC, radius {one.gallery_radius:g}"]

    def draw(part: SubFigure | Figure) -> None:
        part.suptitle(
            wrapped(f"{one.label}: right in HFC, wrong in LFC ({len(one.gallery)} of {one.gallery_candidates})", 60),
            fontsize=7,
        )
        axes = part.subplots(len(one.gallery), 3, squeeze=False)
        for row, example, images in zip(axes, one.gallery, one._images, strict=True):
            for number, axis in enumerate(row):
                shown = images[number] + (0.5 if number == 2 else 0.0)  # an HFC has mean 0
                axis.imshow(shown.clip(0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
                axis.set_xticks([])
                axis.set_yticks([])
                axis.spines[:].set_visible(False)
                right = example.predictions[number] == example.label
                verdict = f"{example.predictions[number]} ({example.confidences[number]:.0%})"
                axis.set_xlabel(("right: " if right else "wrong: ") + verdict, labelpad=2, fontsize=6)
            row[0].set_ylabel(f"sample {example.id}\nlabel {example.label}", fontsize=6)
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title)

    return (side + 0.16) * len(one.gallery) + 0.45, draw
