"""The options of the Python functions by name and type; written by :mod:`freqrobust.core.option_signatures`.

The text of each option is its description in :mod:`freqrobust.core.config` or :mod:`freqrobust.core.training_config`.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal, TypedDict


class EvaluateOptions(TypedDict, total=False):
    """The options of ``EvalConfig``."""

    arch: str | Sequence[str]
    normalize: str | Sequence[str]
    trust_checkpoint: bool
    resize: str | int | tuple[int, int] | None
    crop: str | int | tuple[int, int] | None
    data_cache: str | PathLike[str]
    skip_unreadable: bool
    data_dir: str | PathLike[str] | None
    split: str
    train_data: Any
    defenses: Any
    undefended: bool
    limit: int | None
    first: int | None
    seed: int
    batch_size: int | Literal["auto"]
    device: Any
    cache_dir: str | PathLike[str] | None
    attacks: Any
    precision: Literal["fp32", "bf16"]
    compile: Literal["auto", "on", "off"]
    suite: str | PathLike[str] | None
    oblivious: bool
    diagnose: bool | Literal["quick", "full"] | None
    certify: Any
    criterion: Any
    examples: int
    mce_reference: Any
    run_dir: str | PathLike[str] | None


class AnalyzeOptions(TypedDict, total=False):
    """The options of ``AnalyzeConfig``."""

    arch: str | Sequence[str]
    normalize: str | Sequence[str]
    trust_checkpoint: bool
    resize: str | int | tuple[int, int] | None
    crop: str | int | tuple[int, int] | None
    data_cache: str | PathLike[str]
    skip_unreadable: bool
    data_dir: str | PathLike[str] | None
    split: str
    train_data: Any
    defenses: Any
    undefended: bool
    limit: int | None
    first: int | None
    seed: int
    batch_size: int | Literal["auto"]
    device: Any
    cache_dir: str | PathLike[str] | None


class SaveOptions(TypedDict, total=False):
    """The options of ``SaveConfig``."""

    arch: str | Sequence[str]
    normalize: str | Sequence[str]
    trust_checkpoint: bool
    resize: str | int | tuple[int, int] | None
    crop: str | int | tuple[int, int] | None
    data_cache: str | PathLike[str]
    skip_unreadable: bool
    data_dir: str | PathLike[str] | None
    split: str
    train_data: Any
    defenses: Any
    undefended: bool
    limit: int | None
    first: int | None
    seed: int
    batch_size: int | Literal["auto"]
    device: Any
    cache_dir: str | PathLike[str] | None
    attacks: Any
    precision: Literal["fp32", "bf16"]
    compile: Literal["auto", "on", "off"]


class VerifyOptions(TypedDict, total=False):
    """The options of ``VerifyConfig``."""

    arch: str | Sequence[str]
    normalize: str | Sequence[str]
    trust_checkpoint: bool
    resize: str | int | tuple[int, int] | None
    crop: str | int | tuple[int, int] | None
    data_cache: str | PathLike[str]
    skip_unreadable: bool
    data_dir: str | PathLike[str] | None
    split: str
    train_data: Any
    batch_size: int | Literal["auto"]
    device: Any
    cache_dir: str | PathLike[str] | None
    defense: str


class TrainOptions(TypedDict, total=False):
    """The options of ``TrainConfig``."""

    arch: str | PathLike[str]
    normalize: str | PathLike[str]
    epochs: int
    batch_size: int
    method: Any
    augment: Any
    train_shift: Any
    regularizer: Any
    labels: str | PathLike[str]
    pixels: str | PathLike[str]
    optimizer: Any
    schedule: Any
    ema: float | None
    precision: Literal["fp32", "bf16"]
    compile: bool
    hold_out: float
    probe: Any
    best: str | PathLike[str] | None
    probe_samples: int
    resize: str | int | tuple[int, int] | None
    crop: str | int | tuple[int, int] | None
    data_cache: str | PathLike[str]
    skip_unreadable: bool
    limit: int | None
    first: int | None
    seed: int
    data: Any
    data_dir: str | PathLike[str] | None
    recipe: str | PathLike[str] | None
    set: str | Sequence[str]
    device: Any
    out: str | PathLike[str] | None


class ReproduceOptions(TypedDict, total=False):
    """The options of ``ReproduceConfig``."""

    resize: str | int | tuple[int, int] | None
    crop: str | int | tuple[int, int] | None
    scale: Literal["digits", "cpu", "paper"]
    data: Any
    train_data: Any
    data_dir: str | PathLike[str] | None
    seed: int
    device: Any
    cache_dir: str | PathLike[str] | None
