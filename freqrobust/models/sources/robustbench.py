"""``robustbench:NAME``: the models of RobustBench (Croce et al. 2021), with the accuracies that it publishes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.files import cache_root
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import running_user_code
from freqrobust.data.input_config import InputConfig
from freqrobust.data.robustbench_package import line, package, quiet
from freqrobust.models.hub import weights_only
from freqrobust.models.normalization import preset
from freqrobust.models.source_table import LoadedModel, ModelRequest, ModelSource
from freqrobust.plugins.specs import spec_options
from freqrobust.results.records import PublishedRecord


@dataclass(frozen=True)
class Entry:
    """One model of the zoo; ``files`` are the files of its weights, none where another library stores them."""

    name: str
    dataset: str
    threat_model: str
    files: tuple[Path, ...]

    @property
    def spec(self) -> str:
        return f"robustbench:{self.name}:dataset={self.dataset},threat_model={self.threat_model}"

    @property
    def sha256(self) -> str | None:
        """Hash of the files."""
        if not self.files or not all(file.is_file() for file in self.files):
            return None
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.read_bytes())
        return digest.hexdigest()


def model_dir() -> Path:
    """The directory of downloaded weights: ``<directory>/<dataset>/<threat model>/NAME.pt``."""
    return cache_root() / "robustbench"


def load(request: ModelRequest) -> LoadedModel:
    """``robustbench:NAME[:dataset=cifar10,threat_model=Linf]``; the network includes its normalisation.

    Raises:
        SpecError: the model is unknown.
        ModelError: the package is missing, or the weights are missing, damaged or of another network.
    """
    name, _, text = request.argument.partition(":")
    options = spec_options(text, request.spec, ("dataset", "threat_model"))
    entry = find(name, options.get("dataset", "cifar10"), options.get("threat_model", "Linf"))
    missing = [file for file in entry.files if not file.is_file()]

    def failed(error: BaseException) -> ModelError:
        """No network, an incomplete download, or a file of another network."""
        if any(not file.is_file() for file in missing) or (not entry.files and isinstance(error, OSError)):
            where = f" (expected as {missing[0]})" if missing else ""
            return ModelError(f"the weights of {entry.spec} cannot be downloaded{where}: {line(error)}")
        if "weights_only" in str(error) or "Weights only" in str(error):
            return ModelError(
                f"the weights of {entry.spec} contain more than tensors, and loading them can run code; "
                f"give --trust-checkpoint if you trust them"
            )
        return ModelError(f"{entry.spec} cannot be loaded: {type(error).__name__}: {line(error)}")

    with running_user_code(failed), quiet(), weights_only(not request.trust):
        network = package("robustbench.utils").load_model(
            entry.name, model_dir(), dataset=entry.dataset, threat_model=entry.threat_model
        )
    known = preset("none", "none")
    return LoadedModel(
        network,
        f"robustbench:{entry.name}",
        known,
        entry.sha256,
        published=published(entry),
        input=_preprocessing(entry),
    )


def _preprocessing(entry: Entry) -> InputConfig | None:
    """How RobustBench resizes and crops images for a model of ImageNet; None for images that have one size already."""
    if entry.dataset != "imagenet":
        return None
    module, enums = package("robustbench.data"), package("robustbench.model_zoo.enums")
    with running_user_code(f"the preprocessing of {entry.spec} cannot be determined", ModelError), quiet():
        steps = module.get_preprocessing(
            enums.BenchmarkDataset(entry.dataset), enums.ThreatModel(entry.threat_model), entry.name, None
        )
        values: dict[str, Any] = {"resize": None, "crop": None}
        for step in getattr(steps, "transforms", [steps]):
            size = getattr(step, "size", None)
            pair = size if isinstance(size, int) or size is None else tuple(map(int, size))
            if type(step).__name__ == "Resize":
                values |= {"resize": pair[0] if isinstance(pair, tuple) and len(pair) == 1 else pair}
                values |= {"interpolation": step.interpolation.value}
            elif type(step).__name__ == "CenterCrop":
                values["crop"] = (pair, pair) if isinstance(pair, int) else pair
            elif type(step).__name__ != "ToTensor":
                raise TypeError(f"unknown step {step}")
    return InputConfig(**values, source=f"RobustBench's preprocessing of {entry.name}", channels=3)


def find(name: str, dataset: str, threat_model: str) -> Entry:
    """The model of that name for a dataset and a threat model.

    Raises:
        SpecError: the name, the dataset or the threat model is unknown; the message lists the known ones.
    """
    zoo: dict[str, dict[str, Any]] = {
        benchmark.value: {threat.value: models for threat, models in parts.items()}
        for benchmark, parts in package("robustbench.model_zoo").model_dicts.items()
    }
    dataset = _one_of(dataset, zoo, "dataset")
    threat_model = _one_of(threat_model, zoo[dataset], "threat model")
    models = zoo[dataset][threat_model]
    if name not in models:
        others = [
            f"dataset={d},threat_model={t}" for d, parts in zoo.items() for t, names in parts.items() if name in names
        ]
        hint = f"; it exists with {' or '.join(others)}" if others else near_miss(name, models)
        raise SpecError(
            f"robustbench has no model {name!r} for {dataset} and {threat_model}{hint} "
            f"({len(models)} models: {', '.join(sorted(models))})"
        )
    gdrive = models[name]["gdrive_id"]
    file = model_dir() / dataset / threat_model / f"{name}.pt"
    if isinstance(gdrive, list):
        return Entry(name, dataset, threat_model, tuple(Path(f"{file}_m{i}.pt") for i in range(len(gdrive))))
    stored_elsewhere = gdrive is None or (dataset == "imagenet" and "Standard" in name)
    return Entry(name, dataset, threat_model, () if stored_elsewhere else (file,))


def _one_of(word: str, known: Mapping[str, Any], what: str) -> str:
    for name in known:
        if name.lower() == word.lower():
            return name
    raise SpecError(f"robustbench has no {what} {word!r}{near_miss(word, known)} ({', '.join(known)})")


def published(entry: Entry) -> PublishedRecord | None:
    """The accuracies of RobustBench's ``model_info``, if the file is in the package or in the cache directory."""
    inside = Path("model_info") / entry.dataset / entry.threat_model / f"{entry.name}.json"
    for root in (model_dir(), *map(Path, package().__path__), *(Path(p).parent for p in package().__path__)):
        try:
            info = json.loads((root / inside).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(info, dict):
            continue
        record = PublishedRecord(
            source=f"RobustBench {inside.as_posix()}",
            clean=_share(info.get("clean_acc")),
            autoattack=_share(info.get("external") or info.get("autoattack_acc")),
            corruptions=_share(info.get("corruptions_acc")),
            threat_model=entry.threat_model,
            eps=str(info["eps"]) if info.get("eps") is not None else None,
        )
        if (record.clean, record.autoattack, record.corruptions) != (None, None, None):
            return record
    return None


def _share(percent: Any) -> float | None:
    try:
        share = float(percent) / 100
    except (TypeError, ValueError):
        return None
    return round(share, 6) if math.isfinite(share) else None


SOURCES = (
    ModelSource(
        "robustbench:NAME[:dataset=D,threat_model=T]",
        "RobustBench's models (extra 'zoo'); dataset=cifar10,threat_model=Linf by default",
        load,
    ),
)
