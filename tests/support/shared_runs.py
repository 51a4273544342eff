"""Evaluations that several processes share: a model, plugins and options of which every kind of task is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from freqrobust.harness import blocks

#: Samples in a block, so that a small run has several.
SAMPLES = 16
NETWORKS = f"""
import torch
from torch import nn
from freqrobust.harness import blocks

blocks.SAMPLES["cpu"] = {SAMPLES}

def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))

def first():
    return network(0)

def second():
    return network(1)
"""
PLUGINS = """
import os
import signal
import time
from typing import ClassVar
from pathlib import Path
from freqrobust import Attack
from freqrobust.numerics.threat import Threat

class Mean(Attack):
    '''Moves each image towards the mean of its batch, so that it depends on the batch.'''
    eps: float = 0.2
    batch_invariant: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False
    def threat(self):
        return Threat("linf", self.eps)
    def perturb(self, model, images, labels, context):
        return (images + (images.mean(dim=0, keepdim=True) - images).clamp(-self.eps, self.eps)).clamp(0, 1)

class Slow(Attack):
    '''Changes nothing, and takes its time.'''
    seconds: float = 0.3
    needs_gradient: ClassVar[bool] = False
    def threat(self):
        return Threat("linf", 0.1)
    def perturb(self, model, images, labels, context):
        time.sleep(self.seconds)
        return images

class Dies(Slow):
    '''Its process is killed at its third batch, once.'''
    def perturb(self, model, images, labels, context):
        log = Path("batches")
        with log.open("a") as file:
            file.write(f"{os.getpid()}\\\\n")
        if len(log.read_text().split()) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return images

class Fails(Attack):
    '''Fails on the samples behind the first.'''
    needs_gradient: ClassVar[bool] = False
    def threat(self):
        return Threat("linf", 0.1)
    def perturb(self, model, images, labels, context):
        if not (Path("works").exists() or 0 in context.ids.tolist()):
            raise ValueError("it cannot be done")
        return images
"""
#: Cells with an eps sweep, a preparation, a batch-dependent attack and a shift; oblivious cells, and a certificate.
OPTIONS: dict[str, Any] = {
    "attacks": ["pgd:eps=[0.05,0.1],steps=3", "fourier:eps=0.1", "plugins.py:Mean", "lfc:radius=2"],
    "defenses": ["smooth"],
    "certify": ["ibp:eps=0.01"],
    "limit": 40,
    "batch_size": 8,
}


@contextmanager
def small_blocks(size: int = SAMPLES) -> Iterator[None]:
    """Inside, a block has so many samples."""
    before = blocks.SAMPLES["cpu"]
    blocks.SAMPLES["cpu"] = size
    try:
        yield
    finally:
        blocks.SAMPLES["cpu"] = before


def write_code(folder: Path) -> None:
    """Write the models and plugins that these runs name into a folder."""
    (folder / "nets.py").write_text(NETWORKS)
    (folder / "plugins.py").write_text(PLUGINS.replace("\\\\n", "\\n"))


def flags(options: dict[str, Any]) -> list[str]:
    """Options as the command line takes them."""
    names = {"attacks": "attack", "defenses": "defense"}
    return [
        part
        for name, value in options.items()
        for one in (value if isinstance(value, list) else [value])
        for part in (f"--{names.get(name, name).replace('_', '-')}", str(one))
    ]


def together(*arguments: object, processes: int = 2, restarts: int = 0) -> list[str]:
    """The command line of ``freqrobust`` in several processes that ``torchrun`` starts."""
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--max-restarts", str(restarts)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *rendezvous]
    return [*launch, "-m", "freqrobust", *map(str, arguments)]


def without_times(report: Path | str) -> Any:
    """A report as JSON, without times and dates, and without what says why the passes were or were not compiled."""
    content = json.loads(report if isinstance(report, str) else report.read_text(encoding="utf-8"))
    for model in content["models"]:
        if model.get("compilation"):
            model["compilation"].pop("reason")  # shards do not time anything, as each would decide for itself
    return _without(content)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(one) for key, one in value.items() if key not in ("seconds", "created")}
    return [_without(one) for one in value] if isinstance(value, list) else value
