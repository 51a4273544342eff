"""What PyTorch's compiler imports, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.waiting import PATIENCE

LOOKED_FOR_PIP = """
import importlib.util, os, warnings
warnings.simplefilter("ignore")
{before}
from torch import nn
from freqrobust.core.compiler import torch_compile
torch_compile(nn.Linear(2, 2))
import torch.utils.cpp_extension
assert "SETUPTOOLS_USE_DISTUTILS" not in os.environ
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "before", ["", "importlib.util.find_spec('pip')", "importlib.util.find_spec('pip')\nimport distutils.core"]
)
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="distutils is gone")
def test_setuptools_can_be_imported_where_a_package_has_looked_for_pip(before: str) -> None:
    code = LOOKED_FOR_PIP.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
