"""Which samples a network classifies correctly after an attack or a shift, without a report around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from freqrobust.core.progress import Progress, Silent
from freqrobust.data.dataset import ImageData
from freqrobust.harness.batches import Batches
from freqrobust.harness.cell import measure, measure_clean
from freqrobust.harness.devices import auto_batch_size
from freqrobust.harness.opening import prepared_model
from freqrobust.harness.target_model import TargetModel
from freqrobust.numerics.precision import full_precision
from freqrobust.plugins.base import Attack
from freqrobust.plugins.specs import PluginSpec


def correct_samples(
    network: nn.Module,
    data: ImageData,
    plugin_specs: Sequence[PluginSpec[Attack] | None],
    *,
    device: torch.device,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[NDArray[np.bool_]]:
    """Which samples are correct after each attack or shift, ``(n,)`` each, as ``evaluate`` measures it.

    Afterwards the modes and the device of the network are those from before.

    Args:
        network: images in [0, 1] to logits.
        data: the samples.
        plugin_specs: attacks and shifts; None stands for the clean images.
        device: where the network runs.
        seed: all randomness of the attacks is seeded by it.
        progress: reports every batch.

    Raises:
        FreqRobustError: an attack does not fit the data, or fails.
    """
    with full_precision(), prepared_model(network, device):
        images, _, _ = data.batch(torch.arange(min(2, len(data))), device)
        target_model = TargetModel(network, network, images, device=device, seed=seed)
        batch_size = auto_batch_size(network, data.shape, device)
        batches = Batches(data, device, batch_size, True, progress or Silent())
        clean = measure_clean(target_model, batches)
        results = []
        for plugin_spec in plugin_specs:
            if plugin_spec is not None:
                plugin_spec.plugin.check_data(data)
            outcome = clean if plugin_spec is None else measure(plugin_spec, target_model, batches, clean, None, seed)
            results.append(outcome.right.astype(bool))
        return results
