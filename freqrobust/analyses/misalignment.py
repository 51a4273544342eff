"""Predictions on low and high frequency components compared with those on the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from freqrobust.core.numbers import Number
from freqrobust.harness.analysis import Analysis
from freqrobust.results.analysis import AnalysisResult, AnalysisTable
from freqrobust.results.figures import COLUMN, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from freqrobust.analyses._components import Components
    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext
if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    Part = tuple[float, Callable[[SubFigure | Figure], None]]

#: Radii of the table, for a side of 32 pixels.
RADII = (0, 2, 4, 5, 6, 8, 12, 16)
#: Radius of the gallery, for a side of 32 pixels.
GALLERY_RADIUS = 12
_CASES = ("both", "only LFC", "only HFC", "neither", "LFC", "HFC")


class Share(BaseModel):
    """Samples in one case, and what there would be if predictions and labels were independent."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    count: int
    by_chance: float = Field(description="expected count")


class RadiusRow(BaseModel):
    """All samples at one radius, by what is predicted right."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    radius: float
    both: Share
    only_lfc: Share
    only_hfc: Share
    neither: Share
    lfc: Share
    hfc: Share
    lfc_agreement: int = Field(description="LFC predicted as the clean image is")
    hfc_agreement: int = Field(description="HFC predicted as the clean image is")


class Example(BaseModel):
    """A sample that is right clean and in HFC, and wrong in LFC."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

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
    gallery_candidates: int = Field(description="samples right clean and in HFC and wrong in LFC at that radius")
    gallery: list[Example]
    _images: list[Any] = PrivateAttr(default_factory=list)  # (original, LFC, HFC) of each; not in the JSON


class Misalignment(Analysis):
    """How many samples low (LFC) and high frequencies (HFC) alone are enough for.  (Wang et al., CVPR 2020, fig. 1)

    Each count comes with what chance would give, and each prediction with its agreement with the clean one: an HFC
    accuracy of 10 % on ten classes is nothing. The gallery shows samples that are right in HFC, where a person sees
    next to nothing, and wrong in LFC, where a person sees the image.
    """

    radii: list[Annotated[float, Field(ge=0)]] = Field(
        [], description="cycles per image; default 0, 2, 4, 5, 6, 8, 12, 16 times side / 32"
    )
    shape: Literal["circle", "square"] = Field("circle", description="how the distance from DC is measured")
    gallery: int = Field(4, ge=0, le=32, description="samples to show; 0 for none")
    gallery_radius: Number | None = Field(None, gt=0, description="their radius; default 12 times side / 32")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> MisalignmentResult:
        from freqrobust.analyses._components import predict_components, scaled
        from freqrobust.harness.analysis_context import split_radius

        radii = self.radii or scaled(RADII, data.shape)
        shown = self.gallery_radius or scaled([GALLERY_RADIUS], data.shape)[0]
        split = split_radius(data.shape)
        every = list(dict.fromkeys([*radii, shown, split]))
        found = predict_components(context, every, self.shape)
        rows = {radius: _row(found, number) for number, radius in enumerate(every)}
        reading, sentence = _read(found, every.index(split))
        result = MisalignmentResult(
            n=len(data),
            clean_correct=int((found.clean == found.labels).sum()),
            table=[rows[radius] for radius in dict.fromkeys(radii)],
            gallery_radius=shown,
            gallery_candidates=0,
            gallery=[],
            reading=reading,
            sentence=sentence,
        )
        self._show(result, context, found, every.index(shown))
        return result

    def _show(self, result: MisalignmentResult, context: AnalysisContext, found: Components, row: int) -> None:
        """Fill the gallery with the first samples that belong there."""
        import numpy as np
        import torch

        from freqrobust.numerics.frequency import high_pass, low_pass

        right = found.labels
        wanted = (found.clean == right) & (found.high[row] == right) & (found.low[row] != right)
        result.gallery_candidates = int(wanted.sum())
        radius = result.gallery_radius
        for position in np.flatnonzero(wanted)[: self.gallery].tolist():
            images, labels, ids = context.data.batch(torch.tensor([position]), context.device)
            parts = [images, low_pass(images, radius, self.shape), high_pass(images, radius, self.shape)]
            classes = [int(found.clean[position]), int(found.low[row, position]), int(found.high[row, position])]
            confidences = [
                float(torch.softmax(context.logits(part, ids)[1][0], dim=0)[c]) if c >= 0 else 0.0
                for part, c in zip(parts, classes, strict=True)
            ]
            result.gallery.append(
                Example(id=int(ids[0]), label=int(labels[0]), predictions=classes, confidences=confidences)
            )
            result._images.append([part[0].permute(1, 2, 0).cpu().numpy() for part in parts])

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        columns = ["radius", *_CASES, "LFC as clean", "HFC as clean"]
        tables = []
        for one in results:
            assert isinstance(one, MisalignmentResult)
            rows = []
            for row in one.table:
                shares = [row.both, row.only_lfc, row.only_hfc, row.neither, row.lfc, row.hfc]
                agreements = [f"{100 * count / one.n:.0f}%" for count in (row.lfc_agreement, row.hfc_agreement)]
                rows.append([f"{row.radius:g}", *(f"{s.count} ({s.by_chance:.0f})" for s in shares), *agreements])
            title = f"{one.label}: {one.clean_correct} of {one.n} right; right in (by chance)"
            tables.append(AnalysisTable(title=title, columns=columns, rows=rows))
        return tables

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.analyses.misalignment import gallery, shares
        from freqrobust.results.figures import stacked

        found = [one for one in results if isinstance(one, MisalignmentResult)]
        return stacked(shares(found), *(gallery(one) for one in found if one.gallery))


def _row(found: Components, number: int) -> RadiusRow:
    from freqrobust.analyses._components import chance_joint

    n, labels = len(found.labels), found.labels
    low, high = found.low[number], found.high[number]
    chance = chance_joint(low, high, labels)
    lfc, hfc = low == labels, high == labels

    def share(which: Any, expected: float) -> Share:
        return Share(count=int(which.sum()), by_chance=n * expected)

    return RadiusRow(
        radius=found.radii[number],
        both=share(lfc & hfc, chance[True, True]),
        only_lfc=share(lfc & ~hfc, chance[True, False]),
        only_hfc=share(~lfc & hfc, chance[False, True]),
        neither=share(~lfc & ~hfc, chance[False, False]),
        lfc=share(lfc, chance[True, True] + chance[True, False]),
        hfc=share(hfc, chance[True, True] + chance[False, True]),
        lfc_agreement=int((low == found.clean).sum()),
        hfc_agreement=int((high == found.clean).sum()),
    )


def _read(found: Components, number: int) -> tuple[str, str]:
    """Which part alone is enough for more than chance, by the lower end of its 95 % interval."""
    from freqrobust.numerics.statistics import wilson

    row, n = _row(found, number), len(found.labels)
    above = [wilson(part.count, n)[0] > part.by_chance / n for part in (row.lfc, row.hfc)]
    reading = {(True, True): "both", (True, False): "low", (False, True): "high"}.get((above[0], above[1]), "neither")
    sentence = (
        f"at radius {row.radius:g} right in {row.lfc.count / n:.1%} by LFC alone (chance {row.lfc.by_chance / n:.1%}), "
        f"in {row.hfc.count / n:.1%} by HFC alone (chance {row.hfc.by_chance / n:.1%})"
    )
    return reading, sentence


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
