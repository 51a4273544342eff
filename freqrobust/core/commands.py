"""The commands that are made from their options. This module does not import torch."""

from __future__ import annotations

from freqrobust.core.command_config import (
    AnalyzeCommand,
    CheckConfig,
    EvalCommand,
    MergeCommand,
    RerunCommand,
    VerifyCommand,
)
from freqrobust.core.options import Options
from freqrobust.core.training_config import ReproduceCommand, TrainCommand

COMMANDS: dict[str, type[Options]] = {
    "eval": EvalCommand,
    "analyze": AnalyzeCommand,
    "train": TrainCommand,
    "reproduce": ReproduceCommand,
    "verify": VerifyCommand,
    "check": CheckConfig,
    "rerun": RerunCommand,
    "merge": MergeCommand,
}


def reserved_names(command: str) -> frozenset[str]:
    """The names that a parameter of a plugin may not have, as it is an option of this command too."""
    cls = COMMANDS[command]
    return frozenset({"help", *cls.model_fields, *(flag[2:].replace("-", "_") for flag in cls.flags())})
