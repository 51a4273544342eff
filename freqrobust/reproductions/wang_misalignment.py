"""Samples that a network classifies correctly from their LFC image only, or from their HFC image only."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from freqrobust.reproductions._conventions import WangExperiment

if TYPE_CHECKING:
    from torch import nn

    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings

#: Radius on CIFAR-10, and the published numbers of 10,000 samples: only LFC, only HFC, both, neither.
PUBLISHED = {
    0: (118, 8651, 882, 349),
    2: (486, 4785, 1072, 3657),
    4: (1113, 2543, 796, 5548),
    5: (1469, 1502, 689, 6340),
    6: (1961, 728, 611, 6700),
    8: (3909, 384, 620, 5087),
    12: (7547, 229, 774, 1450),
    16: (8437, 150, 850, 563),
}
PUBLISHED_SAMPLES = 10_000
#: The radii at which trends are judged.
JUDGED = (6, 12)


class WangMisalignment(WangExperiment):
    """Some samples are classified correctly from their low frequencies only, others from their high ones only."""

    source: ClassVar[str] = "Wang et al. 2020, fig. 1"

    model: str | None = Field(
        None,
        description="a trained model, as for --model of freqrobust eval; by default the network of this scale is trained",
    )

    def run(self, bench: Bench) -> Findings:
        import numpy as np

        from freqrobust.analyses._components import chance_joint
        from freqrobust.experiments.trends import higher
        from freqrobust.numerics.statistics import wilson
        from freqrobust.reproductions import _wang
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Findings, Measured

        model, about = self._network(bench)
        labels = bench.test.labels.numpy()
        n = len(labels)
        clean = _wang.predicted(bench, model, bench.test) == labels
        trends, measured, rows = [], [], []
        cases: dict[str, list[_wang.Outcomes]] = {"only LFC": [], "only HFC": [], "both": [], "neither": []}
        for radius, published in PUBLISHED.items():
            low, high = (
                _wang.predicted(
                    bench, model, bench.shifted(bench.test, _wang.component(bench, kind, radius, self.rescale))
                )
                for kind in ("lfc", "hfc")
            )
            lfc, hfc = low == labels, high == labels
            for name, which in zip(cases, (lfc & ~hfc, ~lfc & hfc, lfc & hfc, ~lfc & ~hfc), strict=True):
                cases[name].append(which)
            counts = [int(which.sum()) for which in (lfc & ~hfc, ~lfc & hfc, lfc & hfc, ~lfc & ~hfc)]
            chance = chance_joint(low, high, labels)
            expected = [chance[True, False], chance[False, True], chance[True, True], chance[False, False]]
            shares = (
                f"{100 * count / n:.1f} ({100 * c / PUBLISHED_SAMPLES:.1f})"
                for count, c in zip(counts, published, strict=True)
            )
            rows.append([str(radius), *shares, f"{100 * expected[0]:.1f}", f"{100 * expected[1]:.1f}"])
            for which, kind in enumerate(("LFC", "HFC")):
                interval = wilson(counts[which], n)
                measured.append(
                    Measured(
                        name=f"r={radius}: correct from the {kind} image only",
                        value=counts[which] / n,
                        ci95=interval,
                        published=published[which] / PUBLISHED_SAMPLES,
                        unit="%",
                    )
                )
                if radius in JUDGED:
                    own, other = (low, high) if kind == "LFC" else (high, low)
                    trends.append(
                        _wang.mean_over_samples(
                            f"At r = {radius}, more samples than by chance are classified correctly from the {kind} image only.",
                            _wang.beyond_chance(own, other, labels),
                            "share of the samples, minus the share if predictions and labels were independent",
                        )
                    )
            if radius == max(JUDGED):
                statement = (
                    f"At r = {radius}, more samples are classified correctly from the LFC than from the HFC image."
                )
                trends.append(higher(statement, lfc, hfc))
        table = AnalysisTable(
            title=f"Samples by correct components, % (published); {100 * np.mean(clean):.1f} % of the originals are correct",
            columns=["r", "only LFC", "only HFC", "both", "neither", "only LFC by chance", "only HFC by chance"],
            rows=rows,
        )
        settings = _wang.settings(bench, self, _wang.recipe(bench))
        notes = _wang.notes(bench, self)
        if self.model is not None:
            settings = {key: value for key, value in settings.items() if key not in ("training", "training images")}
            notes = [f"The model is {self.model}; nothing was trained.", *notes[2 if bench.scale != "paper" else 0 :]]
        notes.append(
            "The published counts are those of an independent reproduction with ResNet-18 of 95.33 % accuracy."
        )
        curves = [
            _wang.curve("samples classified correctly from", name, np.array(samples)).model_copy(
                update={"x": [float(radius) for radius in PUBLISHED], "x_label": "r", "y_label": "share of the samples"}
            )
            for name, samples in cases.items()
        ]
        return Findings(
            measured=measured,
            tables=[table],
            trends=trends,
            curves=curves,
            settings={**settings, "network": about},
            notes=notes,
        )

    def _network(self, bench: Bench) -> tuple[nn.Module, str]:
        """The network as it is evaluated, and what it is."""
        from freqrobust.models.loading import load_model
        from freqrobust.reproductions import _panels, _wang
        from freqrobust.reproductions._networks import architecture

        if self.model is None:
            network: nn.Module = _panels.network(bench, "batch norm", self.arch).model
            return _wang.evaluated(network, self.bn), architecture(bench, self.arch)
        loaded = load_model(
            self.model,
            arch=self.arch,
            data=bench.test,
            device=bench.device,
            cache_dir=bench.cache_dir,
            progress=bench.progress,
        )
        return _wang.evaluated(loaded, self.bn), loaded.arch
