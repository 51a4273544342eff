"""Models: from any spec to an ``nn.Module`` that maps images in [0, 1] to logits."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from freqrobust.core.errors import DataError, FreqRobustError, ModelError, SpecError
from freqrobust.core.files import user_path
from freqrobust.core.progress import Progress, Silent
from freqrobust.core.text import describe_error, one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData
from freqrobust.models import normalization
from freqrobust.models.checkpoints import SUFFIXES
from freqrobust.models.classifier import Classifier, frozen, set_eval
from freqrobust.models.files import _from_file
from freqrobust.models.sources import Loaded, ModelRequest, _called, factory, model_sources
from freqrobust.models.zoos import _robustbench, _timm, _torchvision
from freqrobust.numerics.precision import full_precision


def load_model(
    spec: str | os.PathLike[str],
    *,
    arch: str = "auto",
    normalize: str = "auto",
    trust: bool = False,
    data: ImageData | None = None,
    device: torch.device | str = "cpu",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Classifier:
    """Load a model from any spec, normalisation inside.

    Args:
        spec: a file (``.pt .pth .th .ckpt .safetensors .pt2``), ``torchvision:NAME``, ``timm:NAME``,
            ``robustbench:NAME``, ``module:callable``, ``file.py:callable``, or ``demo``.
        arch: ``auto``, a name (see ``freqrobust list archs``), ``torchvision:NAME``, ``file.py:factory`` or
            ``module:factory``; the network that a state dict is loaded into.
        normalize: ``auto``, ``none``, a preset or ``m1,m2,m3/s1,s2,s3``.
        trust: allow checkpoints whose loading can run code.
        data: samples on which normalisations are tried.
        device: where the model goes.
        cache_dir: where the demo keeps its trained network.
        progress: told what takes long.

    Raises:
        ModelError: it cannot be loaded, or its normalisation is not clear.
        SpecError: an option is wrong.
    """
    spec = os.fspath(spec)
    given = None if normalize == "auto" else normalization.parse(normalize)
    loaded = _load(ModelRequest(spec, spec.partition(":")[2], trust, cache_dir, progress or Silent()), arch)
    known = given or loaded.known
    network = loaded.network
    network = network.to(device)
    images = labels = None
    if data is not None:
        samples = data.limit(min(normalization.TRIAL_SAMPLES, len(data)))
        images, labels, _ = samples.batch(torch.arange(len(samples)), torch.device(device))
    with full_precision(), frozen(network), running_user_code(lambda error: misfit(network, data, error)):
        chosen = normalization.choose(network, known, images, labels)
    if data is not None:
        normalization.check_channels(chosen, data.shape[0])
    classifier = Classifier(network, chosen, spec, loaded.arch, loaded.sha256).to(device)
    classifier.note = loaded.note
    classifier.published = loaded.published
    set_eval(classifier)
    return classifier


def misfit(network: nn.Module, data: ImageData | None, error: BaseException) -> FreqRobustError:
    """Why a model fails on these images, in words."""
    if data is None or not isinstance(error, Exception):
        return ModelError(f"the model fails: {describe_error(error)}")
    text = one_line(error) or describe_error(error)
    channels = data.shape[0]
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        kind = {1: "grayscale", 3: "RGB"}.get(channels, f"{channels}-channel")
        return DataError(f"{data.spec} holds {kind} images, but the model takes {first.in_channels} channels")
    return ModelError(f"the model fails on images of shape {data.shape}: {text[:200]}")


def _load(request: ModelRequest, arch: str) -> Loaded:
    spec, name, trust = request.spec, request.name, request.trust
    prefix = spec.partition(":")[0]
    if prefix in model_sources():
        loaded: Loaded = model_sources()[prefix].load()(request)
        return loaded
    if prefix == "torchvision" and name:
        return _torchvision(name)
    if prefix == "timm" and name:
        return _timm(name)
    if prefix == "robustbench" and name:
        return _robustbench(spec, trust)
    path = user_path(spec, "--model") if spec else None
    if path is not None and path.suffix in SUFFIXES:
        return _from_file(path, arch, trust)
    if prefix and name and name.isidentifier():
        # complete as it is, like a model made in Python
        return Loaded(_called(factory(spec, "model"), spec), spec, normalization.preset("none", "none"))
    if path is not None and path.exists():
        raise ModelError(f"{spec}: expected a file ending in {' '.join(SUFFIXES)}")
    raise SpecError(
        f"unknown model {spec!r} (a file {' '.join(SUFFIXES)}, torchvision:NAME, timm:NAME, robustbench:NAME, "
        f"module:callable or file.py:callable)"
    )
