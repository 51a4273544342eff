"""Pictures of a training: loss, clean accuracy and probes by epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from freqrobust.results.figures import COLOURS, COLUMN, LINES, MARKERS, figure, wrapped
from freqrobust.results.training_record import EpochRecord, ProbeResult, Share, best_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Most epochs whose points have markers.
_MARKED = 15
#: Most names of probes side by side in the legend.
_COLUMNS = 3


def draw(records: Sequence[EpochRecord]) -> Figure:
    """The curves of a training. Call it within :func:`freqrobust.results.figures.styled`.

    Panels: the loss; the accuracy on clean images; the other probes on held-out and on training samples. Bands are 95 %
    Wilson intervals over the samples, the thin horizontal line is the chance level, and the vertical line the best epoch.

    Args:
        records: of the epochs, in their order; at least one.

    Raises:
        ValueError: there is none.
    """
    if not records:
        raise ValueError("there is no epoch to draw")
    panels: list[Callable[[Axes, Sequence[EpochRecord]], None]] = [_loss, _clean]
    fullest = max(records, key=lambda record: len(record.probes))
    others = list(dict.fromkeys(r.name for record in [fullest, *records] for r in record.probes if r.kind != "clean"))
    held_out = any(r.held_out is not None for record in records for r in record.probes)
    if others and held_out:
        panels.append(partial(_probes, names=others, title="probes on held-out samples", part=_held_out))
    if others:
        panels.append(partial(_probes, names=others, title="probes on training samples", part=_train))
    rows = -(-len(panels) // 2)
    below = -(-len(others) // _COLUMNS) * 0.13
    drawn = figure(1.75 * rows + below, 2 * COLUMN)
    for number, panel in enumerate(panels):
        axes = drawn.add_subplot(rows, 2, number + 1)
        panel(axes, records)
        _decorate(axes, records)
    if others:
        lines, labels = drawn.axes[2].get_legend_handles_labels()
        drawn.legend(lines, labels, loc="outside lower center", ncols=min(_COLUMNS, len(others)))
    return drawn


def _train(result: ProbeResult) -> Share | None:
    return result.train


def _held_out(result: ProbeResult) -> Share | None:
    return result.held_out


def _loss(axes: Axes, records: Sequence[EpochRecord]) -> None:
    axes.set_title("loss of the training batches")
    _line(axes, [(r.epoch, r.loss) for r in records], 0, "")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=min(0.0, *(r.loss for r in records)))


def _clean(axes: Axes, records: Sequence[EpochRecord]) -> None:
    axes.set_title("clean images")
    _line(axes, [(r.epoch, r.accuracy) for r in records], 2, "training batches")
    name = next((r.name for record in records for r in record.probes if r.kind == "clean"), "")
    _shares(axes, records, name, _train, 0, "training samples")
    _shares(axes, records, name, _held_out, 1, "held-out samples")
    _accuracy_axis(axes, records)
    axes.legend(loc="best")


def _probes(
    axes: Axes,
    records: Sequence[EpochRecord],
    names: Sequence[str],
    title: str,
    part: Callable[[ProbeResult], Share | None],
) -> None:
    axes.set_title(title)
    for number, name in enumerate(names):
        _shares(axes, records, name, part, number, wrapped(name, 44))
    _accuracy_axis(axes, records)


def _shares(
    axes: Axes,
    records: Sequence[EpochRecord],
    name: str,
    part: Callable[[ProbeResult], Share | None],
    number: int,
    label: str,
) -> None:
    """The accuracy under a probe with its band, at the epochs at which it was measured."""
    found = [(record.epoch, part(r)) for record in records for r in record.probes if r.name == name]
    shares = [(epoch, share) for epoch, share in found if share is not None]
    if not shares:
        return
    _line(axes, [(epoch, share.accuracy) for epoch, share in shares], number, label)
    low, high = zip(*(share.ci95 for _, share in shares), strict=True)
    epochs = [epoch for epoch, _ in shares]
    colour = COLOURS[number % len(COLOURS)]
    if len(shares) == 1:  # a band of one point has no width
        axes.vlines(epochs, low, high, color=colour, alpha=0.4, linewidth=2)
    axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)


def _line(axes: Axes, points: Sequence[tuple[int, float]], number: int, label: str) -> None:
    x, y = zip(*points, strict=True)
    axes.plot(
        x,
        y,
        LINES[number // len(COLOURS) % len(LINES)],
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)] if len(points) <= _MARKED else None,
        label=label or None,
    )


def _accuracy_axis(axes: Axes, records: Sequence[EpochRecord]) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    chance = next((r.chance for record in records for r in record.probes), None)
    if chance is not None:
        axes.axhline(chance, color="0.4", linewidth=0.5, linestyle="-", zorder=0)
        axes.annotate(
            "chance", (1, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=5, color="0.4"
        )


def _decorate(axes: Axes, records: Sequence[EpochRecord]) -> None:
    from matplotlib.ticker import MaxNLocator

    best = best_epoch(records)
    if best is not None and len(records) > 1:
        axes.axvline(best, color="0.6", linewidth=0.6, linestyle=":", zorder=0)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
