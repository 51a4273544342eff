"""Several processes that train one network together, against one process that trains it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from freqrobust import load_data
from freqrobust.core.errors import JournalError, PeerError
from freqrobust.training.loop import Training
from freqrobust.training.plan import sgd_plan
from freqrobust.training.workers import Workers
from support import several_processes
from support.waiting import PATIENCE

SCRIPT = Path(several_processes.__file__)
#: Augmentations that do not mix images, a penalty and averaged weights.
RECIPE = {
    "augment": ["randaugment", "gaussian-noise", "augmix:jsd=true"],
    "regularizer": ["kernel-smoothness:weight=0.1"],
    "ema": 0.8,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "samples", "processes", "values"),
    [
        ("natural", 100, 2, {}),
        ("madry:eps=0.1,steps=2", 100, 2, {}),
        ("mart:eps=0.1,steps=2", 100, 2, {}),  # two forward passes before the backward pass
        ("free:eps=0.1,replays=2", 96, 2, {}),
        ("natural", 98, 3, {}),  # a last batch of two samples
        ("natural", 100, 2, RECIPE),
    ],
)
def test_losses_and_weights_do_not_depend_on_the_number_of_processes(
    method: str, samples: int, processes: int, values: dict[str, Any], tmp_path: Path
) -> None:
    alone = tmp_path / "alone.pt"
    several_processes.train(method, samples, 32, alone, **values)
    out = tmp_path / "together.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(
        [*launch, str(SCRIPT), method, str(samples), "32", str(out), json.dumps(values)],
        capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, several = (torch.load(path, weights_only=True) for path in (alone, out))
    for (epoch1, loss1, accuracy1), (epoch2, loss2, accuracy2) in zip(one["epochs"], several["epochs"], strict=True):
        assert epoch1 == epoch2
        assert loss2 == pytest.approx(loss1, rel=1e-4)
        assert accuracy2 == pytest.approx(accuracy1, abs=1.5 / samples)
    initial = several_processes.network().state_dict()
    assert all(not torch.equal(weights, initial[name]) for name, weights in one["weights"].items())
    for name, weights in one["weights"].items():
        torch.testing.assert_close(several["weights"][name], weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 128])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_together_the_processes_have_every_sample_once(samples: int, size: int) -> None:
    positions = torch.randperm(samples)
    parts = [Workers(rank, size).share(positions) for rank in range(size)]
    assert torch.equal(torch.cat([part for part, counts in parts if counts]), positions)
    assert all(len(part) > 0 for part, _ in parts)
    counted = [len(part) for part, counts in parts if counts]
    assert max(counted) - min(counted) <= 1


def test_the_buffers_become_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.BatchNorm2d(2)
    model.running_mean = torch.tensor([1.0, 3.0])
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.add_(1.0))
    Workers(0, 2).average_buffers(model)
    assert torch.equal(model.running_mean, torch.tensor([1.0, 2.0]))
    assert int(model.num_batches_tracked) == 0


def test_the_buffers_of_the_averaged_network_become_their_mean_too() -> None:
    seen = []

    class Recorded(Workers):
        def average_buffers(self, model: torch.nn.Module) -> None:
            seen.append(model)

    data = load_data("digits", split="train", limit=40)
    for ema in (None, 0.9):
        seen.clear()
        training = Training(several_processes.network(), data, sgd_plan(1, 0.05, ema=ema), device=torch.device("cpu"),
                            workers=Recorded())  # fmt: skip
        training.run_epoch()
        assert [id(network) for network in seen] == list(dict.fromkeys([id(training.model), id(training.evaluated)]))
        assert len(seen) == (1 if ema is None else 2)


def test_a_scalar_is_finite_only_where_it_is_in_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    others = torch.tensor(1.0)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.add_(others))
    for value in (torch.tensor(2.0), torch.tensor(float("inf")), torch.tensor(float("nan"))):
        before = value.clone()
        assert Workers(0, 2).finite(value) == Workers().finite(value) == bool(value == 2)
        assert torch.equal(value, before) or bool(before.isnan())
    others.fill_(float("-inf"))
    assert not Workers(0, 2).finite(torch.tensor(2.0))
    assert not Workers(0, 2).finite(torch.tensor(float("inf")))


def test_what_fails_in_the_process_that_writes_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two processes are played one after the other."""
    sent: list[bool] = []

    def broadcast(values: list[bool]) -> None:
        sent.append(values[0]) if rank == 0 else values.__setitem__(0, sent[-1])

    monkeypatch.setattr("torch.distributed.broadcast_object_list", broadcast)
    done: list[int] = []

    def fails() -> None:
        raise JournalError("the disk is full")

    rank = 0
    with pytest.raises(JournalError, match="the disk is full"):
        Workers(0, 2).alone(fails)
    rank = 1
    with pytest.raises(PeerError):
        Workers(1, 2).alone(fails)
    rank = 0
    Workers(0, 2).alone(lambda: done.append(0))
    rank = 1
    Workers(1, 2).alone(lambda: done.append(1))
    assert done == [0]
    Workers().alone(lambda: done.append(2))
    assert done == [0, 2]
