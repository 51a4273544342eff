"""``module:callable`` and ``file.py:callable``: models from Python code."""

from __future__ import annotations

from torch import nn

from freqrobust.core.user_code import is_code_spec
from freqrobust.models.source_table import ModelRequest, ModelSource, build_from_code


def load(request: ModelRequest) -> nn.Module:
    """What the callable returns, including its normalisation."""
    return build_from_code(request.spec, "model")


SOURCES = (
    ModelSource(
        "module:callable or file.py:callable", "returns an nn.Module for images in [0, 1]", load, matches=is_code_spec
    ),
)
