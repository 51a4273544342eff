"""This process among those that ``torchrun`` started together, as its environment says. This module does not import torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from freqrobust.core.errors import SpecError


@dataclass(frozen=True)
class Launch:
    """Several processes that ``torchrun`` started, and this one among them.

    Attributes:
        rank: number of this process, from 0; the first one writes files and prints.
        size: number of processes.
        local_rank: number of this process on its machine, from 0.
        run: the name of the run.
        attempt: how often all processes were started again after one of them ended.
        address: the machine of the key-value store.
        port: its port.
        has_store: the store runs in a process of ``torchrun``; else the first process has to run it.
    """

    rank: int
    size: int
    local_rank: int
    run: str = "none"
    attempt: int = 0
    address: str = "localhost"
    port: int = 0
    has_store: bool = False


def launch() -> Launch | None:
    """The processes that ``torchrun`` started; None where it did not start several.

    Raises:
        SpecError: the environment is not what ``torchrun`` sets.
    """
    size = _number("WORLD_SIZE", 1)
    if size < 2:
        return None
    return Launch(
        rank=_number("RANK", 0),
        size=size,
        local_rank=_number("LOCAL_RANK", 0),
        run=os.environ.get("TORCHELASTIC_RUN_ID", "none"),
        attempt=_number("TORCHELASTIC_RESTART_COUNT", 0),
        address=os.environ.get("MASTER_ADDR", "localhost"),
        port=_number("MASTER_PORT", 0),
        has_store=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def is_first() -> bool:
    """Whether this process is the only one, or the first of those that ``torchrun`` started."""
    together = launch()
    return together is None or together.rank == 0


def refuse_several(command: str) -> None:
    """Refuse a command that one process has to do.

    Args:
        command: its name.

    Raises:
        SpecError: ``torchrun`` started several.
    """
    if launch() is not None:
        raise SpecError(
            f"freqrobust {command} is done by one process, but torchrun started several; start it without torchrun"
        )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise SpecError(f"the environment variable {name}, which torchrun sets, should be a number, but is {text!r}")
    return int(text)
