"""``torchvision:NAME``: torchvision's classifiers with their published weights."""

from __future__ import annotations

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import running_user_code
from freqrobust.data.input_config import InputConfig
from freqrobust.models.normalization import NormalizationChoice
from freqrobust.models.source_table import LoadedModel, ModelRequest, ModelSource


def load(request: ModelRequest) -> LoadedModel:
    """The default weights, or those that ``:weights=NAME`` names, with their normalisation and preprocessing."""
    from torchvision.models import get_model, get_model_weights, list_models

    name, _, wanted = request.argument.partition(":weights=")
    if name not in list_models():
        raise SpecError(f"torchvision has no model {name!r}{near_miss(name, list_models())}")
    try:
        weights = get_model_weights(name)[wanted or "DEFAULT"]
    except KeyError as error:
        raise SpecError(
            f"torchvision:{name} has no weights {wanted!r} ({', '.join(get_model_weights(name).__members__)})"
        ) from error
    with running_user_code(f"the weights of torchvision:{name} cannot be downloaded", ModelError):
        network = get_model(name, weights=weights)
    preset = weights.transforms()
    known = NormalizationChoice(tuple(preset.mean), tuple(preset.std), "checkpoint")
    resize, crop = (preset.resize_size[0], preset.crop_size[0])
    config = InputConfig(
        resize, (crop, crop), preset.interpolation.value, source=f"torchvision's {weights}", channels=3
    )
    return LoadedModel(
        network, f"torchvision:{name}", known, input=config, labels=tuple(weights.meta.get("categories", ()))
    )


SOURCES = (ModelSource("torchvision:NAME[:weights=WEIGHTS]", "torchvision's classifiers, trained on ImageNet", load),)
