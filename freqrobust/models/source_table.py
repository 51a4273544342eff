"""The sources of models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.progress import Progress, Silent
from freqrobust.core.source_table import Source, SourceTable
from freqrobust.core.user_code import call, code_object
from freqrobust.data.input_config import InputConfig
from freqrobust.models.normalization import NormalizationChoice
from freqrobust.results.records import PublishedRecord


@dataclass(frozen=True)
class LoadedModel:
    """A network and what is known about it.

    Attributes:
        network: the module without the normalisation.
        arch: the name of its architecture.
        known: its normalisation, where the source determines it.
        sha256: hash of the files of its weights.
        note: a sentence for the user about how it was loaded.
        published: accuracies that its authors report.
        input: how its authors resize and crop images, where they say it.
        labels: the names of its classes, where they are known.
    """

    network: nn.Module
    arch: str
    known: NormalizationChoice | None = None
    sha256: str | None = None
    note: str | None = None
    published: PublishedRecord | None = None
    input: InputConfig | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelRequest:
    """What a model source is asked for.

    Attributes:
        spec: the complete model spec.
        arch: the architecture of a state dict, or ``auto``.
        trust: whether loading may run code of the checkpoint.
        cache_dir: directory for networks that the source trains or downloads.
        progress: reports long operations.
    """

    spec: str
    arch: str = "auto"
    trust: bool = False
    cache_dir: Path | None = None
    progress: Progress = field(default_factory=Silent)

    @property
    def argument(self) -> str:
        """The part of the spec after the first colon."""
        return self.spec.partition(":")[2]


#: From a :class:`ModelRequest` to a :class:`LoadedModel`, or to an ``nn.Module`` that includes its normalisation.
ModelSource = Source[ModelRequest]

model_sources: SourceTable[ModelRequest] = SourceTable("model", "freqrobust.models.sources", SpecError)


def build_from_code(spec: str, what: str) -> nn.Module:
    """The module that ``module:callable`` or ``file.py:callable`` returns; ``what`` says what it is, for messages.

    Raises:
        SpecError: it cannot be imported, is not callable, or fails.
        ModelError: it returns something else.
    """
    function = code_object(spec, f"{what} {spec!r}")
    if not callable(function):
        raise SpecError(f"{spec} should be callable, but is of type {type(function).__name__}")
    network = call(function, spec)
    if not isinstance(network, nn.Module):
        raise ModelError(f"{spec} should return an nn.Module, but returned {type(network).__name__}")
    return network
