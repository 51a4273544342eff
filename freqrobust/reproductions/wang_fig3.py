"""Natural and shuffled labels: accuracy on LFC copies of the training images by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.reproductions._conventions import WangExperiment

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench, Fitted
    from freqrobust.reproductions._wang import Outcomes
    from freqrobust.results.findings import Findings, Trend

#: Published difference of the accuracies on LFC images at the beginning, natural minus shuffled labels.
PUBLISHED_START = 0.40
#: Shuffled labels are trained for so many times the epochs of natural ones.
LONGER = 3


class WangFig3(WangExperiment):
    """Natural labels are learned from low frequencies first; shuffled labels slowly, and from all frequencies alike."""

    source: ClassVar[str] = "Wang et al. 2020, fig. 3"

    def run(self, bench: Bench) -> Findings:
        import numpy as np

        from freqrobust.reproductions import _wang
        from freqrobust.results.findings import Findings, Measured

        used = _wang.recipe(bench)
        natural, shuffled = self._train(bench, "true"), self._train(bench, "shuffled")
        curves = [
            _wang.curve(f"{labels} labels", label, _wang.history(fitted, name))
            for labels, fitted in (("natural", natural), ("shuffled", shuffled))
            for label, name in (("training images", "images"), *((f"LFC r={r}", f"r={r}") for r in _wang.RADII))
        ]
        trends = self._trends(natural, shuffled)
        first = next(trend for trend in trends if "first epoch" in trend.statement)
        start = Measured(
            name="accuracy on LFC images after the first epoch, natural minus shuffled labels",
            value=first.estimate,
            ci95=first.ci95,
            published=PUBLISHED_START,
            unit="%",
        )
        fits = [
            Measured(
                name=f"accuracy on the training images at the end, {name} labels",
                value=float(np.mean(_wang.history(fitted, "images")[-1])),
                unit="%",
            )
            for name, fitted in (("natural", natural), ("shuffled", shuffled))
        ]
        notes = _wang.notes(bench, self)
        if len(trends) < 5:
            notes.append("A network did not reach 50 % on its training images, so that this point is not compared.")
        settings = _wang.settings(bench, self, used)
        settings["shuffled labels"] = f"a permutation of the labels, {LONGER * used.epochs} epochs"
        return Findings(measured=[start, *fits], trends=trends, curves=curves, settings=settings, notes=notes)

    def _train(self, bench: Bench, labels: str) -> Fitted:
        """The network, and its accuracies on the same images whatever the labels are."""
        import torch

        from freqrobust.reproductions import _wang
        from freqrobust.reproductions._networks import classifier

        images = _wang.labelled(bench, labels)
        same = torch.isin(images.ids, _wang.watched_training_images(bench).ids)  # not stratified by the shuffled labels
        watched = images.take(same.nonzero()[:, 0])
        used = _wang.recipe(bench)
        if labels == "shuffled":
            used = used.model_copy(update={"epochs": LONGER * used.epochs})
        views = [_wang.View("images", watched, None, self.bn)]
        for radius in _wang.RADII:
            spec = _wang.component(bench, "lfc", radius, self.rescale)
            views.append(_wang.View(f"r={radius}", watched, spec, self.bn))
        return bench.fit(
            classifier(bench, arch=self.arch),
            images,
            used,
            name=f"labels {labels}, {len(watched)} images, rescale={self.rescale}, bn={self.bn}",
            normalize=False,
            watch=_wang.watcher(bench, views),
        )

    def _trends(self, natural: Fitted, shuffled: Fitted) -> list[Trend]:
        import numpy as np

        from freqrobust.reproductions import _wang

        names = ["images", *(f"r={radius}" for radius in _wang.RADII)]
        nat = {name: _wang.history(natural, name).astype(float) for name in names}
        shuf = {name: _wang.history(shuffled, name).astype(float) for name in names}
        epochs = len(nat["images"]) - 1
        same = slice(1, epochs + 1)
        low, high = f"r={_wang.RADII[0]}", f"r={_wang.RADII[-1]}"
        start = np.mean([nat[name][1] - shuf[name][1] for name in names[1:]], axis=0)
        slower = nat["images"][same].mean(axis=0) - shuf["images"][same].mean(axis=0)
        late = (nat[high][-1] - nat[high][1]) - (nat[low][-1] - nat[low][1])
        spread = (nat[high] - nat[low])[same].mean(axis=0) - (shuf[high] - shuf[low])[same].mean(axis=0)
        judged = _wang.mean_over_samples
        trends = [
            judged(
                "After the first epoch, LFC images are classified correctly more often with natural labels.",
                start,
                "difference of the accuracies on LFC training images, mean over r",
            ),
            judged(
                "Shuffled labels are learned more slowly.",
                slower,
                f"difference of the accuracies on training images, mean over epochs 1 to {epochs}",
            ),
            judged(
                f"With natural labels low frequencies are learned first: after the first epoch the accuracy at {high} rises "
                f"more than at {low}.",
                late,
                "difference of the rises of the accuracies on LFC training images",
            ),
            judged(
                f"With shuffled labels the accuracies at {low} and {high} are closer together than with natural ones.",
                spread,
                f"difference of the spreads of the accuracies, mean over epochs 1 to {epochs}",
            ),
        ]
        reached = [_first_epoch(h["images"] > 0, 0.5) for h in (nat, shuf)]
        if reached[0] is not None and reached[1] is not None:
            trends.append(
                judged(
                    f"Once half of the training images are fitted, more of them are classified correctly at {low} with "
                    f"natural labels.",
                    nat[low][reached[0]] - shuf[low][reached[1]],
                    f"difference of the accuracies on LFC training images in epochs {reached[0]} and {reached[1]}",
                )
            )
        return trends


def _first_epoch(outcomes: Outcomes, level: float) -> int | None:
    """The first epoch after which an accuracy is at least ``level``; None where it never is."""
    import numpy as np

    reached = np.flatnonzero(outcomes.mean(axis=1) >= level)
    return int(reached[0]) if len(reached) else None
