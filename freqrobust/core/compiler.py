"""PyTorch's compiler, where what it needs can be imported."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any

import torch
from torch import nn

_CHOICE = "SETUPTOOLS_USE_DISTUTILS"


def torch_compile(module: nn.Module) -> Any:
    """``torch.compile(module)``; nothing is compiled before the first call."""
    _import_setuptools()
    return torch.compile(module)


def _import_setuptools() -> None:
    """Import setuptools, as the compiler does.

    Before Python 3.12 this raises an AssertionError wherever some other package has looked for pip, because setuptools
    then cannot replace distutils. It need not do so here.
    """
    with suppress(ImportError), warnings.catch_warnings():  # the compiler says what it misses
        warnings.simplefilter("ignore")
        try:
            import_module("setuptools")
        except AssertionError:
            before = os.environ.get(_CHOICE)
            os.environ[_CHOICE] = "stdlib"
            try:
                import_module("setuptools")
            finally:
                if before is None:
                    del os.environ[_CHOICE]
                else:
                    os.environ[_CHOICE] = before
