"""Batch norm and training on LFC images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.reproductions._conventions import WangExperiment

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench, Fitted
    from freqrobust.reproductions._conventions import Rescale
    from freqrobust.results.findings import Findings


class WangFig6(WangExperiment):
    """A network with batch norm learns LFC images faster than one without.

    All networks are trained twice: on LFC images as they are and divided by their maximum. Those with batch norm are
    evaluated with running statistics and with those of the test batch. ``rescale`` and ``bn`` choose what the curves show.
    """

    source: ClassVar[str] = "Wang et al. 2020, fig. 6"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.experiments.trends import higher
        from freqrobust.reproductions import _panels, _wang
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Findings

        used = _wang.recipe(bench, epochs=bench.pick(digits=3, cpu=8, paper=100))
        radii = bench.pick(digits=(8, 12), cpu=(4, 12), paper=(4, 8, 12))
        curves, trends, rows = [], [], []
        for rescale in _panels.RESCALE:
            for radius in radii:
                plain = self._train(bench, radius, rescale, norm=False)
                normed = self._train(bench, radius, rescale, norm=True)
                without = {view: _wang.history(plain, f"{view} bn=running") for view in _VIEWS}
                for bn in _panels.STATISTICS:
                    outcomes = {view: _wang.history(normed, f"{view} bn={bn}") for view in _VIEWS}
                    convention = f"rescale={rescale}, bn={bn}"
                    faster = outcomes["training"][1:].mean(axis=0) - without["training"][1:].mean(axis=0)
                    trends.append(
                        _wang.mean_over_samples(
                            f"Trained on LFC of r = {radius}, the network with batch norm learns faster ({convention}).",
                            faster,
                            "difference of the accuracies on LFC training images, mean over epochs",
                        )
                    )
                    rows.append(
                        [
                            str(radius),
                            rescale,
                            bn,
                            *(f"{_wang.percent(without[v][-1])} / {_wang.percent(outcomes[v][-1])}" for v in _VIEWS),
                        ]
                    )
                    if (rescale, bn) != (self.rescale, self.bn):
                        continue
                    for view in _VIEWS:
                        panel = f"trained on LFC r={radius}"
                        curves.append(_wang.curve(panel, f"{view}, no batch norm", without[view]))
                        curves.append(_wang.curve(panel, f"{view}, batch norm", outcomes[view]))
                    trends.append(
                        higher(
                            f"Trained on LFC of r = {radius}, the network with batch norm has the higher accuracy on the "
                            f"original test images ({convention}).",
                            outcomes["test"][-1],
                            without["test"][-1],
                        )
                    )
        columns = ["r", "rescale", "bn", *_VIEWS.values()]
        title = "Accuracy (%) after the last epoch, without / with batch norm"
        return Findings(
            curves=curves,
            tables=[AnalysisTable(title=title, columns=columns, rows=rows)],
            trends=trends,
            settings=_wang.settings(bench, self, used),
            notes=_wang.notes(bench, self),
        )

    def _train(self, bench: Bench, radius: int, rescale: Rescale, norm: bool) -> Fitted:
        from freqrobust.reproductions import _panels, _wang
        from freqrobust.reproductions._networks import classifier

        spec = _wang.component(bench, "lfc", radius, rescale)
        watched = _wang.watched_training_images(bench)
        views = []
        for bn in _panels.STATISTICS if norm else _panels.STATISTICS[:1]:
            views.append(_wang.View(f"training bn={bn}", watched, spec, bn))
            views.append(_wang.View(f"test bn={bn}", bench.test, None, bn))
            views.append(_wang.View(f"test LFC bn={bn}", bench.test, spec, bn))
        return bench.fit(
            classifier(bench, norm=norm, arch=self.arch),
            bench.shifted(_wang.training_images(bench), spec),
            _wang.recipe(bench, epochs=bench.pick(digits=3, cpu=8, paper=100)),
            name=f"{spec}, {'with' if norm else 'without'} batch norm",
            normalize=False,
            watch=_wang.watcher(bench, views),
        )


#: What is measured after every epoch, and its column.
_VIEWS = {"training": "LFC training images", "test": "original test images", "test LFC": "LFC test images"}
