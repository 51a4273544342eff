"""``timm:NAME``: the models of timm with their pretrained weights, from the hub, its cache or a local folder."""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.text import describe_error, near_miss
from freqrobust.core.user_code import running_user_code
from freqrobust.models.hub import HubAccess, local_folder, weights_only
from freqrobust.models.source_table import LoadedModel, ModelRequest, ModelSource
from freqrobust.models.timm_config import timm_input, timm_labels

_CONFIG, _WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")


def load(request: ModelRequest) -> LoadedModel:
    """The pretrained model with the normalisation and the preprocessing of its configuration.

    Raises:
        SpecError: timm has no such model.
        ModelError: timm or the weights are missing, or they do not fit the model.
    """
    name = request.argument
    with running_user_code(_import_error), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm imports modules that newer versions of torch deprecate
        import timm
    folder = local_folder(name)
    on_hub = folder is None and "/" in name
    if folder is None and not on_hub and not timm.is_model(name.split(".")[0]):
        raise SpecError(
            f"timm has no model {name!r}{near_miss(name, timm.list_models())}; a folder is given as timm:./DIR"
        )
    if folder is not None:
        architecture, options = _from_folder(folder, timm)
    else:
        architecture, options = f"hf-hub:{name}" if on_hub else name, {}
    network = _created(name, architecture, options, request.trust)
    cfg: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    tagged = ".".join(filter(None, (cfg.get("architecture") or name, cfg.get("tag"))))
    config, known = timm_input(network, name if folder is not None or on_hub else tagged)
    labels = timm_labels(network, published=folder is None and (not on_hub or name.startswith("timm/")))
    return LoadedModel(network, f"timm:{name}", known, input=config, labels=labels)


def _created(name: str, architecture: str, options: dict[str, Any], trust: bool) -> nn.Module:
    import timm

    access = HubAccess()

    def failed(error: BaseException) -> ModelError:  # no network, an incomplete download, or a damaged file
        reason = _why_no_hub(timm.__version__) or (
            access.missing(f"timm:{name}") if _absent(error) else describe_error(error)
        )
        return ModelError(f"the weights of timm:{name} cannot be loaded: {reason}")

    with running_user_code(failed), warnings.catch_warnings(), weights_only(not trust), access:
        for deprecated in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", deprecated)
        network: nn.Module = timm.create_model(architecture, pretrained=True, **options)
    return network


def _absent(error: BaseException) -> bool:
    """Whether a file is neither in the cache nor can it be downloaded."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    return isinstance(error, HfHubHTTPError | LocalEntryNotFoundError | OfflineModeIsEnabled)


def _from_folder(folder: Path, timm: Any) -> tuple[str, dict[str, Any]]:
    """Architecture and options of ``create_model`` for a folder with timm's ``config.json`` and the weights.

    Raises:
        ModelError: a file is missing, or the configuration is not one of timm.
    """
    what = f"timm:{folder}"
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if not (folder / _CONFIG).is_file() or weights is None:
        raise ModelError(f"{what}: expected a folder with {_CONFIG} and {' or '.join(_WEIGHTS)}, as timm's hub has")
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        cfg = dict(config.get("pretrained_cfg") or config)
        architecture = str(config.get("architecture") or cfg["architecture"])
        arguments = dict(config.get("model_args") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{what}: {_CONFIG} is not a configuration of timm: {describe_error(error)}") from error
    if not timm.is_model(architecture):
        raise ModelError(f"{what}: {_CONFIG} names the architecture {architecture!r}, which timm does not have")
    from timm.models import PretrainedCfg

    cfg |= {key: config[key] for key in ("num_classes", "label_names", "label_descriptions") if key in config}
    known = {key: value for key, value in cfg.items() if key in PretrainedCfg.__dataclass_fields__}
    for key in ("source", "url", "hf_hub_id", "hf_hub_filename"):
        known.pop(key, None)
    return architecture, {"pretrained_cfg": {**known, "file": str(weights)}, **arguments}


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


SOURCES = (
    ModelSource("timm:NAME|ORG/NAME|DIR", "timm's pretrained models, of the hub or a folder (extra 'zoo')", load),
)
