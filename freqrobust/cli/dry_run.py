"""``--dry-run``: what would be measured, and what it would cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from freqrobust.core.schedule import Piece, clock_text
from freqrobust.core.stored_files import size_text

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    import torch
    from torch import nn

    from freqrobust.core.progress import Screen
    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.cost import Cost, Row
    from freqrobust.harness.evaluate import Evaluation
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import DefenseChain, PluginSpec

#: Images of the batch that is timed, and how often.
IMAGES, TIMES = 64, 3
#: Width of the first column of the table.
_KIND = 27


def plan_lines(chains: Sequence[DefenseChain], attacks: Sequence[PluginSpec[Attack]]) -> list[str]:
    """Defenses and attacks, in a line each."""
    adversarial = [one.spec for one in attacks if one.plugin.kind == "adversarial"]
    shifts = [one.spec for one in attacks if one.plugin.kind != "adversarial"]
    return [
        f"defenses: {', '.join(chain.spec for chain in chains)}",
        f"attacks: {', '.join(adversarial) or 'none'}",
        *([f"shifts of the images: {', '.join(shifts)}"] if shifts else []),
    ]


def cell_count(pieces: Sequence[Piece]) -> int:
    """How many cells the pieces are."""
    return sum(piece.cells for piece in pieces)


def show_plan(evaluation: Evaluation, run_dir: Path, json_file: str | PathLike[str] | None, screen: Screen) -> None:
    """Print the plan of an evaluation and what it costs.

    Args:
        evaluation: the evaluation.
        run_dir: its run directory, which need not exist.
        json_file: gets the same as JSON.
        screen: prints it.

    Raises:
        FreqRobustError: a model does not fit the data.
    """
    from freqrobust.core.files import write_atomically
    from freqrobust.harness.cost import estimate

    for line in plan_lines(evaluation.chains, evaluation.attacks):
        screen.say(line)
    cost = estimate(evaluation, run_dir)
    screen.show(["", *table(cost.rows, cost.total), ""])
    for line in cost_lines(cost, run_dir):
        screen.say(line)
    if json_file is None:
        screen.say("dry run: nothing was measured or written")
    else:
        write_atomically(json_file, cost.to_json())
        screen.say(f"dry run: nothing was measured, and only {json_file} was written")


def table(rows: Sequence[Row], total: Row) -> list[str]:
    """The kinds of cells with their passes and times, as lines of at most 80 characters."""
    heads = ["cells", "stored", "passes", "at most", "time", "at most"]
    lines = [f"{'':{_KIND}}{_cells(heads)}"]
    for row in [*rows, *([total] if len(rows) > 1 else [])]:
        kind = row.kind if len(row.kind) < _KIND else f"{row.kind[: _KIND - 4]}..."
        counts = [str(row.cells or "-"), str(row.stored) if row.cells else "-", short(row.passes), short(row.most)]
        lines.append(f"{kind:{_KIND}}{_cells([*counts, clock_text(row.seconds), clock_text(row.most_seconds)])}")
    return lines


def _cells(texts: Sequence[str]) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, (6, 7, 9, 9, 11, 11), strict=True))


def cost_lines(cost: Cost, run_dir: Path) -> list[str]:
    """Passes, time, memory and disk, in a line or two each."""
    total = cost.total
    step = f" and {1000 * cost.step:.3g} ms for a step of an attack" if cost.step else ""
    decode = f"; an image is decoded every {1000 * cost.decode:.3g} ms" if cost.decode else ""
    lines = [
        "passes: forward passes of one image, a backward pass counts as two; an attack stops on a sample once it is misclassified",
        f"time: about {clock_text(total.seconds)}, and {clock_text(total.most_seconds)} if attacks stop on no sample early",
        f"timed: {cost.timed} batches of up to {cost.timed_images} images, with {1000 * cost.forward:.3g} ms for a forward pass of "
        f"one image{step}{decode}",
    ]
    if cost.untimed:
        lines.append(f"not timed: {', '.join(cost.untimed)}; the training is not included")
    if cost.memory is not None:
        lines.append(f"memory: about {size_text(cost.memory)}, with batches of {cost.batch_size}")
    more, there = "", ""
    if total.stored:
        more, there = " more", f", where {total.stored} of {total.cells} cells are finished"
    return [*lines, f"disk: about {size_text(cost.disk)}{more} in {run_dir}{there}"]


def short(count: float) -> str:
    """Three digits and a unit.

    Example:
        >>> short(950), short(1234567)
        ('950', '1.23 M')
    """
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f}"


def seconds_per_pass(network: nn.Module, data: ImageData, device: torch.device, batch_size: Any) -> float:
    """Seconds of a forward pass of one image: a third of a forward and a backward pass of a batch, the fastest of a few.

    Raises:
        FreqRobustError: the model does not fit the data.
    """
    import torch

    from freqrobust.harness.opening import check_fit, prepared_model
    from freqrobust.models.class_subset import restricted

    count = min(len(data), batch_size if isinstance(batch_size, int) else IMAGES)
    with prepared_model(network, device):
        check_fit(network, data, device)
        model = restricted(network, data.class_subset, device)
        images, _, _ = data.batch(torch.arange(count), device)
        found = []
        for _ in range(TIMES):
            start = time.perf_counter()
            images = images.detach().requires_grad_(True)
            torch.autograd.grad(model(images).logsumexp(dim=1).sum(), images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            found.append(time.perf_counter() - start)
    return min(found) / (3 * count)
