"""Which samples a network classifies correctly after an attack or a shift, without a report around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from freqrobust.core.progress import Progress, Silent
from freqrobust.data.dataset import ImageData
from freqrobust.harness.cell import measure, measure_clean
from freqrobust.harness.examples import undefended_target
from freqrobust.harness.opening import prepared_model
from freqrobust.harness.outcome import Outcome
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
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> list[NDArray[np.bool_]]:
    """Which samples are correct after each attack or shift, ``(n,)`` each, as ``evaluate`` measures it.

    Afterwards the modes and the device of the network are those from before. The clean images are predicted only where
    they are asked for, or an attack needs to know which of them are correct.

    Args:
        network: images in [0, 1] to logits.
        data: the samples.
        plugin_specs: attacks and shifts; None stands for the clean images.
        device: where the network runs.
        seed: all randomness of the attacks is seeded by it.
        batch_size: images per forward pass; None chooses it by the device, which changes no result but those of networks
            that predict a batch as a whole.
        progress: reports every batch.

    Raises:
        FreqRobustError: an attack does not fit the data, or fails.
    """
    adversarial = any(
        plugin_spec is not None and plugin_spec.plugin.kind == "adversarial" for plugin_spec in plugin_specs
    )
    with full_precision(), prepared_model(network, device):
        target_model, batches = undefended_target(
            network,
            data,
            device,
            seed=seed,
            batch_size=batch_size or "auto",
            attacked=adversarial,
            progress=progress or Silent(),
        )
        clean: Outcome | None = None
        results = []
        for plugin_spec in plugin_specs:
            if clean is None and (plugin_spec is None or plugin_spec.plugin.kind == "adversarial"):
                clean = measure_clean(target_model, batches)
            if plugin_spec is None:
                assert clean is not None
                outcome = clean
            else:
                plugin_spec.plugin.check_data(data)
                outcome = measure(plugin_spec, target_model, batches, clean, None, seed, rounding=False)
            results.append(outcome.right.astype(bool))
        return results
