"""Trains a small network in the processes that torchrun started; writes losses and weights from the first one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freqrobust import load_data
from freqrobust.training.loop import Training
from freqrobust.training.plan import sgd_plan
from freqrobust.training.workers import joined


def network() -> nn.Module:
    """Without batch norm, so that a sample's logits do not depend on the others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))


def train(method: str, samples: int, batch_size: int, out: Path, **values: Any) -> None:
    torch.set_num_threads(1)
    data = load_data("digits", split="train", limit=samples)
    with joined(torch.device("cpu")) as (workers, device):
        plan = sgd_plan(2, 0.05, **{"batch_size": batch_size, "augment": ["flip-crop"], "method": method, **values})
        training = Training(network(), data, plan, device=device, workers=workers)
        epochs = [training.run_epoch()[:3] for _ in range(2)]
        if workers.writes:
            torch.save({"epochs": epochs, "weights": training.evaluated.state_dict()}, out)


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), **json.loads(sys.argv[5]))
    os._exit(0)  # as the command does: threads of torch.distributed may need the interpreter while it shuts down
