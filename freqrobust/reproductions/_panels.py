"""The networks of figure 5 of Wang et al. 2020, which other experiments use as well."""

from __future__ import annotations

from typing import Any, Literal

from freqrobust.experiments.bench import Bench, Fitted
from freqrobust.reproductions import _wang
from freqrobust.reproductions._conventions import Rescale, Statistics
from freqrobust.reproductions._networks import classifier

Panel = Literal["plain", "dropout", "mixup", "batch norm", "adversarial"]
PANELS: tuple[Panel, ...] = ("plain", "dropout", "mixup", "batch norm", "adversarial")
RESCALE: tuple[Rescale, ...] = ("none", "max")
STATISTICS: tuple[Statistics, ...] = ("running", "batch")


def radii(bench: Bench) -> tuple[int, ...]:
    """Radii of the curves, for a side of 32 pixels."""
    chosen: tuple[int, ...] = bench.pick(digits=(8, 12), cpu=(4, 12), paper=(4, 8, 12, 16))
    return chosen


def adversarial_training(bench: Bench) -> str:
    """The training method of the adversarially trained network."""
    method: str = bench.pick(
        digits="madry:eps=0.1,steps=3", cpu="madry:eps=4/255,steps=3", paper="madry:eps=8/255,steps=10"
    )
    return method


def changes(bench: Bench, panel: Panel) -> dict[str, Any]:
    """What distinguishes the recipe of a panel from that of the plain network."""
    if panel == "mixup":
        return {"augment": ["mixup:alpha=0.5"]}
    if panel == "adversarial":
        return {"method": adversarial_training(bench)}
    return {}


def view_name(kind: str, radius: int | None = None, rescale: Rescale = "none", bn: Statistics = "running") -> str:
    """The name of a record: ``training``, ``test``, or a component of the test images."""
    where = kind if radius is None else f"{kind} r={radius} rescale={rescale}"
    return f"{where} bn={bn}"


def network(bench: Bench, panel: Panel, arch: str = "auto") -> Fitted:
    """The trained network of a panel, with its accuracies by epoch under the conventions of the paper and of the code.

    No network has batch norm but that of the panel ``batch norm``.
    """
    watched, images = _wang.watched_training_images(bench), _wang.training_images(bench)
    views = []
    for bn in STATISTICS if panel == "batch norm" else STATISTICS[:1]:
        views.append(_wang.View(view_name("training", bn=bn), watched, None, bn))
        views.append(_wang.View(view_name("test", bn=bn), bench.test, None, bn))
        for kind in ("lfc", "hfc"):
            for rescale in RESCALE if kind == "hfc" else RESCALE[:1]:
                for radius in radii(bench):
                    spec = _wang.component(bench, kind, radius, rescale)
                    views.append(_wang.View(view_name(kind, radius, rescale, bn), bench.test, spec, bn))
    build = classifier(bench, norm=panel == "batch norm", dropout=0.5 if panel == "dropout" else 0.0, arch=arch)
    return bench.fit(
        build,
        images,
        _wang.recipe(bench, **changes(bench, panel)),
        name=f"{panel} network",
        normalize=False,
        watch=_wang.watcher(bench, views),
    )
