"""``timm:NAME``: the models of timm with their pretrained weights."""

from __future__ import annotations

import importlib.metadata
import warnings

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.text import describe_error, near_miss
from freqrobust.core.user_code import running_user_code
from freqrobust.models.normalization import NormalizationChoice
from freqrobust.models.source_table import LoadedModel, ModelRequest, ModelSource


def load(request: ModelRequest) -> LoadedModel:
    """The pretrained model with the normalisation of its configuration."""
    name = request.argument
    with running_user_code(_import_error), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm imports modules that newer versions of torch deprecate
        import timm
    if not timm.is_model(name.split(".")[0]):
        raise SpecError(f"timm has no model {name!r}{near_miss(name, timm.list_models())}")

    def failed(error: BaseException) -> ModelError:  # no network, or an incomplete download
        reason = _why_no_hub(timm.__version__) or describe_error(error)
        return ModelError(f"the weights of timm:{name} cannot be loaded: {reason}")

    with running_user_code(failed), warnings.catch_warnings():
        for deprecated in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", deprecated)
        network = timm.create_model(name, pretrained=True)
    cfg = network.pretrained_cfg
    return LoadedModel(
        network, f"timm:{name}", NormalizationChoice(tuple(cfg["mean"]), tuple(cfg["std"]), "checkpoint")
    )


def _import_error(error: BaseException) -> ModelError:
    if isinstance(error, ModuleNotFoundError) and error.name == "timm":
        return ModelError("timm: models need the extra 'zoo': pip install 'freqrobust[zoo]'")
    return ModelError(f"timm cannot be imported: {describe_error(error)}")


def _why_no_hub(version: str) -> str:
    """Why timm cannot use ``huggingface_hub``; empty if it can.

    timm reports every failed import as a missing package, also where the package is installed.
    """
    from timm.models._hub import has_hf_hub

    if has_hf_hub():
        return ""
    try:
        hub = importlib.metadata.version("huggingface_hub")
    except importlib.metadata.PackageNotFoundError:
        return "timm needs the package huggingface_hub: pip install 'freqrobust[zoo]'"
    return (
        f"timm {version} cannot import what it needs from huggingface_hub {hub}; "
        "install compatible versions: pip install 'freqrobust[zoo]'"
    )


SOURCES = (ModelSource("timm:NAME", "the pretrained models of timm (extra 'zoo')", load),)
