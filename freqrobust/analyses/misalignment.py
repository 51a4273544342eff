"""Predictions on low and high frequency components compared with those on the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from freqrobust.analyses._base import ComponentAnalysis, Record, only, reading
from freqrobust.core.numbers import Number
from freqrobust.results.analysis import AnalysisResult, AnalysisTable
from freqrobust.results.figures import COLUMN, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure
    from torch import nn

    from freqrobust.analyses._components import Components
    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext, Reading

    Part = tuple[float, Callable[[SubFigure | Figure], None]]

#: Radii of the table, for a side of 32 pixels.
RADII = (0, 2, 4, 5, 6, 8, 12, 16)
#: Radius of the gallery, for a side of 32 pixels.
GALLERY_RADIUS = 12
_CASES = ("both", "only LFC", "only HFC", "neither", "LFC", "HFC")


class Share(Record):
    """Number of samples in one case, and the expected number if predictions and labels were independent."""

    count: int
    by_chance: float = Field(description="expected number by chance")


class RadiusRow(Record):
    """All samples at one radius, by which components are predicted correctly."""

    radius: float
    both: Share
    only_lfc: Share
    only_hfc: Share
    neither: Share
    lfc: Share
    hfc: Share
    lfc_agreement: int = Field(description="samples whose LFC gets the same prediction as the image")
    hfc_agreement: int = Field(description="samples whose HFC gets the same prediction as the image")


class Example(Record):
    """A sample that is predicted correctly from the image and its HFC, and misclassified from its LFC."""

    id: int
    label: int
    predictions: list[int] = Field(description="clean, LFC, HFC")
    confidences: list[float] = Field(description="softmax of the predicted class: clean, LFC, HFC")


class MisalignmentResult(AnalysisResult):
    """Counts of samples."""

    n: int
    clean_correct: int
    table: list[RadiusRow]
    gallery_radius: float
    gallery_candidates: int = Field(0, description="samples that meet the condition of the gallery at that radius")
    gallery: list[Example] = []
    _images: list[Any] = PrivateAttr(default_factory=list)  # (original, LFC, HFC) of each; not in the JSON


class Misalignment(ComponentAnalysis):
    """Samples predicted correctly from low (LFC) or high frequencies (HFC) alone.  (Wang et al., CVPR 2020, fig. 1)

    Each count comes with the count expected by chance, as an HFC accuracy of 10 % on ten classes is at chance, and
    with the agreement with the clean predictions. The gallery shows samples that are predicted correctly from their
    HFC, in which people recognise little, and misclassified from their LFC, in which people recognise the object.
    """

    gallery: int = Field(4, ge=0, le=32, description="number of samples to show")
    gallery_radius: Number | None = Field(None, gt=0, description="radius of the gallery; default 12 times side / 32")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> MisalignmentResult:
        from freqrobust.analyses._components import predict_components, scaled
        from freqrobust.harness.analysis_context import split_radius

        radii = self.radii or scaled(RADII, data.shape)
        gallery_radius = self.gallery_radius or scaled([GALLERY_RADIUS], data.shape)[0]
        split = split_radius(data.shape)
        measured = list(dict.fromkeys([*radii, gallery_radius, split]))
        components = predict_components(context, measured, self.shape)
        rows = {radius: _row(components, number) for number, radius in enumerate(measured)}
        depends_on, sentence = _read(rows[split], len(data))
        result = MisalignmentResult(
            n=len(data),
            clean_correct=int((components.clean == components.labels).sum()),
            table=[rows[radius] for radius in dict.fromkeys(radii)],
            gallery_radius=gallery_radius,
            reading=depends_on,
            sentence=sentence,
        )
        self._fill_gallery(result, context, components, measured.index(gallery_radius))
        return result

    def _fill_gallery(
        self, result: MisalignmentResult, context: AnalysisContext, components: Components, row: int
    ) -> None:
        """Fill the gallery with the first samples that meet its condition."""
        import numpy as np
        import torch

        from freqrobust.numerics.frequency import high_pass, low_pass

        clean, low, high, labels = components.clean, components.low[row], components.high[row], components.labels
        candidates = (clean == labels) & (high == labels) & (low != labels)
        result.gallery_candidates = int(candidates.sum())
        radius = result.gallery_radius
        for position in np.flatnonzero(candidates)[: self.gallery].tolist():
            images, label, ids = context.data.batch(torch.tensor([position]), context.device)
            parts = [images, low_pass(images, radius, self.shape), high_pass(images, radius, self.shape)]
            classes = [int(predictions[position]) for predictions in (clean, low, high)]
            confidences = [
                float(torch.softmax(context.logits(part, ids)[1][0], dim=0)[c]) if c >= 0 else 0.0
                for part, c in zip(parts, classes, strict=True)
            ]
            result.gallery.append(
                Example(id=int(ids[0]), label=int(label[0]), predictions=classes, confidences=confidences)
            )
            result._images.append([part[0].permute(1, 2, 0).cpu().numpy() for part in parts])

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        columns = ["radius", *_CASES, "LFC agreement", "HFC agreement"]
        tables = []
        for result in only(results, MisalignmentResult):
            rows = []
            for row in result.table:
                shares = [row.both, row.only_lfc, row.only_hfc, row.neither, row.lfc, row.hfc]
                agreements = [f"{100 * count / result.n:.0f}%" for count in (row.lfc_agreement, row.hfc_agreement)]
                rows.append([f"{row.radius:g}", *(f"{s.count} ({s.by_chance:.0f})" for s in shares), *agreements])
            title = f"{result.label}: {result.clean_correct} of {result.n} correct; samples correct from (by chance)"
            tables.append(AnalysisTable(title=title, columns=columns, rows=rows))
        return tables

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import stacked

        shown = only(results, MisalignmentResult)
        return stacked(shares(shown), *(gallery(result) for result in shown if result.gallery))


def _row(components: Components, number: int) -> RadiusRow:
    from freqrobust.analyses._components import chance_joint

    n, labels = len(components.labels), components.labels
    low, high = components.low[number], components.high[number]
    chance = chance_joint(low, high, labels)
    lfc, hfc = low == labels, high == labels

    def share(samples: Any, expected: float) -> Share:
        return Share(count=int(samples.sum()), by_chance=n * expected)

    return RadiusRow(
        radius=components.radii[number],
        both=share(lfc & hfc, chance[True, True]),
        only_lfc=share(lfc & ~hfc, chance[True, False]),
        only_hfc=share(~lfc & hfc, chance[False, True]),
        neither=share(~lfc & ~hfc, chance[False, False]),
        lfc=share(lfc, chance[True, True] + chance[True, False]),
        hfc=share(hfc, chance[True, True] + chance[False, True]),
        lfc_agreement=int((low == components.clean).sum()),
        hfc_agreement=int((high == components.clean).sum()),
    )


def _read(row: RadiusRow, n: int) -> tuple[Reading, str]:
    """Which components have an accuracy above chance, by the lower end of the 95 % interval."""
    from freqrobust.numerics.statistics import wilson

    above = [wilson(part.count, n)[0] > part.by_chance / n for part in (row.lfc, row.hfc)]
    sentence = (
        f"at radius {row.radius:g}, accuracy {row.lfc.count / n:.1%} on LFC (chance {row.lfc.by_chance / n:.1%}) "
        f"and {row.hfc.count / n:.1%} on HFC (chance {row.hfc.by_chance / n:.1%})"
    )
    return reading(*above), sentence


#: Cases from bottom to top; light to dark in cividis order, so that they differ in greyscale.
_STACK = [
    ("both", "both correct", "#FEE838"),
    ("only_lfc", "only LFC correct", "#A59C74"),
    ("only_hfc", "only HFC correct", "#575D6D"),
    ("neither", "neither", "#00204D"),
]


def shares(results: Sequence[MisalignmentResult]) -> Part:
    """A part of a figure: stacked shares by radius, one panel per result, with the HFC accuracy by chance."""
    columns = min(len(results), 2)
    rows = -(-len(results) // columns)

    def draw(part: SubFigure | Figure) -> None:
        axes = part.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, result in zip(axes.flat, results, strict=False):
            places = range(len(result.table))
            below = [0.0] * len(result.table)
            for key, label, colour in _STACK:
                values = [100 * getattr(row, key).count / result.n for row in result.table]
                axis.bar(places, values, 0.85, bottom=below, color=colour, label=label, linewidth=0)
                below = [a + b for a, b in zip(below, values, strict=True)]
            chance = [100 * row.hfc.by_chance / result.n for row in result.table]
            hfc = [100 * row.hfc.count / result.n for row in result.table]
            axis.plot(places, hfc, "-", marker="o", color="#D55E00", label="HFC correct (total)", linewidth=0.9)
            axis.plot(places, chance, ":", color="#D55E00", label="HFC correct by chance", linewidth=0.9)
            axis.set_xticks(list(places), [f"{row.radius:g}" for row in result.table])
            axis.set_title(wrapped(result.label, 44 if columns == 1 else 20))
            axis.set_ylim(0, 100)
        for axis in axes.flat[len(results) :]:
            axis.set_visible(False)
        for axis in axes[:, 0]:
            axis.set_ylabel("share of samples (%)")
        part.supxlabel("radius (cycles per image)", fontsize=7)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        part.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=6)

    return 1.75 * rows + 0.55, draw


def gallery(result: MisalignmentResult) -> Part:
    """A part of a figure: samples, their LFC and their HFC, each with its prediction and confidence."""
    side = COLUMN / 3.6
    titles = ["original", f"LFC, radius {result.gallery_radius:g}", f"HFC, radius {result.gallery_radius:g}"]

    def draw(part: SubFigure | Figure) -> None:
        count = f"{len(result.gallery)} of {result.gallery_candidates}"
        part.suptitle(wrapped(f"{result.label}: HFC correct, LFC misclassified ({count})", 60), fontsize=7)
        axes = part.subplots(len(result.gallery), 3, squeeze=False)
        for row, example, images in zip(axes, result.gallery, result._images, strict=True):
            for number, axis in enumerate(row):
                shown = images[number] + (0.5 if number == 2 else 0.0)  # an HFC has mean 0
                axis.imshow(shown.clip(0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
                axis.set_xticks([])
                axis.set_yticks([])
                axis.spines[:].set_visible(False)
                correct = "correct" if example.predictions[number] == example.label else "wrong"
                prediction = f"{example.predictions[number]} ({example.confidences[number]:.0%})"
                axis.set_xlabel(f"{correct}: {prediction}", labelpad=2, fontsize=6)
            row[0].set_ylabel(f"sample {example.id}\nlabel {example.label}", fontsize=6)
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title)

    return (side + 0.16) * len(result.gallery) + 0.45, draw
