"""Filtered kernels, and a penalty on differences of adjacent kernel weights in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    from torch import nn

    from freqrobust.core.training_config import Recipe
    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings

SGD = "sgd:lr=0.1,momentum=0.9,nesterov=true,weight_decay=0.0005"
FILTER = "kernel-lowpass:radius=1.2"


class KernelRegularization(Experiment):
    """Smoother kernels by filtering or by a penalty in training improve the adversarial robustness marginally."""

    source: ClassVar[str] = "Wang et al. 2020, sec. 6 (tried, not reported), and the authors' post"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.experiments.trends import higher, mean_above_zero
        from freqrobust.numerics.statistics import wilson
        from freqrobust.reproductions._networks import NAMES
        from freqrobust.results.analysis import AnalysisTable
        from freqrobust.results.findings import Curve, Findings, Measured

        budgets = bench.pick(
            digits=("0.05", "0.1"), cpu=("0.5/255", "1/255", "2/255"), paper=("1/255", "2/255", "8/255")
        )
        shown = {"0.5/255": 0.5, "1/255": 1.0, "2/255": 2.0, "8/255": 8.0}
        data = bench.test.limit(bench.pick(digits=200, cpu=300, paper=10_000), bench.seed)
        models = self.models(bench)
        right = {
            name: bench.correct_each(model, data, [None, *(f"pgd:eps={eps},steps=10" for eps in budgets)])
            for name, model in models.items()
        }
        smoothness = {name: _smoothness(model) for name, model in models.items()}
        rows, measured, curves = [], [], []
        for name, outcomes in right.items():
            bounds = [wilson(int(one.sum()), len(one)) for one in outcomes]
            variation, share = smoothness[name]
            rows.append(
                [name, f"{variation:.2f}", f"{100 * share:.1f}", *(f"{100 * one.mean():.1f}" for one in outcomes)]
            )
            for what, one, bound in zip(
                ("clean", f"PGD, eps = {budgets[-1]}"), outcomes[:: len(budgets)], bounds[:: len(budgets)], strict=True
            ):
                measured.append(Measured(name=f"{name}: {what}", value=float(one.mean()), ci95=bound, unit="%"))
            curves.append(
                Curve(
                    panel="accuracy under PGD-10",
                    label=name,
                    x=[0.0, *(shown.get(eps) or float(eps) for eps in budgets)],
                    y=[float(one.mean()) for one in outcomes],
                    low=[low for low, _ in bounds],
                    high=[high for _, high in bounds],
                    x_label="eps" if bench.scale == "digits" else "eps (1/255)",
                )
            )
        last = f"under PGD with eps = {budgets[-1]}"
        natural, penalty, filtered = "natural", "penalty in training", "filtered, first layer"
        gained = {name: outcomes[-1] for name, outcomes in right.items()}
        trends = [
            mean_above_zero(
                "The penalty in training gives smoother kernels.",
                [a - b for a, b in zip(*(_variations(models[name]) for name in (natural, penalty)), strict=True)],
                "difference of the total variation per weight, mean over the filters of all layers",
            ),
            higher(f"The penalty in training raises the accuracy {last}.", gained[penalty], gained[natural]),
            higher(f"Filtering the trained kernels raises the accuracy {last}.", gained[filtered], gained[natural]),
            higher(
                f"The improvement by the penalty is smaller than that by adversarial training, {last}.",
                gained["adversarial training"],
                gained[penalty],
            ),
            higher(
                f"The improvement by filtering is smaller than that by adversarial training, {last}.",
                gained["adversarial training"],
                gained[filtered],
            ),
        ]
        recipes = self.recipes(bench)
        first = recipes[natural]
        return Findings(
            measured=measured,
            tables=[
                AnalysisTable(
                    title="Smoothness of the kernels, and accuracy in percent",
                    columns=[
                        "network",
                        "total variation",
                        "high-frequency energy (%)",
                        "clean",
                        *(f"PGD {eps}" for eps in budgets),
                    ],
                    rows=rows,
                )
            ],
            trends=trends,
            curves=curves,
            settings={
                "network": NAMES[bench.scale],
                "training": f"{first.epochs} epochs, batches of {first.batch_size}, {first.optimizer}, {first.schedule}, "
                f"augmentation {', '.join(first.augment) or 'none'}",
                "penalty": ", ".join(recipes[penalty].regularizer),
                "filter": f"{FILTER}, of the natural network",
                "adversarial training": str(recipes["adversarial training"].method),
                "attack": f"PGD with 10 steps on {len(data)} test images",
                "smoothness": "sum of absolute differences of adjacent weights over the sum of absolute weights, and energy "
                "above half of the Nyquist frequency; means over the layers",
            },
            notes=[
                "The authors name the two methods and report only marginal improvements, without formulas or values.",
                "The intervals are over test images, that of the smoothness over filters, for these networks, which were "
                "trained once each from the same initial weights.",
            ],
        )

    def recipes(self, bench: Bench) -> dict[str, Recipe]:
        """How each network is trained."""
        from freqrobust.core.training_config import Recipe

        common = {
            "epochs": bench.pick(digits=4, cpu=10, paper=100),
            "batch_size": bench.pick(digits=100, cpu=100, paper=128),
            "augment": [] if bench.scale == "digits" else ["flip-crop"],
            "optimizer": bench.pick(digits="adam:lr=0.01", cpu="adam:lr=0.01", paper=SGD),
        }
        attack = bench.pick(
            digits="madry:eps=0.1,steps=2,step_size=0.07",
            cpu="madry:eps=2/255,steps=3",
            paper="madry:eps=8/255,steps=7",
        )
        weight = bench.pick(digits="0.01", cpu="0.01", paper="0.01")
        return {
            "natural": Recipe(**common),
            "penalty in training": Recipe(regularizer=[f"kernel-smoothness:weight={weight}"], **common),
            "adversarial training": Recipe(method=attack, **common),
        }

    def models(self, bench: Bench) -> dict[str, nn.Module]:
        """The trained networks, and the natural one with filtered kernels."""
        from freqrobust.plugins.context import DefenseContext
        from freqrobust.plugins.registry import defenses
        from freqrobust.reproductions._networks import classifier

        trained = {
            name: bench.fit(classifier(bench), bench.train, recipe, name=name).model
            for name, recipe in self.recipes(bench).items()
        }
        natural = trained.pop("natural")
        context = DefenseContext(device=bench.device, seed=bench.seed)
        filtered = {
            name: defenses.parse(f"{FILTER},layers={layers}")[0].plugin.apply(natural, context).eval()
            for name, layers in (("filtered, first layer", "first"), ("filtered, all layers", "all"))
        }
        return {"natural": natural, **filtered, **trained}


def _smoothness(model: nn.Module) -> tuple[float, float]:
    """Total variation per weight, and share of high-frequency energy, as means over the convolutions."""
    from freqrobust.analyses.kernels import convolutions, measure

    layers = [measure(name, weight) for name, weight in convolutions(model)]
    count = len(layers)
    return sum(layer.total_variation for layer in layers) / count, sum(layer.high_share for layer in layers) / count


def _variations(model: nn.Module) -> list[float]:
    """Total variation per weight of every filter of all convolutions."""
    from freqrobust.analyses.kernels import convolutions, measure

    return [
        measure(name, weight[filter : filter + 1]).total_variation
        for name, weight in convolutions(model)
        for filter in range(len(weight))
    ]
