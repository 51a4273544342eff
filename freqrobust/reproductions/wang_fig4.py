"""Batch size: accuracy, generalisation gap, and the curves on LFC and HFC test images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.reproductions._conventions import WangExperiment

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings


class WangFig4(WangExperiment):
    """Small batches give the higher accuracy, large batches the smaller generalisation gap."""

    source: ClassVar[str] = "Wang et al. 2020, fig. 4"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.experiments.trends import higher
        from freqrobust.reproductions import _wang
        from freqrobust.reproductions._networks import classifier
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Findings

        sizes = bench.pick(digits=(10, 50, 250, 1000), cpu=(10, 100, 1000), paper=(10, 50, 100, 500, 1000))
        used = _wang.recipe(bench)
        images, watched = _wang.training_images(bench), _wang.watched_training_images(bench)
        views = [
            _wang.View("training", watched, None, self.bn),
            _wang.View("test", bench.test, None, self.bn),
            *(
                _wang.View(f"{kind.upper()} r={r}", bench.test, _wang.component(bench, kind, r, self.rescale), self.bn)
                for kind in ("lfc", "hfc")
                for r in (4, 12)
            ),
        ]
        curves, last, rows = [], {}, []
        for size in sizes:
            fitted = bench.fit(
                classifier(bench, arch=self.arch),
                images,
                used.model_copy(update={"batch_size": size}),
                name=f"batches of {size}, rescale={self.rescale}, bn={self.bn}",
                normalize=False,
                watch=_wang.watcher(bench, views),
            )
            histories = {view.name: _wang.history(fitted, view.name) for view in views}
            curves += [_wang.curve(f"batch size {size}", name, outcomes) for name, outcomes in histories.items()]
            last[size] = (histories["training"][-1], histories["test"][-1])
            gap = 100 * (last[size][0].mean() - last[size][1].mean())
            shown = [_wang.percent(outcomes[-1]) for outcomes in histories.values()]
            rows.append([str(size), *shown[:2], f"{gap:.1f}", *shown[2:]])
        small, large = sizes[0], sizes[-1]
        trends = [
            higher(
                f"Batches of {small} give a higher test accuracy than batches of {large}.",
                last[small][1],
                last[large][1],
            ),
            _wang.larger_gap(
                f"Batches of {large} give a smaller generalisation gap than batches of {small}.",
                last[small],
                last[large],
            ),
        ]
        columns = ["batch size", "training", "test", "gap", *(view.name for view in views[2:])]
        table = AnalysisTable(title="Accuracy (%) after the last epoch", columns=columns, rows=rows)
        settings = _wang.settings(bench, self, used)
        settings["training"] = f"{used.epochs} epochs, {used.optimizer}, constant rate, no augmentation"
        settings["batch sizes"] = ", ".join(map(str, sizes))
        notes = [
            *_wang.notes(bench, self),
            "The number of epochs and the learning rate are the same for all batch sizes, so that large batches make fewer "
            "steps.",
        ]
        return Findings(tables=[table], trends=trends, curves=curves, settings=settings, notes=notes)
