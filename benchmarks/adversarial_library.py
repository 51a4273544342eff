"""The package adv_lib (adversarial-library), which imports the plotting client visdom that none of its attacks needs."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

if importlib.util.find_spec("visdom") is None:
    sys.modules.setdefault("visdom", ModuleType("visdom"))

from adv_lib.attacks import apgd, apgd_targeted, ddn, fmn, pgd_linf

__all__ = ["apgd", "apgd_targeted", "ddn", "fmn", "pgd_linf"]
