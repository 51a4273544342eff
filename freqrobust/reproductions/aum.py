"""Area Under the Margin: finding mislabelled training samples, and training without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from freqrobust.core.training_config import Recipe
    from freqrobust.data.dataset import ImageData
    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings
    from freqrobust.training.margins import Judgement

#: Optimizer of all trainings.
SGD = "sgd:lr=0.1,momentum=0.9,nesterov=true,weight_decay=0.0001"
#: Shares of the training labels that are replaced.
SHARES = (0.2, 0.4)
RUNS = 2


class AUM(Experiment):
    """The Area Under the Margin finds mislabelled training samples; training without them gives a higher accuracy."""

    source: ClassVar[str] = "Pleiss et al. 2020"

    scores: Literal["logits", "softmax"] = Field(
        "logits", description="the margins that decide what is removed: of the logits, as in the paper, or the softmax"
    )
    percentile: float = Field(99, ge=0, le=100, description="of the indicator samples' AUM, for the threshold")

    def run(self, bench: Bench) -> Findings:
        from dataclasses import replace

        import torch

        from freqrobust.core.errors import SpecError
        from freqrobust.reproductions._mislabelled import Noise, findings
        from freqrobust.training.margins import flipped

        arch = "resnet32" if bench.scale == "paper" else "small_cnn"
        until_drop, training = self.recipes(bench)
        noises = []
        true = bench.train.limit(600, bench.seed) if bench.scale == "digits" else bench.train
        for share in SHARES:
            labels = flipped(true.labels, true.classes, share, bench.seed)
            noisy = replace(true, labels=labels, spec=f"{true.spec}+{share:g} flipped")
            wrong = (labels != true.labels).numpy()
            judged, indicators = self._judged(bench, noisy, arch, until_drop, f"{share:.0%}")
            outcomes = {}
            if judged[self.scores].flagged.all():
                raise SpecError(
                    f"all {len(noisy)} samples are flagged, so that none is left to train on; give a lower percentile "
                    f"than {self.percentile:g}"
                )
            kept = noisy.take((~torch.from_numpy(judged[self.scores].flagged)).nonzero()[:, 0])
            for name, data in (("all samples", noisy), ("without flagged", kept)):
                outcomes[name] = bench.correct(
                    bench.fit(_builder(arch, data), data, training, name=f"aum {share:.0%} {name}").model, bench.test
                )
            noises.append(Noise(share, wrong, judged, indicators, outcomes))
        return findings(noises, self.scores, bench.scale, arch, until_drop, training)

    def recipes(self, bench: Bench) -> tuple[Recipe, Recipe]:
        """How the margins are measured: up to the first drop of the learning rate; and how networks are trained."""
        from freqrobust.core.training_config import Recipe

        augment = [] if bench.scale == "digits" else ["flip-crop"]
        measure, train = bench.pick(digits=(3, 12), cpu=(10, 8), paper=(150, 300))
        schedule = bench.pick(digits="one-cycle", cpu="one-cycle", paper="step")
        return (
            Recipe(epochs=measure, batch_size=64, augment=augment, optimizer=SGD, schedule="constant"),
            Recipe(
                epochs=train,
                batch_size=bench.pick(digits=64, cpu=64, paper=256),
                augment=augment,
                optimizer=SGD,
                schedule=schedule,
            ),
        )

    def _judged(
        self, bench: Bench, noisy: ImageData, arch: str, recipe: Recipe, name: str
    ) -> tuple[dict[str, Judgement], dict[str, list[float]]]:
        """The decision on every sample, and the distances of the indicator samples from the threshold, by scores."""
        from freqrobust.training.margins import (
            area_under_margin,
            indicator_sets,
            judge,
            margin_recorder,
            with_indicators,
        )

        sets = indicator_sets(len(noisy), noisy.classes, RUNS, bench.seed)
        histories = []
        for run, chosen in enumerate(sets):
            data = with_indicators(noisy, chosen)
            fitted = bench.fit(
                _builder(arch, data),
                data,
                recipe,
                name=f"aum margins {name} run {run + 1}",
                watch=margin_recorder(data, bench.device),
                seed=bench.seed + run,
            )
            histories.append(fitted.watched[1:])
        judged, distances = {}, {}
        for scores in ("logits", "softmax"):
            aums = [area_under_margin([epoch[scores] for epoch in history]) for history in histories]
            judged[scores] = judge(aums, sets, self.percentile)
            distances[scores] = [
                float(value - limit)
                for aum, chosen, limit in zip(aums, sets, judged[scores].thresholds, strict=True)
                for value in aum[chosen]
            ]
        return judged, distances


def _builder(arch: str, data: ImageData) -> Callable[[], nn.Module]:
    from freqrobust.models.architectures import ARCHITECTURES

    return lambda: ARCHITECTURES[arch].build(num_classes=data.classes, in_channels=data.shape[0])
