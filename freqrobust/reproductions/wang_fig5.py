"""Dropout, mixup, batch norm and adversarial training: the curves on LFC and HFC test images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.reproductions._conventions import WangExperiment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from freqrobust.experiments.bench import Bench, Fitted
    from freqrobust.reproductions._conventions import Rescale, Statistics
    from freqrobust.reproductions._panels import Panel
    from freqrobust.results.analysis import AnalysisTable
    from freqrobust.results.findings import Curve, Findings, Trend


class WangFig5(WangExperiment):
    """Batch norm raises the accuracy on HFC images, adversarial training keeps it low, mixup narrows the gap.

    The networks have no batch norm but in its own panel, which is evaluated with running statistics and with those of
    the test batch, each on HFC images as they are and divided by their maximum. ``rescale`` chooses the HFC images of the
    curves and of the other trends, and ``bn`` the row of batch norm in the table.
    """

    source: ClassVar[str] = "Wang et al. 2020, fig. 5"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.reproductions import _panels, _wang
        from freqrobust.results.findings import Findings

        fitted = {panel: _panels.network(bench, panel, self.arch) for panel in _panels.PANELS}
        used, radii = _wang.recipe(bench), _panels.radii(bench)
        settings = _wang.settings(bench, self, used)
        settings["mixup"] = "alpha = 0.5"
        settings["dropout"] = "half of the features before the last layer"
        settings["adversarial training"] = _panels.adversarial_training(bench)
        notes = [
            *_wang.notes(bench, self),
            "As in the authors' code, the networks have no batch norm but in its own panel.",
            "Adversarial training starts each attack at a random point, has no augmentation, and mixup draws from "
            "Beta(0.5, 0.5); the authors' code starts at the image, crops and flips, and draws from Beta(1, 1).",
        ]
        return Findings(
            curves=self._curves(fitted, radii),
            tables=[self._last(fitted, radii), _conventions(fitted, radii)],
            trends=self._trends(fitted, radii),
            settings=settings,
            notes=notes,
        )

    def _names(self, radii: Sequence[int], bn: Statistics) -> dict[str, str]:
        """The records of a panel under the chosen convention of HFC images, by their labels."""
        from freqrobust.reproductions import _panels

        names = {split: _panels.view_name(split, bn=bn) for split in ("training", "test")}
        names |= {f"LFC r={r}": _panels.view_name("lfc", r, bn=bn) for r in radii}
        return names | {f"HFC r={r}": _panels.view_name("hfc", r, self.rescale, bn) for r in radii}

    def _curves(self, fitted: Mapping[Panel, Fitted], radii: Sequence[int]) -> list[Curve]:
        from freqrobust.reproductions import _panels, _wang

        curves = []
        for panel, network in fitted.items():
            for bn in _panels.STATISTICS if panel == "batch norm" else _panels.STATISTICS[:1]:
                title = f"batch norm (bn={bn})" if panel == "batch norm" else panel
                for label, name in self._names(radii, bn).items():
                    curves.append(_wang.curve(title, label, _wang.history(network, name)))
        return curves

    def _last(self, fitted: Mapping[Panel, Fitted], radii: Sequence[int]) -> AnalysisTable:
        from freqrobust.reproductions import _wang
        from freqrobust.results.analysis import AnalysisTable

        rows, columns = [], list[str]()
        for panel, network in fitted.items():
            names = self._names(radii, self.bn if panel == "batch norm" else "running")
            last = {label: _wang.history(network, name)[-1] for label, name in names.items()}
            gap = 100 * (last["training"].mean() - last["test"].mean())
            columns = ["network", "gap", *last]
            rows.append([panel, f"{gap:.1f}", *map(_wang.percent, last.values())])
        return AnalysisTable(title="Accuracy (%) after the last epoch", columns=columns, rows=rows)

    def _trends(self, fitted: Mapping[Panel, Fitted], radii: Sequence[int]) -> list[Trend]:
        from freqrobust.reproductions import _panels, _wang

        ends = {
            panel: (
                _wang.history(network, _panels.view_name("training"))[-1],
                _wang.history(network, _panels.view_name("test"))[-1],
            )
            for panel, network in fitted.items()
        }
        measure = "difference of the accuracies on HFC test images, mean over r and epochs"
        trends = []
        for rescale in _panels.RESCALE:
            plain = _hfc(fitted["plain"], radii, rescale, "running")
            for bn in _panels.STATISTICS:
                normed = _hfc(fitted["batch norm"], radii, rescale, bn)
                convention = f"rescale={rescale}, bn={bn}"
                statement = f"Batch norm raises the HFC curves ({convention})."
                trends.append(_wang.mean_over_samples(statement, (normed - plain).mean(axis=0), measure))
        plain, robust, mixed = (
            _hfc(network, radii, self.rescale, "running")
            for network in (fitted["plain"], fitted["adversarial"], fitted["mixup"])
        )
        trends.append(
            _wang.mean_over_samples(
                "Adversarial training lowers the HFC curves.", (plain - robust).mean(axis=0), measure
            )
        )
        trends.append(
            _wang.flatter(
                "Adversarial training keeps the HFC curves flatter.",
                plain[-1] - plain[0],
                robust[-1] - robust[0],
                "difference of the absolute changes from the first to the last epoch on HFC test images, mean over r",
            )
        )
        trends.append(_wang.mean_over_samples("Mixup raises the HFC curves.", (mixed - plain).mean(axis=0), measure))
        gaps: dict[Panel, str] = {"adversarial": "Adversarial training", "mixup": "Mixup", "dropout": "Dropout"}
        for panel, method in gaps.items():
            statement = f"{method} narrows the generalisation gap."
            trends.append(_wang.larger_gap(statement, ends["plain"], ends[panel]))
        return trends


def _hfc(fitted: Fitted, radii: Sequence[int], rescale: Rescale, bn: Statistics) -> NDArray[np.float64]:
    """Share of the radii at which the HFC image of a sample is classified correctly, ``(epochs, n)``, after each epoch."""
    import numpy as np

    from freqrobust.reproductions import _panels, _wang

    names = [_panels.view_name("hfc", r, rescale, bn) for r in radii]
    shares: NDArray[np.float64] = np.mean([_wang.history(fitted, name)[1:] for name in names], axis=0)
    return shares


def _conventions(fitted: Mapping[Panel, Fitted], radii: Sequence[int]) -> AnalysisTable:
    """The HFC accuracies of the panel of batch norm and of the plain network under all conventions."""
    from freqrobust.reproductions import _panels, _wang
    from freqrobust.results.analysis import AnalysisTable

    rows = []
    shown: list[tuple[Panel, Sequence[Any]]] = [
        ("plain", _panels.STATISTICS[:1]),
        ("batch norm", _panels.STATISTICS),
    ]
    for rescale in _panels.RESCALE:
        for panel, statistics in shown:
            for bn in statistics:
                names = [_panels.view_name("hfc", r, rescale, bn) for r in radii]
                test = _panels.view_name("test", bn=bn)
                values = [_wang.percent(_wang.history(fitted[panel], name)[-1]) for name in (test, *names)]
                mean = f"{100 * _hfc(fitted[panel], radii, rescale, bn).mean():.1f}"
                rows.append([panel, rescale, bn if panel == "batch norm" else "-", *values, mean])
    columns = ["network", "rescale", "bn", "test", *(f"HFC r={r}" for r in radii), "HFC, mean over epochs"]
    title = "Does the panel of batch norm depend on the conventions? Accuracy (%) after the last epoch"
    return AnalysisTable(title=title, columns=columns, rows=rows)
