"""An analysis: how sure a model is of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from freqrobust import Analysis, AnalysisContext, AnalysisResult, AnalysisTable, ImageData


class MarginResult(AnalysisResult):
    """Means over the samples."""

    margin: float


class Margins(Analysis):
    """Mean difference of the label's logit and the largest other one."""

    least: float = Field(0.0, description="margins below this count as this")

    def run(self, model: Any, data: ImageData, context: AnalysisContext) -> MarginResult:
        total: list[float] = []

        def work(images: Any, labels: Any, ids: Any, positions: Any) -> None:
            _, logits = context.logits(images, ids)
            own = logits.gather(1, labels[:, None])[:, 0]
            others = logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
            total.extend((own - others).clamp_min(self.least).tolist())

        context.each_batch("margins", work)
        margin = sum(total) / len(total)
        return MarginResult(margin=margin, sentence=f"mean margin {margin:.3g}")

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        rows = [[one.label, f"{one.margin:.3g}"] for one in results if isinstance(one, MarginResult)]
        return [AnalysisTable(title="Margins", columns=["", "mean"], rows=rows)]

    def draw(self, results: Sequence[AnalysisResult]) -> Any:
        from freqrobust.results.figures import figure

        drawn = figure(1.5)
        shown = [one for one in results if isinstance(one, MarginResult)]
        drawn.subplots().barh([one.label for one in shown], [one.margin for one in shown])
        return drawn
