"""RobustBench (Croce et al. 2021): its model zoo, its corrupted data sets, and the figures it publishes.

The package imports ``autoattack``, which no package index has, and ``pkg_resources``, which recent setuptools
dropped. Both get a stand-in while it is imported; nothing that is used here needs them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from freqrobust.data import Choice, ImageData, cache_root, check, from_samples
from freqrobust.errors import DataError, FreqRobustError, ModelError, SpecError
from freqrobust.registry import near_miss, parse_params
from freqrobust.results import PublishedRecord

PREFIX = "robustbench:"
#: Folders of corrupted data as RobustBench lays them out, and the number of classes.
CORRUPTED = {
    "cifar10c": ("CIFAR-10-C", 10),
    "cifar100c": ("CIFAR-100-C", 100),
    "imagenetc": ("ImageNet-C", 1000),
    "imagenet3dcc": ("ImageNet-3DCC", 1000),
}
DATASETS = [*CORRUPTED, "imagenet"]
SEVERITIES = 5


class _NotHere:
    """Takes the place of what the missing package would bring."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise ModelError("RobustBench's own benchmark needs the package autoattack; use freqrobust's attacks instead")


def _resource_filename(package: str, name: str) -> str:
    return str(Path(str(sys.modules[package].__file__)).parent / name)


def _stand_ins() -> dict[str, ModuleType]:
    """The modules that RobustBench imports and that are missing, or warn that they will be."""
    resources = ModuleType("pkg_resources")
    vars(resources)["resource_filename"] = _resource_filename
    found = {"pkg_resources": resources}
    if importlib.util.find_spec("autoattack") is None:
        for name, attribute in (("autoattack", "AutoAttack"), ("autoattack.state", "EvaluationState")):
            found[name] = ModuleType(name)
            vars(found[name])[attribute] = _NotHere
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, and what is printed goes to standard error."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def package(name: str = "robustbench") -> ModuleType:
    """The package or one of its modules, whatever its imports need.

    Raises:
        ModelError: it is not installed, or cannot be imported.
    """
    if "robustbench" not in sys.modules and importlib.util.find_spec("robustbench") is None:
        raise ModelError("robustbench: models and data need the extra 'zoo': pip install 'freqrobust[zoo]'")
    stand_ins = _stand_ins()
    before = {key: sys.modules.get(key) for key in stand_ins}
    sys.modules.update(stand_ins)
    try:
        with _quiet():
            return importlib.import_module(name)
    except Exception as error:  # its imports are many, and so are their failures
        raise ModelError(f"robustbench cannot be imported: {type(error).__name__}: {_line(error)}") from error
    finally:
        for key, module in before.items():
            if module is None:
                sys.modules.pop(key, None)
            else:
                sys.modules[key] = module


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _options(text: str, spec: str, known: Iterable[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parse_params(text, spec):
        if key not in known:
            raise SpecError(f"{spec!r}: unknown parameter {key!r}{near_miss(key, known)} (parameters: {', '.join(known)})")
        if key in options:
            raise SpecError(f"{spec!r}: parameter {key!r} is given twice")
        options[key] = value
    return options


# --- models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One model of the zoo; ``files`` is where its weights lie, empty where another library keeps them."""

    name: str
    dataset: str
    threat_model: str
    files: tuple[Path, ...]

    @property
    def spec(self) -> str:
        return f"{PREFIX}{self.name}:dataset={self.dataset},threat_model={self.threat_model}"

    @property
    def sha256(self) -> str | None:
        """Hash of the files of weights."""
        if not self.files or not all(file.is_file() for file in self.files):
            return None
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.read_bytes())
        return digest.hexdigest()


def model_dir() -> Path:
    """The cache folder: ``<here>/<dataset>/<threat model>/NAME.pt``."""
    return cache_root() / "robustbench"


def load_network(spec: str, trust: bool) -> tuple[nn.Module, Entry, PublishedRecord | None]:
    """The network behind ``robustbench:NAME[:dataset=cifar10,threat_model=Linf]``, normalisation inside.

    Raises:
        SpecError: there is no such model.
        ModelError: the package is missing, or the weights are missing, damaged or for another network.
    """
    name, _, text = spec.removeprefix(PREFIX).partition(":")
    options = {"dataset": "cifar10", "threat_model": "Linf"} | _options(text, spec, ("dataset", "threat_model"))
    entry = find(name, options["dataset"], options["threat_model"])
    missing = [file for file in entry.files if not file.is_file()]
    try:
        with _quiet(), _weights_only(not trust):
            network = package("robustbench.utils").load_model(
                entry.name, model_dir(), dataset=entry.dataset, threat_model=entry.threat_model
            )
    except FreqRobustError:
        raise
    except Exception as error:  # no network, a broken download, a file of something else
        if any(not file.is_file() for file in missing):
            raise ModelError(
                f"the weights of {entry.spec} cannot be fetched: {_line(error)} (expected as {missing[0]})"
            ) from error
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise ModelError(
                f"the weights of {entry.spec} hold more than tensors, and loading them can run code; "
                f"give --trust-checkpoint if you trust them"
            ) from error
        raise ModelError(f"{entry.spec} cannot be loaded: {type(error).__name__}: {_line(error)}") from error
    return network, entry, published(entry)


def find(name: str, dataset: str, threat_model: str) -> Entry:
    """The model of that name in that part of the zoo.

    Raises:
        SpecError: the name, the data set or the threat model is unknown; the message says what there is.
    """
    zoo: dict[str, dict[str, Any]] = {
        each.value: {threat.value: models for threat, models in parts.items()}
        for each, parts in package("robustbench.model_zoo").model_dicts.items()
    }
    dataset = _one_of(dataset, zoo, "dataset")
    threat_model = _one_of(threat_model, zoo[dataset], "threat model")
    models = zoo[dataset][threat_model]
    if name not in models:
        elsewhere = [f"dataset={d},threat_model={t}" for d, parts in zoo.items() for t, some in parts.items() if name in some]
        hint = f"; it has one with {' or '.join(elsewhere)}" if elsewhere else near_miss(name, models)
        raise SpecError(
            f"robustbench has no model {name!r} for {dataset} and {threat_model}{hint} "
            f"({len(models)} models: {', '.join(sorted(models))})"
        )
    gdrive = models[name]["gdrive_id"]
    file = model_dir() / dataset / threat_model / f"{name}.pt"
    if isinstance(gdrive, list):
        return Entry(name, dataset, threat_model, tuple(Path(f"{file}_m{i}.pt") for i in range(len(gdrive))))
    elsewhere_kept = gdrive is None or (dataset == "imagenet" and "Standard" in name)
    return Entry(name, dataset, threat_model, () if elsewhere_kept else (file,))


def _one_of(word: str, known: Mapping[str, Any], what: str) -> str:
    for each in known:
        if each.lower() == word.lower():
            return each
    raise SpecError(f"robustbench has no {what} {word!r}{near_miss(word, known)} ({', '.join(known)})")


@contextlib.contextmanager
def _weights_only(wanted: bool) -> Iterator[None]:
    """Whether ``torch.load``, called without saying, refuses files that can run code."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0] if wanted else names[1]] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def published(entry: Entry) -> PublishedRecord | None:
    """The figures of RobustBench's ``model_info``, where the file is in the package or in the cache folder."""
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


# --- data ------------------------------------------------------------------------------------------------------------


def load_corrupted(spec: str, data_dir: str | os.PathLike[str] | None, choice: Choice) -> ImageData:
    """``robustbench:cifar10c[:severity=5,corruptions=[fog,snow]]`` and friends, from a local folder.

    The samples of all corruptions are interleaved, image by image: the first ``15 * n`` of ``cifar10c`` are the
    samples that RobustBench takes for ``n_examples=15 * n``, in another order.

    Raises:
        SpecError: there is no such data set or corruption.
        DataError: the files are not there, or not what they should be.
    """
    name, _, text = spec.removeprefix(PREFIX).partition(":")
    if name not in DATASETS:
        raise SpecError(f"robustbench has no data {name!r}{near_miss(name, DATASETS)} ({', '.join(DATASETS)})")
    root = Path(data_dir) if data_dir is not None else cache_root() / "data"
    if name == "imagenet":
        _options(text, spec, ())
        return replace(from_samples(_image_folder(root / "val", spec), spec, 1000, choice), classes=1000)
    options = _options(text, spec, ("severity", "corruptions"))
    severity = options.get("severity", "5")
    if severity not in map(str, range(1, SEVERITIES + 1)):
        raise SpecError(f"{spec!r}: severity should be 1 to {SEVERITIES}, but got {severity!r}")
    module = package("robustbench.data")
    known = module.CORRUPTIONS_3DCC if name == "imagenet3dcc" else module.CORRUPTIONS
    wanted = [part.strip() for part in options.get("corruptions", ",".join(known)).strip("[]").split(",")]
    for one in wanted:
        if one not in known:
            raise SpecError(f"{spec!r}: unknown corruption {one!r}{near_miss(one, known)} ({', '.join(known)})")
    folder, classes = root / CORRUPTED[name][0], CORRUPTED[name][1]
    if not folder.is_dir():
        raise DataError(f"{spec}: {folder} is not a folder; give --data-dir")
    if name.startswith("imagenet"):
        if len(wanted) != 1:
            raise SpecError(f"{spec!r}: name one corruption, for example {PREFIX}{name}:corruptions={known[0]}")
        return from_samples(_image_folder(folder / wanted[0] / severity, spec), spec, classes, choice)
    return _arrays(folder, wanted, int(severity), spec, classes, choice)


def _arrays(
    folder: Path, corruptions: list[str], severity: int, spec: str, classes: int, choice: Choice
) -> ImageData:
    """CIFAR-C: ``CORRUPTION.npy`` uint8 ``(5 * n, 32, 32, 3)``, mild first, and ``labels.npy``."""
    labels = torch.from_numpy(np.array(_array(folder / "labels.npy", 1)).astype(np.int64))
    stacks = [_array(folder / f"{name}.npy", 4) for name in corruptions]
    for name, stack in zip(corruptions, stacks, strict=True):
        if len(stack) % SEVERITIES or len(labels) not in (len(stack), len(stack) // SEVERITIES):
            raise DataError(f"{spec}: {name}.npy holds {len(stack)} images, but labels.npy {len(labels)} labels")
    n = min(len(stack) for stack in stacks) // SEVERITIES
    labels = labels[:n].repeat_interleave(len(stacks))
    index = choice.index(labels)
    taken = torch.arange(len(labels)) if index is None else index
    offset = (severity - 1) * n
    images = np.empty((len(taken), *stacks[0].shape[1:]), dtype=np.uint8)
    which, position = taken.numpy() % len(stacks), taken.numpy() // len(stacks)
    for i, stack in enumerate(stacks):
        images[which == i] = stack[offset + position[which == i]]
    data = check(torch.from_numpy(images), labels[taken], spec, classes)
    return data if index is None else replace(data, ids=index, subset=True)


def _array(path: Path, dims: int) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or _line(error)}") from error
    if found.ndim != dims or (dims == 4 and found.dtype != np.uint8):
        raise DataError(f"{path}: expected {dims} dimensions, images as uint8, but got {found.dtype} {found.shape}")
    return found


class _Pairs:
    """RobustBench's image folder as (image, label) pairs; the paths are left out."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.samples, self.targets = folder, folder.samples, folder.targets

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label, _ = self.folder[index]
        return image, label


def _image_folder(path: Path, spec: str) -> _Pairs:
    """The 5000 ImageNet images that RobustBench evaluates on, below ``path/CLASS/``."""
    if not path.is_dir():
        raise DataError(f"{spec}: {path} is not a folder; give --data-dir")
    try:
        return _Pairs(package("robustbench.loaders").CustomImageFolder(str(path)))
    except KeyError as error:
        raise DataError(f"{spec}: {path} lacks the class folder {error}") from error
