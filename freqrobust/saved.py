"""Saved adversarial examples: one ``.npz`` a cell, made for every sample with ``goal="maximize"``.

The arrays are ``images`` (float32, ``(N, C, H, W)`` in [0, 1]), ``ids``, ``labels`` and ``predictions`` (int64,
``(N,)``), and ``meta``, the JSON of :class:`Meta`: what the examples were made with, for which model and data.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from freqrobust import __version__
from freqrobust.arrays import read_npz
from freqrobust.context import AttackContext, Progress
from freqrobust.data import ImageData, as_data
from freqrobust.errors import DataError, FreqRobustError, PluginError, SpecError
from freqrobust.files import identity, regular_file, user_path, write_atomically
from freqrobust.harness import parse_chains, parse_selections
from freqrobust.many import as_network
from freqrobust.measurement import EOT, run_attack
from freqrobust.models import record
from freqrobust.opening import check_settings, open_run
from freqrobust.perturbation import TOLERANCE
from freqrobust.plugin import Attack, Defense
from freqrobust.preparation import prepared
from freqrobust.printable import one_line
from freqrobust.progress import watching
from freqrobust.registry import DefenseChain, Selection
from freqrobust.results import DataRecord, ModelRecord, ThreatRecord
from freqrobust.session import DefenseRun
from freqrobust.user_code import running_user_code
from freqrobust.victim import Precision

SUFFIX = ".npz"
_ARRAYS = ("images", "ids", "labels", "predictions")


class Meta(BaseModel):
    """What a set of examples was made with."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    schema_version: Literal[1] = 1
    freqrobust_version: str
    attack: str
    attack_params: dict[str, Any]
    threat: ThreatRecord | None
    defense: str
    defense_source: str
    defense_params: dict[str, Any]
    seed: int
    precision: Precision
    model: ModelRecord
    data: DataRecord

    @property
    def file_name(self) -> str:
        """Readable, safe on every file system, and another one for every other cell."""
        content = [self.defense_source, self.defense_params, self.attack, self.attack_params]
        words = [re.sub(r"[^A-Za-z0-9_.=-]+", "-", text)[:60].strip("-.") for text in (self.defense, self.attack)]
        return f"{'__'.join(words)}__{identity(content)[:8]}{SUFFIX}"


@dataclass(frozen=True)
class SavedSet:
    """The examples of one cell.

    Attributes:
        images: float32 ``(N, C, H, W)``.
        ids: dataset indices, int64 ``(N,)``, each once.
        labels: int64 ``(N,)``.
        predictions: of the model they were made for, int64 ``(N,)``.
    """

    images: torch.Tensor
    ids: torch.Tensor
    labels: torch.Tensor
    predictions: torch.Tensor
    meta: Meta
    path: Path = field(default_factory=Path)

    @cached_property
    def rows(self) -> dict[int, int]:
        """The position of every id."""
        return {identifier: row for row, identifier in enumerate(self.ids.tolist())}

    @property
    def data(self) -> ImageData:
        """The examples as a dataset."""
        return ImageData(self.images, self.labels, self.meta.data.classes, str(self.path), ids=self.ids)

    def write(self, directory: Path) -> Path:
        """Put the set into a folder, atomically; the file's path."""
        buffer = io.BytesIO()
        arrays = {name: getattr(self, name).numpy() for name in _ARRAYS}
        np.savez(buffer, meta=np.array(self.meta.model_dump_json()), **arrays)
        path = directory / self.meta.file_name
        write_atomically(path, buffer.getvalue())
        return path


def read(path: Path) -> SavedSet:
    """One saved set.

    Raises:
        DataError: it is missing, damaged, or something else.
    """
    regular_file(path, str(path), DataError, "saved adversarial examples")
    arrays = read_npz(path, (*_ARRAYS, "meta"), "{path} holds no saved adversarial examples: it lacks {missing}")
    try:
        meta = Meta.model_validate_json(str(arrays.pop("meta")[()]))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: meta: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}: meta: {one_line(error)}") from error
    return SavedSet(**_checked(arrays, path), meta=meta, path=path)


def _checked(arrays: dict[str, np.ndarray], path: Path) -> dict[str, torch.Tensor]:
    images = arrays["images"]
    n = len(images) if images.ndim == 4 else 0
    if images.ndim != 4 or n == 0 or images.dtype != np.float32:
        raise DataError(f"{path}: expected float32 images (N, C, H, W), but got {images.dtype} {images.shape}")
    for name in _ARRAYS[1:]:
        if arrays[name].shape != (n,) or not np.issubdtype(arrays[name].dtype, np.integer):
            raise DataError(f"{path}: expected {n} integer {name}, but got {arrays[name].dtype} {arrays[name].shape}")
    if len(np.unique(arrays["ids"])) != n:
        raise DataError(f"{path}: some ids are there twice")
    if not np.isfinite(images).all() or images.min() < -TOLERANCE or images.max() > 1 + TOLERANCE:
        raise DataError(f"{path}: the images are not in [0, 1]")
    if arrays["labels"].min() < 0:
        raise DataError(f"{path}: some labels are negative")
    found = {name: torch.from_numpy(arrays[name].astype(np.int64)) for name in _ARRAYS[1:]}
    return {"images": torch.from_numpy(images), **found}


def read_all(where: Path) -> list[SavedSet]:
    """The saved sets of a folder, by name, or the one of a file.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    if not where.exists():
        raise DataError(f"{where} does not exist; expected a folder written by --save-adversarial, or one of its files")
    paths = [where] if where.is_file() else sorted(where.glob(f"*{SUFFIX}"))
    if not paths:
        raise DataError(f"{where} holds no saved adversarial examples (*{SUFFIX})")
    return [read(path) for path in paths]


@dataclass(frozen=True)
class Saving:
    """What came of saving: files, and cells that failed with their reasons."""

    paths: list[Path]
    failed: list[str]


def save_adversarial(
    model: nn.Module | str | os.PathLike[str],
    data: Any,
    *,
    attacks: Iterable[str | Attack | Selection],
    defenses: Iterable[str | Defense | DefenseChain | Sequence[Defense]] | None = (),
    directory: str | os.PathLike[str],
    baseline: bool = True,
    train_data: Any = None,
    batch_size: int | Literal["auto"] = "auto",
    device: str | torch.device = "auto",
    precision: Precision = "fp32",
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
) -> Saving:
    """Make and save adversarial examples of every sample, for each defense and each adversarial attack.

    The arguments are those of :func:`freqrobust.evaluate`; ``directory`` is made when missing, and a file of
    the same cell is replaced.

    Raises:
        FreqRobustError: the model, the data or a spec is wrong, or the folder cannot be written.
    """
    settings, folder = check_settings(device, precision, batch_size), user_path(directory, "directory")
    chosen = adversarial(parse_selections(attacks))
    images = as_data(data)
    training = as_data(train_data, "train data") if train_data is not None else None
    chains = parse_chains(defenses, baseline, training)
    network = as_network(model, images, settings.device)
    cache = Path(cache_dir) if cache_dir is not None else None
    saving = Saving([], [])
    with (
        watching(progress) as watch,
        open_run(network, images, settings, training=training, seed=seed, cache_dir=cache, watch=watch) as run,
    ):
        for chain in chains:
            made = DefenseRun(run, chain)
            for selection in chosen:
                try:
                    with running_user_code(selection.name):
                        saving.paths.append(_examples(made, selection).write(folder))
                except FreqRobustError as error:  # whatever a plugin does, the other sets are saved
                    saving.failed.append(f"{chain.spec} / {selection.spec}: {one_line(error)}")
                    watch.end(f"not saved: {saving.failed[-1]}")
    return saving


def adversarial(selections: Iterable[Selection]) -> list[Selection]:
    """Those that make adversarial examples.

    Raises:
        SpecError: there is none.
    """
    found = [s for s in selections if isinstance(s.plugin, Attack) and s.plugin.kind == "adversarial"]
    if not found:
        raise SpecError("none of the attacks is adversarial: there would be nothing to save")
    return found


def _examples(made: DefenseRun, selection: Selection) -> SavedSet:
    run, victim, attack = made.run, made.victim(), selection.plugin
    data = run.data
    assert isinstance(attack, Attack)
    images = torch.empty(data.images.shape)
    predictions = torch.empty(len(data), dtype=torch.int64)
    everyone = torch.arange(len(data))
    whole = AttackContext(everyone, run.seed, "maximize", eot=EOT if victim.stochastic else 1)

    def work(chunk: torch.Tensor) -> None:
        clean, labels, ids = data.batch(chunk, run.device)
        changed = run_attack(selection, attack, victim, clean, labels, whole.batch(ids))
        images[chunk] = changed.cpu()
        predictions[chunk] = victim.predict(changed, ids)[0].cpu()

    label = f"saving {made.chain.spec} / {selection.spec}"
    run.watch.begin(label, len(data))
    whole = prepared(attack, selection.spec, victim, made.bench, everyone, whole)
    made.bench.each(everyone, work)
    run.watch.end(f"{label}: {int((predictions != data.labels).sum())} of {len(data)} misclassified")
    threat = attack.threat()
    meta = Meta(
        freqrobust_version=__version__,
        attack=selection.spec,
        attack_params=selection.params,
        threat=ThreatRecord(norm=threat.norm, eps=threat.eps) if threat is not None else None,
        defense=made.chain.spec,
        defense_source="+".join(_source(part) for part in made.chain.parts) or "none",
        defense_params=made.chain.params,
        seed=run.seed,
        precision=run.precision,
        model=record(run.network, run.model_print),
        data=DataRecord(
            spec=data.spec,
            split=data.split,
            n=len(data),
            classes=data.classes,
            shape=list(data.shape),
            sha256=data.sha256,
            ids="all",
        ),
    )
    return SavedSet(images, data.ids, data.labels, predictions, meta)


def _source(part: Selection) -> str:
    """A spec that can be read again: one from a file is shown by its class alone."""
    return f"{part.origin}:{part.spec}" if part.origin.endswith(".py") else part.spec


def positions(ids: torch.Tensor, saved: SavedSet, what: str) -> torch.Tensor:
    """Rows of the saved set that hold these ids.

    Raises:
        PluginError: it was made for other samples.
    """
    missing = [i for i in ids.tolist() if i not in saved.rows]
    if missing:
        raise PluginError(
            f"{what}: {saved.path} holds no example of sample {missing[0]}"
            f"{f' and of {len(missing) - 1} others' if len(missing) > 1 else ''}; "
            f"it was made for {len(saved.ids)} samples of {saved.meta.data.spec}"
        )
    return torch.tensor([saved.rows[i] for i in ids.tolist()], dtype=torch.int64)
