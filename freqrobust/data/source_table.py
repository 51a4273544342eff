"""The sources of datasets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from freqrobust.core.errors import DataError
from freqrobust.core.files import cache_root
from freqrobust.core.source_table import Source, SourceTable
from freqrobust.data.dataset import Subset
from freqrobust.data.input_config import InputConfig
from freqrobust.data.pixel_cache import AUTO


@dataclass(frozen=True)
class DataRequest:
    """What a data source is asked for.

    Attributes:
        spec: the complete data spec.
        data_dir: the directory of downloaded datasets; None stands for the default.
        split: ``test`` or ``train``; a source without splits ignores it.
        subset: which samples of it; a source may decode these alone and return the complete dataset otherwise.
        input: how images in files are resized and cropped; None stands for not at all.
        data_cache: where decoded images in files are kept: ``auto``, ``memory``, ``off`` or a directory.
        skip_unreadable: whether files that cannot be decoded are left out.
    """

    spec: str
    data_dir: Path | None = None
    split: str = "test"
    subset: Subset = field(default_factory=Subset)
    input: InputConfig | None = None
    data_cache: str = AUTO
    skip_unreadable: bool = False

    @property
    def name(self) -> str:
        """The part of the spec before the first colon."""
        return self.spec.partition(":")[0]

    @property
    def argument(self) -> str:
        """The part of the spec after the first colon."""
        return self.spec.partition(":")[2]

    @property
    def root(self) -> Path:
        """The directory of downloaded datasets."""
        return self.data_dir if self.data_dir is not None else cache_root() / "data"


#: From a :class:`DataRequest` to an :class:`freqrobust.ImageData`, or to anything that :func:`freqrobust.evaluate` takes.
DataSource = Source[DataRequest]

data_sources: SourceTable[DataRequest] = SourceTable("data", "freqrobust.data.sources", DataError)
