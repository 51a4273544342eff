"""``module:callable`` and ``file.py:callable``: data from Python code."""

from __future__ import annotations

from typing import Any

from freqrobust.core.errors import DataError
from freqrobust.core.user_code import call, code_object, is_code_spec
from freqrobust.data.source_table import DataRequest, DataSource, data_sources


def load(request: DataRequest) -> Any:
    """What the callable returns: images and labels, or a dataset."""
    value = code_object(request.spec, f"data {request.spec!r}", data_sources.names(), DataError)
    return call(value, request.spec) if callable(value) else value


SOURCES = (
    DataSource(
        "module:callable or file.py:callable", "returns (images, labels) or a dataset", load, matches=is_code_spec
    ),
)
