"""Training on changed images: frequency filters and corruptions of the whole training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from freqrobust.core.errors import SpecError
from freqrobust.data.dataset import ImageData
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.specs import PluginSpec

BATCH = 500


def shifted(data: ImageData, plugin_specs: Sequence[PluginSpec[Attack]], seed: int = 0) -> ImageData:
    """The data after shifts, applied in this order; pixels become float32, and may leave [0, 1] as the shifts leave it.

    Raises:
        SpecError: one of them is no shift, or needs a model.
    """
    for plugin_spec in plugin_specs:
        if plugin_spec.plugin.kind != "shift" or plugin_spec.plugin.needs_gradient:
            raise SpecError(f"{plugin_spec.spec} is no shift of the input; give lfc, hfc, bandpass or a corruption")
        plugin_spec.plugin.check_data(data)
        parts = []
        for chunk in torch.arange(len(data)).split(BATCH):
            images, labels, ids = data.batch(chunk, torch.device("cpu"))
            parts.append(plugin_spec.plugin.perturb(nn.Identity(), images, labels, AttackContext(ids, seed=seed)))
        name = f"{data.spec}+{plugin_spec.spec}"
        data = replace(data, images=torch.cat(parts).float(), spec=name)
    return data
