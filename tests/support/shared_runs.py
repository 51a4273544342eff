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
import uuid
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

class Waits(Attack):
    '''Changes nothing. Writes down which process calls it, and lets so many calls pass as a file says.'''
    needs_gradient: ClassVar[bool] = False
    def threat(self):
        return Threat("linf", 0.1)
    def perturb(self, model, images, labels, context):
        own = f"{os.getpid()} {uuid.uuid4().hex}"
        with open("begun", "a") as file:
            file.write(f"{own}\\n")
        position = Path("begun").read_text().splitlines().index(own)
        while position >= int(Path("passing").read_text() or 0):
            time.sleep(0.01)
        return images

class Dies(Attack):
    '''In the first attempt of torchrun the third call kills its process, and the others wait until torchrun ends them.'''
    needs_gradient: ClassVar[bool] = False
    def threat(self):
        return Threat("linf", 0.1)
    def perturb(self, model, images, labels, context):
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT")
        with open("batches", "a") as file:
            file.write(f"{attempt} {os.getpid()}\\n")
        if attempt == "0" and len(Path("batches").read_text().splitlines()) >= 3:
            try:
                os.close(os.open("killed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                while True:
                    time.sleep(1)
            Path("killed").write_text(f"{os.getpid()}")
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


def calls_passing(count: int) -> None:
    """Let so many calls of ``plugins.py:Waits`` pass, in the working folder."""
    Path("passing.new").write_text(f"{count}")
    Path("passing.new").replace("passing")


def calls_begun() -> list[int]:
    """The process of each call of ``plugins.py:Waits`` that has begun, in the working folder."""
    return [int(line.split()[0]) for line in Path("begun").read_text().splitlines()] if Path("begun").exists() else []


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
