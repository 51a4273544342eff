"""Training on changed images: frequency filters and corruptions of the whole training set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from freqrobust.core.errors import SpecError
from freqrobust.data.changed_images import changed
from freqrobust.data.dataset import ImageData
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.specs import PluginSpec


def shifted(data: ImageData, plugin_specs: Sequence[PluginSpec[Attack]], seed: int = 0) -> ImageData:
    """The data after shifts, applied in this order; pixels become float32, and may leave [0, 1] as the shifts leave it.

    Images in files are changed whenever they are used: the result of a shift for an image depends on nothing but its id.

    Raises:
        SpecError: one of them is no shift, or needs a model.
    """
    for plugin_spec in plugin_specs:
        if plugin_spec.plugin.kind != "shift" or plugin_spec.plugin.needs_gradient:
            raise SpecError(f"{plugin_spec.spec} is no shift of the input; give lfc, hfc, bandpass or a corruption")
        plugin_spec.plugin.check_data(data)
    if not plugin_specs:
        return data

    def change(data: ImageData, index: torch.Tensor) -> torch.Tensor:
        images, labels, ids = data.batch(index, torch.device("cpu"))
        for plugin_spec in plugin_specs:
            context = AttackContext(ids, seed=seed)
            images = plugin_spec.plugin.perturb(nn.Identity(), images, labels, context).float().contiguous()
        return images

    name = "+".join(plugin_spec.spec for plugin_spec in plugin_specs)
    about = f"{seed} {[(plugin_spec.params, plugin_spec.code) for plugin_spec in plugin_specs]}"
    return changed(data, change, name, about, torch.float32)
