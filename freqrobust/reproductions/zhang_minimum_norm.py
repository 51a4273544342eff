"""The minimum-norm solutions of kernel interpolation, on pixels and on features of random filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench
    from freqrobust.reproductions._interpolation import Fits
    from freqrobust.results.findings import Findings, Trend

GAUSSIAN, FILTERS = "Gaussian kernel of pixels", "random filters"
#: Published test errors on CIFAR-10 without a ridge.
PUBLISHED = {GAUSSIAN: 0.46, FILTERS: 0.17}
#: A ridge that improves the accuracy by less than this is not needed.
MARGIN = 0.03
HALVINGS = 4


class ZhangMinimumNorm(Experiment):
    """The function of smallest norm that fits all training labels exactly classifies new images better than chance."""

    source: ClassVar[str] = "Zhang et al. 2017, section 5"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.core.percent import percent
        from freqrobust.experiments.trends import higher
        from freqrobust.numerics.minimum_norm import one_vs_all
        from freqrobust.numerics.statistics import wilson
        from freqrobust.reproductions._features import filter_features, pixels, random_filters, standardized
        from freqrobust.reproductions._interpolation import BANDWIDTHS, PERMUTATIONS, RIDGES, gaussian, linear, solve
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Curve, Findings, Measured

        n, fitted, tuned = bench.pick(digits=(500, 40, 500), cpu=(2000, 1000, 1000), paper=(50_000, 1000, 10_000))
        filters, side = bench.pick(digits=(96, 3), cpu=(512, 6), paper=(32_000, 6))
        train, test = bench.train.limit(n, bench.seed), bench.test
        chance = test.labels.bincount().max().item() / len(test)
        targets, labels = one_vs_all(train.labels.numpy(), train.classes), test.labels.numpy()
        raw, raw_test = standardized(pixels(train), pixels(test))
        bench.progress.say(f"kernels of pixels, and of {filters} random filters")
        random = random_filters(train, filters, side, bench.seed)
        features, test_features = filter_features(train, random), filter_features(test, random)
        kernels = [
            linear("linear kernel of pixels", raw, raw_test, fitted),
            gaussian(GAUSSIAN, raw, raw_test, targets, tuned),
            linear(FILTERS, *standardized(features, test_features), len(train)),
        ]
        solved: dict[str, Fits] = {}
        findings = Findings()
        rows = []
        for kernel in kernels:
            bench.progress.say(f"solving: {kernel.name}")
            fits = solved[kernel.name] = solve(kernel, targets, labels, HALVINGS, bench.seed)
            correct = int(fits.exact.test.sum())
            low, high = wilson(correct, len(test))
            error = 1 - correct / len(test)
            findings.measured.append(
                Measured(
                    name=f"test error, {kernel.name}",
                    value=error,
                    ci95=(1 - high, 1 - low),
                    published=PUBLISHED.get(kernel.name),
                    unit="%",
                )
            )
            findings.curves.append(
                Curve(
                    panel="Exact fits of all training labels",
                    label=kernel.name,
                    x=[float(size) for size, _ in fits.curve],
                    y=[value for _, value in fits.curve],
                    x_label="training images",
                    y_label="test error",
                )
            )
            findings.trends += _trends(kernel.name, fits, chance)
            shown = kernel.name if kernel.bandwidth is None else f"{kernel.name}, b = {kernel.bandwidth:g}"
            shares = (
                (~fits.exact.train).mean(),
                (~fits.exact.left_out).mean(),
                error,
                (~fits.ridged.test).mean(),
            )
            norms = (fits.exact.norm, sum(fits.shuffled_norms) / PERMUTATIONS)
            rows.append(
                [shown, str(fits.exact.images)]
                + [percent(float(share)) for share in shares]
                + [f"{norm:.3g}" for norm in norms]
            )
        findings.trends.append(
            higher(
                "Features of random filters give a lower test error than the Gaussian kernel of pixels.",
                solved[FILTERS].exact.test,
                solved[GAUSSIAN].exact.test,
                "difference of the accuracies, over test images",
            )
        )
        columns = ["kernel", "images", "training error", "left-out error", "test error", "with a ridge"]
        findings.tables.append(
            AnalysisTable(title="Exact fits", columns=[*columns, "norm", "norm, shuffled labels"], rows=rows)
        )
        findings.settings = {
            "chance": f"{100 * chance:.1f} %, the share of the largest class among the test images",
            "solution": "(K + ridge I) alpha = Y in float64, Y one-vs-all; the ridge is 0 but in the column with a ridge",
            "pixels": "minus their mean, divided by their standard deviation; for linear kernels a coordinate of 1 is added",
            "Gaussian kernel": "exp(-|x - x'|^2 / (2 b^2)); b, in median distances, is the one of "
            f"{', '.join(f'{b:g}' for b in BANDWIDTHS)} with the smallest leave-one-out error on the training images",
            "ridge": f"the one of {', '.join(f'{r:g}' for r in RIDGES)}, times the mean of the diagonal of K, with the "
            "smallest leave-one-out error on the training images",
            "random filters": f"{filters} whitened patches of {side} x {side} pixels of training images; both signs "
            "rectified, averaged over each quadrant of the image; linear kernel",
            "shuffled labels": f"mean norm for {PERMUTATIONS} permutations of the labels",
        }
        findings.notes = [
            f"The linear kernel of pixels fits at most as many images as there are pixels ({raw.shape[1]}). It is used with "
            f"{solved['linear kernel of pixels'].exact.images} of them.",
            f"Published are 50,000 training images of CIFAR-10 and 32,000 random filters; here {len(train)} images and "
            f"{filters} filters are used. The paper states neither its bandwidth nor the form of its filters.",
        ]
        return findings


def _trends(name: str, fits: Fits, chance: float) -> list[Trend]:
    from freqrobust.experiments.trends import higher, judged, mean_above_zero
    from freqrobust.numerics.statistics import wilson

    exact, ridged = fits.exact, fits.ridged
    low, high = wilson(int(exact.test.sum()), len(exact.test))
    gain = higher("", ridged.test, exact.test)
    assert gain.ci95 is not None
    return [
        judged(
            f"{_capital(name)}: the exact fit of the training labels classifies test images better than chance.",
            float(exact.test.mean()) - chance,
            (low - chance, high - chance),
            "test accuracy minus chance, over test images",
        ),
        judged(
            f"{_capital(name)}: a ridge improves the accuracy by less than {100 * MARGIN:g} percentage points.",
            MARGIN - gain.estimate,
            (MARGIN - gain.ci95[1], MARGIN - gain.ci95[0]),
            f"{MARGIN:g} minus the difference of the accuracies, over test images",
        ),
        mean_above_zero(
            f"{_capital(name)}: the norm is larger for shuffled labels.",
            [norm - exact.norm for norm in fits.shuffled_norms],
            "difference of the norms, over permutations of the labels",
        ),
    ]


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]
