"""Trials of normalisations that were made before: the same network on the same samples needs no passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.files import identity, write_atomically
from freqrobust.core.source_hash import code_hash
from freqrobust.core.version import __version__
from freqrobust.data.dataset import ImageData
from freqrobust.models.fingerprint import fingerprint
from freqrobust.models.normalization import PRESETS, NormalizationChoice

#: The folder of the cache.
FOLDER = "trials"
Correct = dict[str, torch.Tensor]


def known_or_made(
    cache_dir: Path | None,
    network: nn.Module,
    samples: ImageData,
    also: NormalizationChoice | None,
    device: torch.device,
    make: Callable[[], Correct],
) -> Correct:
    """Which samples are classified correctly with each normalisation, ``{name: bool (N,)}``.

    Args:
        cache_dir: where results are kept; None for nowhere.
        network: the network without a normalisation.
        samples: the samples of the trial.
        also: a normalisation that is tried beside the presets.
        device: where the network is run.
        make: makes the trial.
    """
    if cache_dir is None:
        return make()
    path = cache_dir / FOLDER / f"{_key(network, samples, also, device)}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        correct = {name: torch.tensor([flag == "1" for flag in flags]) for name, flags in found.items()}
        if correct and all(len(flags) == len(samples) for flags in correct.values()):
            return correct
    except (OSError, ValueError, AttributeError, TypeError):  # not there, or not what was written
        pass
    correct = make()
    flags = {name: "".join("1" if flag else "0" for flag in hits.tolist()) for name, hits in correct.items()}
    try:
        write_atomically(path, json.dumps(flags))
    except FreqRobustError:  # it is made again the next time
        pass
    return correct


def _key(network: nn.Module, samples: ImageData, also: NormalizationChoice | None, device: torch.device) -> str:
    """The identity of a trial: all that its result depends on."""
    classes = {type(module).__module__ for module in network.modules()}
    own = sorted(name for name in classes if name.startswith("freqrobust."))
    return identity(
        {
            "version": [__version__, torch.__version__, code_hash(["freqrobust.models.normalization", *own])],
            "network": fingerprint(network),
            "samples": samples.sha256,
            "presets": PRESETS,
            "also": [also.preset, also.mean, also.std] if also is not None else None,
            "device": device.type,
        }
    )
