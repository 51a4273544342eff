"""``demo``: a small CNN that is trained on scikit-learn's digits when it is first used."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from freqrobust.core.errors import FreqRobustError, JournalError
from freqrobust.core.files import identity
from freqrobust.core.progress import Progress
from freqrobust.core.source_hash import code_hash
from freqrobust.data.source_table import DataRequest
from freqrobust.data.sources import digits
from freqrobust.models import normalization
from freqrobust.models.architectures import SmallCNN
from freqrobust.models.classifier import Classifier
from freqrobust.models.files import save_model
from freqrobust.models.loading import load_model
from freqrobust.models.source_table import LoadedModel, ModelRequest, ModelSource
from freqrobust.training.loop import fit
from freqrobust.training.plan import sgd_plan

EPOCHS, RATE, BATCH = 12, 0.1, 64


def load(request: ModelRequest) -> LoadedModel:
    """The demo classifier, with about 97 % accuracy on the test split; trained within seconds, then cached."""
    network = _cached(request.cache_dir, request.progress)
    return LoadedModel(network, "small_cnn", normalization.preset("none", "none"))


def _cached(cache_dir: Path | None, progress: Progress) -> torch.nn.Module:
    key = identity(["demo", EPOCHS, RATE, BATCH, code_hash([__name__]), torch.__version__])
    path = cache_dir / "models" / f"demo-{key}.pt" if cache_dir is not None else None
    if path is not None and path.exists():
        with contextlib.suppress(FreqRobustError):  # a damaged file is replaced
            return load_model(path).network
    network = _trained(progress)
    if path is not None:
        try:
            save_model(Classifier(network, normalization.preset("none", "none"), "demo", "small_cnn", None), path)
        except JournalError as error:
            progress.say(f"warning: {error}")
    return network


def _trained(progress: Progress) -> torch.nn.Module:
    data = digits.load(DataRequest("digits", split="train"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SmallCNN(num_classes=10, in_channels=1)
    plan = sgd_plan(EPOCHS, RATE, batch_size=BATCH)
    fit(network, data, plan, device=torch.device("cpu"), progress=progress, label="demo model")
    return network


SOURCE = ModelSource("demo", "a small CNN, trained on digits when first used", load)
