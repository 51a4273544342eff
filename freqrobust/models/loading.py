"""Models by spec: an ``nn.Module`` that maps images in [0, 1] to logits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from freqrobust.core.errors import DataError, FreqRobustError, ModelError
from freqrobust.core.progress import Progress, Silent
from freqrobust.core.text import describe_error, one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData
from freqrobust.data.input_config import InputConfig
from freqrobust.models import normalization
from freqrobust.models.classifier import Classifier, frozen, set_eval
from freqrobust.models.known_trials import known_or_made
from freqrobust.models.normalization import NormalizationChoice
from freqrobust.models.source_table import LoadedModel, ModelRequest, model_sources
from freqrobust.models.timm_config import input_of
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
        spec: a file, a name or a callable; ``freqrobust list models`` prints the forms.
        arch: ``auto``, a name (see ``freqrobust list archs``), ``torchvision:NAME``, ``file.py:factory`` or
            ``module:factory``; the network that a state dict is loaded into.
        normalize: ``auto``, ``none``, a preset or ``m1,m2,m3/s1,s2,s3``.
        trust: allow checkpoints whose loading can run code.
        data: samples on which normalisations are compared.
        device: the device of the returned model.
        cache_dir: directory for networks that a source trains or downloads.
        progress: reports long operations.

    Raises:
        ModelError: the model cannot be loaded, or its normalisation is ambiguous.
        SpecError: the spec or an option is invalid.
    """
    network = load_network(spec, arch=arch, normalize=normalize, trust=trust, cache_dir=cache_dir, progress=progress)
    return with_normalization(network, data, device, cache_dir)


@dataclass(frozen=True)
class LoadedNetwork:
    """A network whose normalisation may still have to be found on data.

    Attributes:
        spec: the model spec.
        loaded: the network and what its source knows.
        given: the normalisation that the user gave.
    """

    spec: str
    loaded: LoadedModel
    given: NormalizationChoice | None

    @property
    def input(self) -> InputConfig | None:
        """How the network expects images, where its source says it."""
        return self.loaded.input or input_of(self.loaded.network)


def load_network(
    spec: str | os.PathLike[str],
    *,
    arch: str = "auto",
    normalize: str = "auto",
    trust: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> LoadedNetwork:
    """The first half of :func:`load_model`, which needs no data; how the network expects images is known then."""
    spec = os.fspath(spec)
    given = None if normalize == "auto" else normalization.parse(normalize)
    return LoadedNetwork(spec, _loaded(ModelRequest(spec, arch, trust, cache_dir, progress or Silent())), given)


def with_normalization(
    unfinished: LoadedNetwork,
    data: ImageData | None,
    device: torch.device | str = "cpu",
    cache_dir: Path | None = None,
) -> Classifier:
    """The second half of :func:`load_model`: the normalisation is found, and becomes the first layer."""
    loaded, known = unfinished.loaded, unfinished.given or unfinished.loaded.known
    network = loaded.network.to(device)
    where = torch.device(device)
    with full_precision(), frozen(network), running_user_code(lambda error: misfit(network, data, error)):
        correct = _tried(network, data, known, where, cache_dir) if data is not None else {}
        choice = normalization.choose(known, correct)
    if data is not None:
        normalization.check_channels(choice, data.shape[0])
    classifier = Classifier(network, choice, unfinished.spec, loaded.arch, loaded.sha256).to(device)
    classifier.note = loaded.note
    classifier.published = loaded.published
    classifier.input, classifier.labels = unfinished.input, loaded.labels
    set_eval(classifier)
    return classifier


def _tried(
    network: nn.Module,
    data: ImageData,
    known: NormalizationChoice | None,
    device: torch.device,
    cache_dir: Path | None,
) -> dict[str, torch.Tensor]:
    """Which of the first samples are classified correctly with each normalisation."""
    samples = data.limit(min(normalization.TRIAL_SAMPLES, len(data)))

    def make() -> dict[str, torch.Tensor]:
        images, labels, _ = samples.batch(torch.arange(len(samples)), device)
        if data.class_subset:  # the predictions of the trial are of all classes
            labels = torch.tensor(data.class_subset, device=labels.device)[labels]
        return normalization.trial(network, images, labels, known)

    return known_or_made(cache_dir, network, samples, known, device, make)


def _loaded(request: ModelRequest) -> LoadedModel:
    """The network of a spec, from its source."""
    source = model_sources.find(request.spec)
    with running_user_code(f"{request.spec} cannot be loaded", ModelError):
        model = source.load(request)
    if isinstance(model, nn.Module):  # complete, like a model constructed in Python
        return LoadedModel(model, request.spec, normalization.preset("none", "none"))
    if not isinstance(model, LoadedModel):
        raise ModelError(
            f"{request.spec}: its source should return a LoadedModel or an nn.Module, but returned "
            f"{type(model).__name__}"
        )
    return model


def misfit(network: nn.Module, data: ImageData | None, error: BaseException) -> FreqRobustError:
    """The error about a model that fails on these images."""
    if data is None or not isinstance(error, Exception):
        return ModelError(f"the model fails: {describe_error(error)}")
    text = one_line(error) or describe_error(error)
    channels = data.shape[0]
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        kind = {1: "grayscale", 3: "RGB"}.get(channels, f"{channels}-channel")
        return DataError(f"{data.spec} contains {kind} images, but the model takes {first.in_channels} channels")
    return ModelError(f"the model fails on images of shape {data.shape}: {text[:200]}")
