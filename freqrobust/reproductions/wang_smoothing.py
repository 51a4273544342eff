"""Smoothing the kernels of plain and of adversarially trained networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.reproductions._conventions import WangExperiment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.experiments.bench import Bench
    from freqrobust.reproductions._wang import Outcomes
    from freqrobust.results.analysis import AnalysisTable
    from freqrobust.results.findings import Findings, Trend

#: Weights of the neighbours that are compared.
RHO = (0.0, 0.1, 0.25, 0.5, 1.0)
#: The networks, and their names in sentences.
NETWORKS = {"plain": "plain", "adversarial": "adversarially trained"}
ADAPTIVE, OBLIVIOUS = "adaptive", "oblivious"


class WangSmoothing(WangExperiment):
    """Adversarially trained kernels are smoother, and smoothing kernels changes the accuracy under FGSM and PGD.

    Adaptive attacks are made on the smoothed network; oblivious ones on the network before smoothing, so that they say
    nothing about an attacker who has the smoothed network.
    """

    source: ClassVar[str] = "Wang et al. 2020, sec. 6 (fig. 7, table 2)"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.reproductions import _panels, _wang
        from freqrobust.results.findings import Curve, Findings

        budgets = bench.pick(digits=("0.03", "0.1"), cpu=("1/255", "4/255"), paper=("0.03", "0.06", "0.09"))
        specs = [f"fgsm:eps={eps}" for eps in budgets] + [f"pgd:eps={eps},steps=10" for eps in budgets]
        strong = f"apgd:eps={budgets[-1]},steps=20,loss=dlr,targets=0"
        models = {
            name: _wang.evaluated(_panels.network(bench, name, self.arch).model, self.bn)  # type: ignore[arg-type]
            for name in NETWORKS
        }
        shares = {name: kernel_shares(model) for name, model in models.items()}
        tables, trends, curves = [_kernel_table(models)], _smoother(shares), list[Curve]()
        for name, model in models.items():
            accuracies = self._measure(bench, model, specs, strong)
            tables.append(_table(name, accuracies, [*specs, strong]))
            trends += _changes(name, accuracies, specs, budgets[-1])
            for spec in (specs[len(budgets) - 1], specs[-1], strong):
                for knowledge in (ADAPTIVE, OBLIVIOUS):
                    if (spec, knowledge, RHO[0]) in accuracies:
                        curves.append(_curve(name, spec, knowledge, accuracies))
            curves.append(_curve(name, "clean", "", accuracies))
        settings = _wang.settings(bench, self, _wang.recipe(bench))
        settings["adversarial training"] = _panels.adversarial_training(bench)
        settings["smoothing"] = "smooth, the first convolution, zero boundary, not rescaled"
        settings["test images"] = f"{len(attacked_images(bench)):,}"
        del settings["LFC and HFC images"]
        notes = [
            *_wang.notes(bench, self),
            "The networks have no batch norm. Smoothing multiplies the gain of the first layer by up to 1 + 8 rho, which "
            "makes the logits larger and the cross-entropy gradients of FGSM and PGD smaller; the loss of the column apgd "
            "does not depend on the scale of the logits.",
            "The intervals of the high-frequency energy are over the filters of one training each.",
            "Oblivious accuracies are not robust accuracies of the smoothed network: the attacker did not have it.",
        ]
        return Findings(tables=tables, trends=trends, curves=curves, settings=settings, notes=notes)

    def _measure(
        self, bench: Bench, model: nn.Module, specs: list[str], strong: str
    ) -> dict[tuple[str, str, float], Outcomes]:
        """Which samples are correct, by attack (or ``clean``), knowledge of the attacker, and rho."""
        from freqrobust.plugins.context import DefenseContext
        from freqrobust.plugins.registry import defenses
        from freqrobust.reproductions import _wang

        test = attacked_images(bench)
        made = {spec: _wang.adversarial_images(bench, model, test, spec) for spec in specs}
        context = DefenseContext(device=bench.device, seed=bench.seed)
        found: dict[tuple[str, str, float], Outcomes] = {}
        for rho in RHO:
            smoothed = defenses.parse(f"smooth:rho={rho:g}")[0].plugin.apply(model, context) if rho else model
            clean, *attacked = bench.correct_each(smoothed, test, [None, *specs, strong])
            found["clean", "", rho] = clean
            for spec, samples in zip([*specs, strong], attacked, strict=True):
                found[spec, ADAPTIVE, rho] = samples
            for spec, images in made.items():
                found[spec, OBLIVIOUS, rho] = clean & bench.correct(smoothed, images)
        return found


def attacked_images(bench: Bench) -> ImageData:
    """The test images that are attacked, with as many of every class."""
    count: int = bench.pick(digits=200, cpu=300, paper=10_000)
    return bench.test.limit(count)


def kernel_shares(model: nn.Module) -> list[NDArray[np.float64]]:
    """Share of the energy above half of Nyquist of every filter, an array ``(filters,)`` for each convolution."""
    import numpy as np

    from freqrobust.analyses.kernels import convolutions, measure

    return [
        np.array([measure(name, weight[filter : filter + 1]).high_share for filter in range(len(weight))])
        for name, weight in convolutions(model)
    ]


def _kernel_table(models: dict[str, nn.Module]) -> AnalysisTable:
    from freqrobust.analyses.kernels import convolutions, measure
    from freqrobust.results.analysis import AnalysisTable

    rows = []
    for name, model in models.items():
        for layer, weight in convolutions(model):
            record = measure(layer, weight)
            rows.append([name, layer, f"{100 * record.high_share:.1f}", f"{record.total_variation:.2f}"])
    columns = ["network", "layer", "high-frequency energy (%)", "total variation"]
    return AnalysisTable(title="Smoothness of the convolutions before smoothing", columns=columns, rows=rows)


def _smoother(shares: dict[str, list[NDArray[np.float64]]]) -> list[Trend]:
    """Filters are compared in pairs, as both trainings start from the same weights; Student's t, as they may be few."""
    import numpy as np

    from freqrobust.experiments.trends import mean_above_zero

    differences = [a - b for a, b in zip(shares["plain"], shares["adversarial"], strict=True)]
    measure = "difference of the shares of high-frequency energy, mean over filters"
    statement = "Adversarial training lowers the high-frequency energy of the kernels"
    return [
        mean_above_zero(f"{statement} of the first layer.", differences[0].tolist(), measure),
        mean_above_zero(f"{statement} of all layers.", np.concatenate(differences).tolist(), measure),
    ]


def _changes(name: str, accuracies: dict[tuple[str, str, float], Outcomes], specs: list[str], eps: str) -> list[Trend]:
    from freqrobust.experiments.trends import higher

    trends = []
    for spec in specs:
        attack = spec.partition(":")[0].upper()
        if f"eps={eps}" not in spec.split(",")[0]:
            continue
        for knowledge in (ADAPTIVE, OBLIVIOUS):
            trends.append(
                higher(
                    f"Smoothing with rho = {RHO[-1]:g} raises the accuracy of the {NETWORKS[name]} network under {knowledge} "
                    f"{attack} (eps = {eps}).",
                    accuracies[spec, knowledge, RHO[-1]],
                    accuracies[spec, knowledge, RHO[0]],
                )
            )
    return trends


def _table(name: str, accuracies: dict[tuple[str, str, float], Outcomes], specs: list[str]) -> AnalysisTable:
    from freqrobust.reproductions import _wang
    from freqrobust.results.analysis import AnalysisTable

    rows = []
    for rho in RHO:
        row = [f"{rho:g}", _wang.percent(accuracies["clean", "", rho])]
        for spec in specs:
            both = [accuracies.get((spec, knowledge, rho)) for knowledge in (ADAPTIVE, OBLIVIOUS)]
            row.append(" / ".join(_wang.percent(samples) for samples in both if samples is not None))
        rows.append(row)
    title = f"Accuracy (%) of the {NETWORKS[name]} network: adaptive / oblivious attacks"
    return AnalysisTable(title=title, columns=["rho", "clean", *specs], rows=rows)


def _curve(name: str, spec: str, knowledge: str, accuracies: dict[tuple[str, str, float], Outcomes]) -> Any:
    import numpy as np

    from freqrobust.reproductions import _wang

    outcomes = np.array([accuracies[spec, knowledge, rho] for rho in RHO])
    label = f"{spec.partition(',')[0]}, {knowledge}" if knowledge else spec
    drawn = _wang.curve(f"{NETWORKS[name]} network", label, outcomes)
    return drawn.model_copy(update={"x": list(RHO), "x_label": "rho"})
