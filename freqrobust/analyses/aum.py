"""Area Under the Margin: which samples are probably mislabelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from freqrobust.analyses._base import Record, only
from freqrobust.core.numbers import Count
from freqrobust.harness.analysis import Analysis
from freqrobust.results.analysis import AnalysisResult, AnalysisTable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.analysis_context import AnalysisContext

#: Flagged samples in the table; the result has all of them.
SHOWN = 20
BATCH_SIZE = 64


class Flagged(Record):
    """A sample that is probably mislabelled."""

    id: int = Field(description="dataset index")
    assigned: int = Field(description="its label")
    aum: float
    distance: float = Field(description="AUM minus the threshold, mean over the runs in which it has its own label")


class AreaUnderMarginResult(AnalysisResult):
    """The flagged samples, the one with the lowest AUM first, and the AUM of every sample."""

    n: int
    epochs: int
    training_accuracy: list[float] = Field(description="of the last epoch of each run, on the training batches")
    thresholds: list[float] = Field(description="of each run")
    flagged: list[Flagged]
    ids: list[int]
    aum: list[float] = Field(description="of each sample, mean over the runs in which it has its own label")
    distances: list[float] = Field(description="of each sample; flagged where it is at most 0")
    indicators: list[float] = Field(description="AUM of the indicator samples minus the threshold of their run")


class AreaUnderMargin(Analysis):
    """Samples with a low Area Under the Margin, which are probably mislabelled.  (Pleiss et al. 2020)

    Networks are trained on the data (for a dataset with splits, give ``--split train``); no model is given. The margin of a
    sample is the logit of its label minus the largest other one; its mean over the epochs is the AUM. In each run, other
    samples are assigned to an additional class, and a percentile of their AUM is the threshold. The learning rate is
    constant, as the AUM is measured before the rate drops: with too many epochs, networks fit the wrong labels too.
    """

    needs_model: ClassVar[bool] = False

    epochs: Count = Field(20, ge=1, description="passes over the data in each run")
    network: str = Field("auto", description="the architecture that is trained, by its name in 'freqrobust list archs'")
    runs: int = Field(2, ge=2, description="trainings, each with other indicator samples")
    lr: float = Field(0.1, gt=0, description="learning rate of SGD with Nesterov momentum 0.9 and batches of 64")
    scores: Literal["logits", "softmax"] = Field("logits", description="margins of the logits or of the softmax")
    percentile: float = Field(99, ge=0, le=100, description="of the AUM of the indicator samples, for the threshold")
    augment: str = Field("flip-crop", description="augmentation of the training images, or none")

    def run(self, model: nn.Module, data: ImageData, context: AnalysisContext) -> AreaUnderMarginResult:
        import numpy as np

        from freqrobust.training.margins import area_under_margin, indicator_sets, judge

        sets = indicator_sets(len(data), data.classes, self.runs, context.seed)
        aums, accuracies = [], []
        for number, chosen in enumerate(sets):
            history, accuracy = self._margins(data, chosen, number, context)
            aums.append(area_under_margin(history))
            accuracies.append(accuracy)
        judged = judge(aums, sets, self.percentile)
        order = [position for position in np.argsort(judged.distance, kind="stable") if judged.flagged[position]]
        ids, labels = data.ids.tolist(), data.labels.tolist()
        share = len(order) / len(data)
        return AreaUnderMarginResult(
            n=len(data),
            epochs=self.epochs,
            training_accuracy=[round(accuracy, 6) for accuracy in accuracies],
            thresholds=_rounded(np.asarray(judged.thresholds)),
            flagged=[
                Flagged(
                    id=ids[p], assigned=labels[p], aum=_rounded(judged.aum)[p], distance=_rounded(judged.distance)[p]
                )
                for p in order
            ],
            ids=ids,
            aum=_rounded(judged.aum),
            distances=_rounded(judged.distance),
            indicators=_rounded(
                np.concatenate([a[c] - t for a, c, t in zip(aums, sets, judged.thresholds, strict=True)])
            ),
            sentence=f"{len(order)} of {len(data)} samples ({share:.1%}) are flagged as mislabelled; the networks classify "
            f"{', '.join(f'{accuracy:.1%}' for accuracy in accuracies)} of the training batches correctly",
        )

    def _margins(
        self, data: ImageData, chosen: np.ndarray[Any, Any], number: int, context: AnalysisContext
    ) -> tuple[list[list[float]], float]:
        """The margins of all samples after each epoch of one run, and the accuracy on the last training batches."""
        from freqrobust.core.numbers import number_text
        from freqrobust.core.training_config import Recipe
        from freqrobust.models.classifier import Classifier
        from freqrobust.models.normalization import training_normalization
        from freqrobust.models.untrained import default_architecture, untrained
        from freqrobust.training.loop import EpochNumbers, fit
        from freqrobust.training.margins import margin_recorder, with_indicators
        from freqrobust.training.plan import plan

        arch = default_architecture(data.shape) if self.network == "auto" else self.network
        relabelled = with_indicators(data, chosen)
        seed = context.seed + number
        network = untrained(arch, relabelled.classes, data.shape[0], seed)
        classifier = Classifier(network, training_normalization(data), "aum", arch, None).to(context.device)
        record = margin_recorder(relabelled, context.device)
        history: list[list[float]] = []
        accuracies: list[float] = []

        def each_epoch(trained: nn.Module, numbers: EpochNumbers) -> None:
            history.append(record(trained)[self.scores])
            accuracies.append(numbers.accuracy)

        sgd = f"sgd:lr={number_text(self.lr)},momentum=0.9,nesterov=true,weight_decay=0.0001"
        recipe = Recipe(
            epochs=self.epochs, batch_size=BATCH_SIZE, augment=[self.augment], optimizer=sgd, schedule="constant"
        )
        fit(
            classifier,
            relabelled,
            plan(recipe),
            device=context.device,
            seed=seed,
            progress=context.batches.progress,
            label=f"run {number + 1} of {self.runs}",
            each_epoch=each_epoch,
        )
        return history, accuracies[-1]

    def tables(self, results: Sequence[AnalysisResult]) -> list[AnalysisTable]:
        tables = []
        for result in only(results, AreaUnderMarginResult):
            rows = [
                [str(one.id), str(one.assigned), f"{one.aum:.2f}", f"{one.distance:.2f}"]
                for one in result.flagged[:SHOWN]
            ]
            more = f", the first {SHOWN} of {len(result.flagged)}" if len(result.flagged) > SHOWN else ""
            tables.append(
                AnalysisTable(
                    title=f"Samples flagged as mislabelled in {result.label}{more}",
                    columns=["id", "label", "AUM", "AUM minus threshold"],
                    rows=rows,
                )
            )
        return tables

    def draw(self, results: Sequence[AnalysisResult]) -> Figure:
        from freqrobust.results.figures import COLOURS, figure

        shown = only(results, AreaUnderMarginResult)
        drawn = figure(2.2 * len(shown))
        for place, result in enumerate(shown):
            axes = drawn.add_subplot(len(shown), 1, place + 1)
            values = [*result.distances, *result.indicators]
            edges = [min(values) + (max(values) - min(values) + 1e-9) * step / 40 for step in range(41)]
            axes.hist(result.distances, edges, density=True, color=COLOURS[0], alpha=0.6, label=f"{result.n} samples")
            axes.hist(
                result.indicators, edges, density=True, color=COLOURS[1], alpha=0.6, label="indicators (wrong labels)"
            )
            axes.axvline(0, color="0.2", linewidth=0.8, linestyle="--", label="threshold")
            axes.set_title(result.label)
            axes.set_xlabel("AUM minus the threshold")
            axes.set_ylabel("density")
            axes.legend()
        return drawn


def _rounded(values: np.ndarray[Any, Any]) -> list[float]:
    """Values rounded to six digits, to keep files small."""
    return [float(f"{value:.6g}") for value in values.tolist()]
