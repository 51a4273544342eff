"""freqrobust: how robust is a PyTorch image classifier, and why.

Example:
    >>> from freqrobust import evaluate, load_model
    >>> report = evaluate("demo", "digits", attacks=["fgsm:eps=0.1"])  # doctest: +SKIP
    >>> report.cells[0].accuracy  # doctest: +SKIP
    0.966

Importing this package is cheap: torch is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "AnalysisContext",
    "AnalysisRecord",
    "AnalysisResult",
    "AnalysisTable",
    "Attack",
    "AttackContext",
    "Defense",
    "DefenseContext",
    "FreqRobustError",
    "ImageData",
    "InputDefense",
    "Number",
    "Pixel",
    "Progress",
    "Report",
    "Reporter",
    "__version__",
    "analyze",
    "evaluate",
    "load_data",
    "load_model",
    "save_model",
]

if TYPE_CHECKING:
    from freqrobust.analysis import AnalysisContext
    from freqrobust.analysis_results import AnalysisResult, AnalysisTable
    from freqrobust.context import AttackContext, DefenseContext, Progress
    from freqrobust.data import ImageData, load_data
    from freqrobust.errors import FreqRobustError
    from freqrobust.harness import evaluate
    from freqrobust.laboratory import analyze
    from freqrobust.models import load_model, save_model
    from freqrobust.plugin import Analysis, Attack, Defense, InputDefense, Number, Pixel, Reporter
    from freqrobust.results import AnalysisRecord, Report

_HOMES = {
    "Analysis": "plugin",
    "AnalysisContext": "analysis",
    "AnalysisRecord": "results",
    "AnalysisResult": "analysis_results",
    "AnalysisTable": "analysis_results",
    "Attack": "plugin",
    "AttackContext": "context",
    "Defense": "plugin",
    "DefenseContext": "context",
    "FreqRobustError": "errors",
    "ImageData": "data",
    "InputDefense": "plugin",
    "Number": "plugin",
    "Pixel": "plugin",
    "Progress": "context",
    "Report": "results",
    "Reporter": "plugin",
    "analyze": "laboratory",
    "evaluate": "harness",
    "load_data": "data",
    "load_model": "models",
    "save_model": "models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'freqrobust' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"freqrobust.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
