"""Models of torchvision, timm and RobustBench."""

from __future__ import annotations

import importlib.metadata
import warnings

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.text import describe_error, near_miss
from freqrobust.core.user_code import running_user_code
from freqrobust.models import normalization
from freqrobust.models.sources import Loaded


def _torchvision(name: str) -> Loaded:
    from torchvision.models import get_model_weights, list_models

    name, _, wanted = name.partition(":weights=")
    if name not in list_models():
        raise SpecError(f"torchvision has no model {name!r}{near_miss(name, list_models())}")
    from torchvision.models import get_model

    try:
        weights = get_model_weights(name)[wanted or "DEFAULT"]
    except KeyError as error:
        raise SpecError(
            f"torchvision:{name} has no weights {wanted!r} ({', '.join(get_model_weights(name).__members__)})"
        ) from error
    with running_user_code(f"the weights of torchvision:{name} cannot be fetched", ModelError):
        network = get_model(name, weights=weights)
    preset = weights.transforms()
    known = normalization.Chosen(tuple(preset.mean), tuple(preset.std), "checkpoint")
    return Loaded(network, f"torchvision:{name}", known)


def _timm_missing(error: BaseException) -> ModelError:
    if isinstance(error, ModuleNotFoundError) and error.name == "timm":
        return ModelError("timm: models need the extra 'zoo': pip install 'freqrobust[zoo]'")
    return ModelError(f"timm cannot be imported: {describe_error(error)}")


def _timm(name: str) -> Loaded:
    with running_user_code(_timm_missing), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm imports what newer versions of torch deprecate
        import timm
    if not timm.is_model(name.split(".")[0]):
        raise SpecError(f"timm has no model {name!r}{near_miss(name, timm.list_models())}")

    def unloadable(error: BaseException) -> ModelError:  # no network, broken download
        reason = _timm_without_hub(timm.__version__) or describe_error(error)
        return ModelError(f"the weights of timm:{name} cannot be loaded: {reason}")

    with running_user_code(unloadable), warnings.catch_warnings():
        for deprecated in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", deprecated)
        network = timm.create_model(name, pretrained=True)
    cfg = network.pretrained_cfg
    return Loaded(network, f"timm:{name}", normalization.Chosen(tuple(cfg["mean"]), tuple(cfg["std"]), "checkpoint"))


def _timm_without_hub(version: str) -> str:
    """Why timm cannot use ``huggingface_hub``; empty if it can.

    timm takes any failed import for a missing package, and advises to install what may be there.
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
        "install versions that fit: pip install 'freqrobust[zoo]'"
    )


def _robustbench(spec: str, trust: bool) -> Loaded:
    from freqrobust.models.robustbench import load_network

    network, entry, published = load_network(spec, trust)
    known = normalization.preset("none", "none")  # it is inside of the network
    return Loaded(network, f"robustbench:{entry.name}", known, entry.sha256, published=published)
