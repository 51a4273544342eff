"""``--dry-run``: what would be measured, and about how long it would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from freqrobust.core.schedule import Piece, clock_text

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.data.dataset import ImageData
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import DefenseChain, PluginSpec

#: Images of the batch that is timed, and how often.
IMAGES, TIMES = 64, 3


def plan_lines(
    chains: Sequence[DefenseChain], attacks: Sequence[PluginSpec[Attack]], pieces: Sequence[Piece]
) -> list[str]:
    """Defenses, attacks and the number of pieces of work, in a line each."""
    adversarial = [one.spec for one in attacks if one.plugin.kind == "adversarial"]
    shifts = [one.spec for one in attacks if one.plugin.kind != "adversarial"]
    return [
        f"defenses: {', '.join(chain.spec for chain in chains)}",
        f"attacks: {', '.join(adversarial) or 'none'}",
        *([f"shifts of the images: {', '.join(shifts)}"] if shifts else []),
        f"cells: {cell_count(pieces)}",
    ]


def cell_count(pieces: Sequence[Piece]) -> int:
    """How many of the pieces are no checks."""
    return sum(not piece.label.startswith("checking ") for piece in pieces)


def show_plan(
    networks: Sequence[nn.Module],
    data: ImageData,
    device: torch.device,
    batch_size: Any,
    chains: Sequence[DefenseChain],
    attacks: Sequence[PluginSpec[Attack]],
    pieces: Sequence[Piece],
    say: Callable[[str], None],
) -> None:
    """Print the plan of an evaluation, with a time that follows from timed passes of each model.

    Raises:
        FreqRobustError: a model does not fit the data.
    """
    for line in plan_lines(chains, attacks, [piece for _ in networks for piece in pieces]):
        say(line)
    seconds = [seconds_per_pass(network, data, device, batch_size) for network in networks]
    work, most = sum(piece.work for piece in pieces), sum(piece.most for piece in pieces)
    say(
        f"passes: at most about {len(networks) * most:,.0f} forward passes of one image (a backward pass counts as two); "
        f"about {len(networks) * work:,.0f} are expected, as an attack leaves a sample once it is misclassified"
    )
    expected, longest = (sum(one * count for one in seconds) for count in (work, most))
    say(f"time: about {clock_text(expected)} ({clock_text(longest)} at most), from {TIMES} timed batches")
    say("dry run: nothing was measured or written")


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
