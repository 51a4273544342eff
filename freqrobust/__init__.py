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

from freqrobust.core.version import __version__

__all__ = [
    "Analysis",
    "AnalysisContext",
    "AnalysisRecord",
    "AnalysisResult",
    "AnalysisTable",
    "AnalyzeConfig",
    "Attack",
    "AttackContext",
    "AttackResult",
    "Augmentation",
    "Batch",
    "Certificate",
    "CertificateContext",
    "Certified",
    "CheckResult",
    "Criterion",
    "Defense",
    "DefenseContext",
    "EvalConfig",
    "FreqRobustError",
    "ImageData",
    "InputDefense",
    "Number",
    "Optimizer",
    "Pixel",
    "Progress",
    "Regularizer",
    "Report",
    "Reporter",
    "Schedule",
    "StepContext",
    "TrainConfig",
    "TrainingMethod",
    "__version__",
    "analyze",
    "attack",
    "check",
    "compare",
    "evaluate",
    "load_data",
    "load_model",
    "noise",
    "save_adversarial",
    "save_model",
    "train",
    "verify",
    "wrap",
]

if TYPE_CHECKING:
    from freqrobust.core.config import AnalyzeConfig, EvalConfig
    from freqrobust.core.errors import FreqRobustError
    from freqrobust.core.numbers import Number, Pixel
    from freqrobust.core.progress import Progress
    from freqrobust.core.training_config import TrainConfig
    from freqrobust.data.dataset import ImageData
    from freqrobust.data.loading import load_data
    from freqrobust.experiments.lightning_callback import RobustnessCallback as RobustnessCallback
    from freqrobust.experiments.train import train
    from freqrobust.gate.check import CheckResult, check
    from freqrobust.gate.compare import compare
    from freqrobust.harness.analysis import Analysis
    from freqrobust.harness.analysis_context import AnalysisContext
    from freqrobust.harness.analyze import analyze
    from freqrobust.harness.attack_images import AttackResult, attack
    from freqrobust.harness.evaluate import evaluate
    from freqrobust.harness.save_adversarial import save_adversarial
    from freqrobust.harness.verify import verify
    from freqrobust.models.files import save_model
    from freqrobust.models.loading import load_model
    from freqrobust.models.wrapping import wrap
    from freqrobust.numerics import noise
    from freqrobust.plugins.base import Attack, Defense, InputDefense
    from freqrobust.plugins.certificate import Certificate, CertificateContext, Certified
    from freqrobust.plugins.context import AttackContext, DefenseContext
    from freqrobust.plugins.criterion import Criterion
    from freqrobust.plugins.training import (
        Augmentation,
        Batch,
        Optimizer,
        Regularizer,
        Schedule,
        StepContext,
        TrainingMethod,
    )
    from freqrobust.results.analysis import AnalysisResult, AnalysisTable
    from freqrobust.results.analysis_record import AnalysisRecord
    from freqrobust.results.report import Report
    from freqrobust.results.reporter import Reporter

_HOMES = {
    "Analysis": "harness.analysis",
    "AnalysisContext": "harness.analysis_context",
    "AnalysisRecord": "results.analysis_record",
    "AnalysisResult": "results.analysis",
    "AnalysisTable": "results.analysis",
    "AnalyzeConfig": "core.config",
    "Attack": "plugins.base",
    "AttackContext": "plugins.context",
    "AttackResult": "harness.attack_images",
    "Augmentation": "plugins.training",
    "Batch": "plugins.training",
    "Certificate": "plugins.certificate",
    "CertificateContext": "plugins.certificate",
    "Certified": "plugins.certificate",
    "CheckResult": "gate.check",
    "Criterion": "plugins.criterion",
    "Defense": "plugins.base",
    "DefenseContext": "plugins.context",
    "EvalConfig": "core.config",
    "FreqRobustError": "core.errors",
    "ImageData": "data.dataset",
    "InputDefense": "plugins.base",
    "Number": "core.numbers",
    "Optimizer": "plugins.training",
    "Pixel": "core.numbers",
    "Progress": "core.progress",
    "Regularizer": "plugins.training",
    "Report": "results.report",
    "Reporter": "results.reporter",
    "RobustnessCallback": "experiments.lightning_callback",
    "Schedule": "plugins.training",
    "StepContext": "plugins.training",
    "TrainConfig": "core.training_config",
    "TrainingMethod": "plugins.training",
    "analyze": "harness.analyze",
    "attack": "harness.attack_images",
    "check": "gate.check",
    "compare": "gate.compare",
    "evaluate": "harness.evaluate",
    "load_data": "data.loading",
    "load_model": "models.loading",
    "noise": "numerics.noise",
    "save_adversarial": "harness.save_adversarial",
    "save_model": "models.files",
    "train": "experiments.train",
    "verify": "harness.verify",
    "wrap": "models.wrapping",
}


if not TYPE_CHECKING:  # type checkers would take every name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'freqrobust' has no attribute {name!r}")
        from importlib import import_module

        home = import_module(f"freqrobust.{_HOMES[name]}")
        return home if name == "noise" else getattr(home, name)


def __dir__() -> list[str]:
    return __all__
