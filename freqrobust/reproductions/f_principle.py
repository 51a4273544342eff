"""The frequency principle: low frequencies of the target are fitted first, on the line and on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.experiments.experiment import Experiment

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from freqrobust.experiments.bench import Bench
    from freqrobust.reproductions._projection import Projection
    from freqrobust.results.findings import Curve, Findings, Trend

#: Frequencies of the target on the line, sin x + sin 4x.
LOW, HIGH = 1, 4
LINE = "sin x + sin 4x"
FULLY_CONNECTED, CONVOLUTIONAL = "fully connected", "convolutional"
#: Relative errors that are drawn red and blue, as in the paper.
RED, BLUE = 0.05, 0.3


@dataclass(frozen=True)
class Line:
    """Settings of the regression on the line."""

    hidden: tuple[int, ...]
    lr: float
    steps: int
    repetitions: int
    points: int = 61
    std: float = 0.1
    records: int = 41


class FPrinciple(Experiment):
    """Networks fit low frequencies of the target before high ones, also those of images along their first component."""

    source: ClassVar[str] = "Xu et al. 2018, fig. 1"

    def run(self, bench: Bench) -> Findings:
        from freqrobust.reproductions._projection import Projection
        from freqrobust.results.findings import Findings

        line: Line = bench.pick(
            digits=Line((64, 64, 32), lr=1e-3, steps=600, repetitions=5),
            cpu=Line((200, 200, 200, 100), lr=2e-5, steps=8000, repetitions=5),
            paper=Line((200, 200, 200, 100), lr=2e-5, steps=30_000, repetitions=10),
        )
        steps, errors = on_the_line(bench, line)
        repetitions = bench.pick(digits=3, cpu=3, paper=5)
        projection = Projection(bench.train, [k / 2 for k in range(1, 21)])
        watched = {kind: on_images(bench, kind, projection, repetitions) for kind in (FULLY_CONNECTED, CONVOLUTIONAL)}
        trends = [_line_trend(line, errors)]
        curves = _line_curves(steps, errors)
        for kind, one in watched.items():
            trends += _image_trends(kind, projection, one)
            curves += _image_curves(kind, projection, one)
        settings = {
            "line": f"{LINE} at {line.points} points of [-pi, pi)",
            "network on the line": f"tanh, hidden layers {'-'.join(map(str, line.hidden))}, normal initial weights "
            f"(standard deviation {line.std:g}); Adam {line.lr:g}, {line.steps} steps; {line.repetitions} repetitions",
            "networks on images": f"{FULLY_CONNECTED} with two hidden layers of {_width(bench)} ReLUs, and the convolutional "
            f"network of this scale; {recipe(bench).epochs} epochs, batches of {recipe(bench).batch_size}, "
            f"{recipe(bench).optimizer}; {repetitions} repetitions",
            "frequencies": "0.5 to 10 cycles over the range of the first principal component; trends are judged at those that "
            f"the labels have: {', '.join(f'{projection.frequencies[i]:g}' for i in projection.present) or 'none'}",
        }
        return Findings(
            settings=settings, trends=trends, curves=[*curves, *_label_curves(projection)], notes=_notes(bench)
        )

    def draw(self, findings: Findings) -> Figure | None:
        from freqrobust.experiments.pictures import draw_panels, heat_map
        from freqrobust.results.figures import COLUMN, figure

        panels = [f"images, {kind}" for kind in (FULLY_CONNECTED, CONVOLUTIONAL)]
        drawn = figure(4.6, 2 * COLUMN)
        (above,), (below,) = drawn.subfigures(2, 1, squeeze=False, height_ratios=[2, 2.4])
        draw_panels(above, [curve for curve in findings.curves if curve.panel not in panels])
        for axes, panel in zip(below.subplots(1, 2), panels, strict=True):
            curves = [curve for curve in findings.curves if curve.panel == panel]
            heat_map(axes, curves, "frequency", "relative error", low=RED, high=BLUE, colours="RdYlBu")
        return drawn


def on_the_line(bench: Bench, line: Line) -> tuple[list[int], torch.Tensor]:
    """Recorded steps, and relative errors at the two frequencies, ``(steps, R, 2)``."""
    import torch

    from freqrobust.core.source_hash import code_hash
    from freqrobust.reproductions._regression import Networks, descend, moments, relative_errors

    name = LINE

    def make() -> dict[str, Any]:
        x = torch.pi * (2 * torch.arange(line.points) / line.points - 1)
        target = (torch.sin(LOW * x) + torch.sin(HIGH * x)).to(bench.device)
        networks = Networks([1, *line.hidden, 1], line.repetitions, "tanh", bench.seed, line.std)
        networks.parameters = [parameter.to(bench.device) for parameter in networks.parameters]
        steps = moments(line.steps, line.records)
        bench.progress.begin(name, line.steps)
        found = descend(
            networks,
            x[:, None].to(bench.device),
            target[None, :, None],
            lr=line.lr,
            record_at=steps,
            record=lambda output: relative_errors(output[..., 0], target, (LOW, HIGH)),
            advance=bench.progress.advance,
        )
        bench.progress.end(f"{name}: {line.repetitions} networks, {line.steps} steps")
        return {"steps": steps, "errors": torch.stack(found).cpu()}

    code = code_hash(["freqrobust.reproductions.f_principle", "freqrobust.reproductions._regression"])
    kept = bench.kept(name, [name, str(line), bench.seed, bench.device.type, torch.__version__, code], make)
    return kept["steps"], kept["errors"]


def recipe(bench: Bench) -> Any:
    """How the networks on images are trained."""
    from freqrobust.core.training_config import Recipe

    return Recipe(
        epochs=bench.pick(digits=6, cpu=12, paper=100),
        batch_size=bench.pick(digits=64, cpu=100, paper=256),
        augment=[],
        optimizer=bench.pick(digits="adam:lr=0.0006", cpu="adam:lr=0.0005", paper="adam:lr=0.0001"),
        schedule="constant",
    )


def _width(bench: Bench) -> int:
    width: int = bench.pick(digits=100, cpu=400, paper=1000)
    return width


def on_images(bench: Bench, kind: str, projection: Projection, repetitions: int) -> torch.Tensor:
    """Relative errors at the frequencies of the projection, ``(repetitions, epochs + 1, frequencies)``."""
    import torch

    from freqrobust.reproductions._networks import classifier
    from freqrobust.reproductions._projection import fully_connected

    build = fully_connected(bench.train, _width(bench)) if kind == FULLY_CONNECTED else classifier(bench)
    name = f"images, {kind}, errors at {len(projection.frequencies)} frequencies"
    rows = [
        bench.fit(
            build, bench.train, recipe(bench), name=f"{name}, {r + 1}", watch=projection.errors, seed=bench.seed + r
        ).watched
        for r in range(repetitions)
    ]
    return torch.tensor([[epoch["errors"] for epoch in row] for row in rows])


def _line_trend(line: Line, errors: torch.Tensor) -> Trend:
    from freqrobust.experiments.trends import mean_above_zero

    mean = errors.mean(dim=0)  # over training, (R, 2)
    return mean_above_zero(
        f"On {LINE}, the error at the low frequency decreases before the error at the high one.",
        (mean[:, 1] - mean[:, 0]).tolist(),
        f"relative error at {HIGH} minus that at {LOW}, mean over training and over {line.repetitions} repetitions",
    )


def _image_trends(kind: str, projection: Projection, errors: torch.Tensor) -> list[Trend]:
    from freqrobust.experiments.trends import mean_above_zero

    half = len(projection.present) // 2
    if half == 0:
        return []
    mean = errors[..., projection.present].mean(dim=1)
    return [
        mean_above_zero(
            f"The {kind} network fits low frequencies of images along the first principal component before high ones.",
            (mean[:, -half:].mean(dim=1) - mean[:, :half].mean(dim=1)).tolist(),
            "relative error, upper half of the frequencies that the labels have minus lower half, mean over training and "
            f"over {len(mean)} repetitions",
        )
    ]


def _line_curves(steps: list[int], errors: torch.Tensor) -> list[Curve]:
    from freqrobust.results.findings import Curve

    return [
        Curve(
            panel=f"{LINE}, mean and range of the repetitions",
            label=f"k = {k}",
            x=[float(step) for step in steps],
            y=errors[..., number].mean(dim=1).tolist(),
            low=errors[..., number].min(dim=1).values.tolist(),
            high=errors[..., number].max(dim=1).values.tolist(),
            x_label="step",
            y_label="relative error",
        )
        for number, k in enumerate((LOW, HIGH))
    ]


def _image_curves(kind: str, projection: Projection, errors: torch.Tensor) -> list[Curve]:
    from freqrobust.results.findings import Curve

    mean = errors.mean(dim=0)
    return [
        Curve(panel=f"images, {kind}", label=f"{k:g}", x=[float(epoch) for epoch in range(len(mean))],
              y=mean[:, number].tolist(), x_label="epoch", y_label="relative error")
        for number, k in enumerate(projection.frequencies.tolist())
    ]  # fmt: skip


def _label_curves(projection: Projection) -> list[Curve]:
    from freqrobust.results.findings import Curve

    shown = {"panel": "labels of the images along the first component", "x_label": "frequency", "y_label": "amplitude"}
    k = projection.frequencies.tolist()
    floor = [projection.floor] * len(k)
    return [
        Curve(label="labels", x=k, y=projection.amplitude.tolist(), **shown),
        Curve(label="labels in random order", x=k, y=floor, **shown),
    ]


def _notes(bench: Bench) -> list[str]:
    notes = [
        "Intervals are over repetitions, which differ in initial weights and order (Student's t).",
        "The transform of images is that of the one-hot labels and of the network's probabilities, both minus the shares of "
        "the classes, with the norm over the classes. The labels have a frequency where their energy is more than twice that of labels in random order: the rest "
        "is chance.",
    ]
    if bench.scale != "paper":
        notes.append(
            "The paper trains on the line with Adam 2e-5 and hidden layers 200-200-200-100, and on MNIST and CIFAR-10; images, "
            "networks, learning rates and numbers of steps are those of this scale."
        )
    return notes
