"""A training with Lightning is the same with the callback, and its metrics can be monitored."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freqrobust import evaluate
from freqrobust.core.errors import DataError, ModelError, SpecError

pytestmark = [
    pytest.mark.slow,  # importing Lightning takes seconds
    pytest.mark.skipif(find_spec("lightning") is None, reason="Lightning is not installed (the extra 'lightning')"),
    # about this machine and these tiny trainings, not about the callback
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:GPU available but not used.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*"),
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning.*"),
]
SPEC = "pgd:eps=0.05,steps=2"


def samples(n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(n, 1, 8, 8, generator=generator), torch.arange(n) % 3


def trained(callbacks: list[Any], **options: Any) -> tuple[Any, Any]:
    """The trainer and the network after a training."""
    from support.lightning_net import train

    return train(samples(), callbacks, **options)


def callback_for(*given: Any, **options: Any) -> Any:
    from freqrobust import RobustnessCallback

    return RobustnessCallback(*given, **options)


@pytest.fixture(autouse=True)
def generators() -> Any:
    """The states of the process's random generators, as before the test."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


@pytest.mark.parametrize("validated", [True, False])
def test_a_training_is_the_same_with_the_callback(validated: bool) -> None:
    plain = trained([], validated=validated)[1]
    callback = callback_for(samples(), [SPEC, "noise:eps=0.1"], seed=3)
    trainer, net = trained([callback], validated=validated)
    for (name, one), other in zip(net.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert all(net.seen)
    assert all(p.requires_grad for p in net.parameters())
    assert set(callback.metrics) == {"clean", SPEC, "noise:eps=0.1"} <= set(trainer.callback_metrics)


def test_the_accuracies_are_those_of_evaluate() -> None:
    trainer, net = trained([callback_for(samples(), SPEC, prefix="robust/")])
    report = evaluate(net.eval(), samples(), attacks=[SPEC], device="cpu", diagnose=None)
    for name, metric in (("clean", "robust/clean"), ("pgd", f"robust/{SPEC}")):
        assert trainer.callback_metrics[metric] == pytest.approx(report.cell(name).accuracy)


def test_a_normalisation_and_a_part_of_the_module() -> None:
    callback = callback_for(samples(), SPEC, normalize="0.5/0.25", network=lambda module: module.net)
    trainer, net = trained([callback], epochs=1)
    images, labels = samples()
    with torch.no_grad():
        right = (net.eval().net((images - 0.5) / 0.25).argmax(dim=1) == labels).float().mean()
    assert float(trainer.callback_metrics["clean"]) == pytest.approx(float(right))


def test_a_module_that_returns_more_than_logits() -> None:
    class Tupled(torch.nn.Module):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.net(x)}

    callbacks = [callback_for(samples(), SPEC), callback_for(samples(), SPEC, network=Tupled, prefix="dict/")]
    trainer, _ = trained(callbacks, epochs=1)
    assert trainer.callback_metrics[f"dict/{SPEC}"] == trainer.callback_metrics[SPEC]


def test_checkpoints_and_stopping_monitor_the_metrics(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    checkpoint = ModelCheckpoint(tmp_path, filename="best", monitor=SPEC, mode="max")
    stopping = EarlyStopping("clean", mode="max", stopping_threshold=0.0)
    trainer, _ = trained([callback_for(samples(), SPEC), checkpoint, stopping], epochs=5)
    assert checkpoint.best_model_score == trainer.callback_metrics[SPEC]
    assert (tmp_path / "best.ckpt").exists()
    assert trainer.current_epoch == 1  # stopped after the first epoch


def test_every_so_many_epochs_and_after_the_last(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    callback = callback_for(samples(), [SPEC, "noise:eps=0.1@every=1"], every=2)
    trained([callback], epochs=3, logger=CSVLogger(tmp_path, name="", version=""), log_every_n_steps=1)
    header, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert SPEC in header.replace('"', "")
    rows = list(csv.DictReader([header, *lines]))
    epochs = {name: [int(row["epoch"]) + 1 for row in rows if row[name]] for name in (SPEC, "noise:eps=0.1", "clean")}
    assert epochs == {SPEC: [2, 3], "noise:eps=0.1": [1, 2, 3], "clean": [2, 3]}


def test_the_sanity_check_and_validation_alone_measure_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    callback, measured = callback_for(samples(), SPEC), []
    monkeypatch.setattr(callback, "_check_fit", lambda network, device: measured.append(1))
    trainer, net = trained([callback], epochs=1, num_sanity_val_steps=1)
    assert len(measured) == 1
    trainer.validate(net, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*samples())), verbose=False)
    assert len(measured) == 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"every": 0}, SpecError, "every should be a whole number of at least 1, but got 0"),
        ({"seed": "x"}, SpecError, "seed should be a whole number, but got 'x'"),
        ({"attacks": None}, SpecError, "attacks should be a spec or several, but got NoneType"),
        ({"batch_size": True}, SpecError, "batch_size should be a whole number"),
        ({"attacks": "pdg:eps=1"}, SpecError, "did you mean 'pgd'"),
        ({"attacks": ["ddn"]}, SpecError, "has no budget"),
        ({"normalize": "cifra10"}, SpecError, "unknown normalisation 'cifra10'"),
        ({"normalize": "cifar10"}, ModelError, "channel"),
        ({"data": (torch.rand(2, 1, 8, 8) * 255, torch.zeros(2))}, DataError, r"in \[0, 1\]"),
    ],
)
def test_wrong_input_is_refused_at_once(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        callback_for(**{"data": samples(), **given})


def test_a_network_that_is_none() -> None:
    with pytest.raises(ModelError, match=r"should be a torch\.nn\.Module, but is str"):
        trained([callback_for(samples(), SPEC, network=lambda module: "net")], epochs=1)


@pytest.mark.slow
def test_both_packages_and_none() -> None:
    """The base class is that of the package in use; without one, the error says what to install."""
    code = """
import sys, warnings
warnings.simplefilter("ignore")
package = sys.argv[1]
if package == "none":
    import importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if "lightning" in name else find(name, *rest)
else:
    __import__(package)
import freqrobust
from freqrobust.core.errors import SpecError
try:
    print([base.__module__ for base in freqrobust.RobustnessCallback.__mro__[1:2]])
except SpecError as error:
    print(error)
"""
    for package, expected in (
        ("pytorch_lightning", "['pytorch_lightning.callbacks.callback']"),
        ("none", "RobustnessCallback needs Lightning: pip install 'freqrobust[lightning]'"),
    ):
        done = subprocess.run([sys.executable, "-c", code, package], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == expected, done.stderr
