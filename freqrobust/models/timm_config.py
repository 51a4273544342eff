"""What timm knows about a network: how it expects images, its normalisation and the names of its classes."""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch import nn

from freqrobust.core.user_code import running_user_code
from freqrobust.data.input_config import InputConfig
from freqrobust.models.normalization import NormalizationChoice


def timm_input(network: nn.Module, name: str) -> tuple[InputConfig, NormalizationChoice]:
    """The input and the normalisation of a network of timm, as ``resolve_model_data_config`` gives them.

    Args:
        network: has timm's ``pretrained_cfg``.
        name: its name, for the source.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm imports modules that newer versions of torch deprecate
        from timm.data import create_transform, resolve_model_data_config
    values: dict[str, Any] = resolve_model_data_config(network)
    channels, height, width = values["input_size"]
    mode, share = values["crop_mode"], values["crop_pct"]
    scaled = math.floor(height / share), math.floor(width / share)
    resize: int | tuple[int, int] = scaled[0] if mode == "center" and scaled[0] == scaled[1] else scaled
    detail = None
    if mode == "border":
        detail = f"with the aspect ratio kept and borders of {[round(255 * value) for value in values['mean']]}"
    elif mode == "center" and isinstance(resize, tuple):
        detail = "with the aspect ratio kept"
    config = InputConfig(
        resize,
        (height, width),
        values["interpolation"],
        source=f"timm's configuration of {name}",
        channels=channels if channels in (1, 3) else None,
        detail=detail,
        pipeline=create_transform(**values, is_training=False, normalize=False),
    )
    return config, NormalizationChoice(tuple(values["mean"]), tuple(values["std"]), "checkpoint")


def timm_labels(network: nn.Module, published: bool) -> tuple[str, ...]:
    """The names of the classes; of networks that timm published, those of ImageNet where their number says so.

    Args:
        network: has timm's ``pretrained_cfg``.
        published: whether timm published its weights.
    """
    cfg: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    names, described = cfg.get("label_names"), cfg.get("label_descriptions") or {}
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    if names and len(names) == getattr(network, "num_classes", len(names)):
        return tuple(str(described.get(name, name)) for name in names)
    if not published:
        return ()
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(network)
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset is not None else ()


def input_of(model: nn.Module) -> InputConfig | None:
    """How a module expects images: its ``input``, or timm's configuration of it or of its only network of timm."""
    own = getattr(model, "input", None)
    if isinstance(own, InputConfig):
        return own
    networks = [part for part in model.modules() if isinstance(getattr(part, "pretrained_cfg", None), dict)]
    if len(networks) != 1:
        return None
    cfg: dict[str, Any] = networks[0].pretrained_cfg  # type: ignore[assignment]
    if "input_size" not in cfg:
        return None
    with running_user_code(f"timm's configuration of {type(networks[0]).__name__} cannot be used"):
        return timm_input(networks[0], ".".join(filter(None, (cfg.get("architecture"), cfg.get("tag")))))[0]
