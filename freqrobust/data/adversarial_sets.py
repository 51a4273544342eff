"""The file format of saved adversarial examples."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from freqrobust.core.errors import DataError, PluginError
from freqrobust.core.files import identity, regular_file, write_atomically
from freqrobust.core.text import one_line
from freqrobust.data.arrays import read_npz
from freqrobust.data.dataset import ImageData
from freqrobust.numerics.threat import TOLERANCE
from freqrobust.plugins.specs import UNDEFENDED, UNDEFENDED_NAMES
from freqrobust.results.records import DataRecord, ModelRecord, Precision, ThreatRecord

SUFFIX = ".npz"
_ARRAYS = ("images", "ids", "labels", "predictions")


class Meta(BaseModel):
    """Model, data, attack and defense of a set of examples."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    schema_version: Literal[1] = 1
    freqrobust_version: str
    attack: str
    attack_params: dict[str, Any]
    threat: ThreatRecord | None
    defense: Annotated[str, BeforeValidator(lambda text: UNDEFENDED if text in UNDEFENDED_NAMES else text)]
    defense_source: str
    defense_params: dict[str, Any]
    seed: int
    precision: Precision
    model: ModelRecord
    data: DataRecord

    @property
    def file_name(self) -> str:
        """A readable name, valid on every file system, different for every cell."""
        content = [self.defense_source, self.defense_params, self.attack, self.attack_params]
        words = [re.sub(r"[^A-Za-z0-9_.=-]+", "-", text)[:60].strip("-.") for text in (self.defense, self.attack)]
        return f"{'__'.join(words)}__{identity(content)[:8]}{SUFFIX}"


@dataclass(frozen=True)
class SavedSet:
    """The examples of one cell.

    Attributes:
        images: float32 ``(N, C, H, W)``.
        ids: dataset indices, int64 ``(N,)``, without duplicates.
        labels: int64 ``(N,)``.
        predictions: of the model that was attacked, int64 ``(N,)``.
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
        record = self.meta.data
        classes = tuple(record.class_subset or ())
        return ImageData(self.images, self.labels, record.classes, str(self.path), ids=self.ids, class_subset=classes)

    def write(self, directory: Path) -> Path:
        """Write the set into a folder atomically, and return the path of the file."""
        buffer = io.BytesIO()
        arrays = {name: getattr(self, name).numpy() for name in _ARRAYS}
        np.savez(buffer, meta=np.array(self.meta.model_dump_json()), **arrays)
        path = directory / self.meta.file_name
        write_atomically(path, buffer.getvalue())
        return path


def read(path: Path) -> SavedSet:
    """Read one saved set.

    Raises:
        DataError: the file is missing, damaged, or of another format.
    """
    regular_file(path, str(path), DataError, "saved adversarial examples")
    arrays = read_npz(path, (*_ARRAYS, "meta"), "{path} contains no saved adversarial examples: it lacks {missing}")
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
        raise DataError(f"{path}: some ids are duplicated")
    if not np.isfinite(images).all() or images.min() < -TOLERANCE or images.max() > 1 + TOLERANCE:
        raise DataError(f"{path}: the images are not in [0, 1]")
    if arrays["labels"].min() < 0:
        raise DataError(f"{path}: some labels are negative")
    integers = {name: torch.from_numpy(arrays[name].astype(np.int64)) for name in _ARRAYS[1:]}
    return {"images": torch.from_numpy(images), **integers}


def read_all(where: Path) -> list[SavedSet]:
    """The saved sets of a folder, sorted by name, or that of a file.

    Raises:
        DataError: there are none, or one cannot be read.
    """
    if not where.exists():
        raise DataError(f"{where} does not exist; expected a folder written by --save-adversarial, or one of its files")
    paths = [where] if where.is_file() else sorted(where.glob(f"*{SUFFIX}"))
    if not paths:
        raise DataError(f"{where} contains no saved adversarial examples (*{SUFFIX})")
    return [read(path) for path in paths]


def positions(ids: torch.Tensor, saved: SavedSet, what: str) -> torch.Tensor:
    """The rows of these ids in the saved set.

    Raises:
        PluginError: the set was generated for other samples.
    """
    missing = [i for i in ids.tolist() if i not in saved.rows]
    if missing:
        raise PluginError(
            f"{what}: {saved.path} has no example of sample {missing[0]}"
            f"{f' and of {len(missing) - 1} others' if len(missing) > 1 else ''}; "
            f"it was generated for {len(saved.ids)} samples of {saved.meta.data.spec}"
        )
    return torch.tensor([saved.rows[i] for i in ids.tolist()], dtype=torch.int64)
