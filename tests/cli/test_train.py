"""``freqrobust train``: what is shown, exit codes, Ctrl-C, and the checkpoint that ``eval`` takes without further flags."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.waiting import PATIENCE

Command = Callable[..., Any]
TINY = [
    "train",
    "--epochs",
    "2",
    "--first",
    "200",
    "--probe",
    "lfc:radius=2",
    "--probe-samples",
    "50",
    "--device",
    "cpu",
]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    """Pictures take longer than these trainings."""
    monkeypatch.setattr("freqrobust.experiments.train.can_draw", lambda: False)


def test_train_then_eval_without_further_flags(command: Command) -> None:
    done = command(*TINY, "--json", "training.json")
    assert done.code == 0
    lines = done.err.splitlines()
    assert lines[0] == "training a network"
    assert lines[1] == "no --data given: training on the demo's data, handwritten digits of 8 x 8 pixels"
    assert lines[2] == "data: digits, 200 images 1x8x8, 10 classes; 20 held out"
    assert [line.split(":")[0].rstrip("*") for line in lines[-2:]] == ["epoch 1/2", "epoch 2/2"]
    assert "trained: small_cnn with natural on digits\n2 epochs, 180 images, " in done.out
    record = json.loads(Path("training.json").read_text())
    assert f"best epoch: {record['best_epoch']}, chosen by clean on 20 held-out images" in done.out
    rows = [line for line in done.out.splitlines() if line.startswith(("clean", "lfc:radius=2"))]
    assert len(rows) == 2
    (out,) = Path("runs").iterdir()
    for name in ("best.pt", "last.pt", "log.jsonl", "training.json"):
        assert f"{out / name}" in done.out
    *_, last = done.out.splitlines()
    assert last == f"next: freqrobust eval --model {out / 'best.pt'} --data digits"
    evaluated = command(*last.removeprefix("next: freqrobust ").split(), "--attack", "clean", "--first", "50")
    assert evaluated.code == 0
    assert "source: checkpoint" in evaluated.err
    # the finished training is shown again
    again = command(*TINY)
    assert again.code == 0
    assert "this training was finished before; its result is shown" in again.err
    assert again.out == done.out
    quiet = command(*TINY, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_the_options_of_a_recipe_lie_below_those_of_the_command_line(command: Command, write: Any) -> None:
    write("mine.toml", 'epochs = 1\nbatch-size = 50\noptimizer = "adam"\naugment = ["none"]\nprobe = ["clean"]\n')
    rest = ["--first", "100", "--device", "cpu", "--out", "out"]
    assert command("train", "--recipe", "mine.toml", "--batch-size", "128", "--set", "hold-out=0.5", *rest).code == 0
    recipe = json.loads(Path("out/training.json").read_text())["recipe"]
    assert (recipe["epochs"], recipe["batch-size"], recipe["hold-out"]) == (1, 128, 0.5)  # 128 is also the default
    assert (recipe["optimizer"], recipe["augment"]) == ("adam", [])


def test_an_architecture_from_a_file_stays_protected(command: Command, write: Any) -> None:
    code = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    write("net.py", code)
    done = command(*TINY, "--arch", "net.py:build", "--out", "out")
    assert done.code == 0
    following = done.out.splitlines()[-1].removeprefix("next: freqrobust ").split()
    assert following[:5] == ["eval", "--model", "out/best.pt", "--arch", "net.py:build"]
    few = ["--attack", "clean", "--first", "50"]
    assert command(*following, *few).code == 0
    refused = command("eval", "--model", "out/best.pt", "--data", "digits", *few)
    assert refused.code == 2
    assert "names Python code as its architecture; if you trust it" in refused.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nothing"], "unknown recipe 'nothing'"),
        (["--recipe", "bad.toml"], "bad.toml, line 2: unknown key 'epoch'; did you mean 'epochs'?"),
        (["--epochs", "0"], "--epochs should be at least 1, but got 0"),
        (["--set", "epochs=0"], "--set epochs=0: epochs should be at least 1, but got 0"),
        (
            ["--data", "one.npz"],
            "one.npz: all 18 training images have the label 3 (2 held out); a classifier needs",
        ),
        (
            ["--arch", "net.py:few"],
            "digits has 10 classes, but the network net.py:few has 5 outputs; give another --arch",
        ),
        (["--probe", "smooth"], "probe 'smooth': unknown attack 'smooth'"),
        (["--best", "pgd"], "the best checkpoint is chosen by one of the probes clean, lfc:radius=2, but got 'pgd'"),
        (["--out", "other"], "other contains another run: epochs was 1 and is 2; give another --out"),
        (["--out", "/dev/full/run"], "cannot write /dev/full/run/run.json"),
        (["--labels", "wrong"], "labels should be true, shuffled or corrupted:p=0.2, but got 'wrong'"),
        (["--augment", "mixup", "--method", "madry"], "mixup mixes labels, which the training method madry cannot use"),
        (["--method", "madry:eps=[0.1,0.2]"], "madry:eps=[0.1,0.2] is a sweep of 2; a training takes one"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, command: Command, write: Any) -> None:
    write("bad.toml", "epochs = 3\nepoch = 4\n")
    write("net.py", "from torch import nn\ndef few():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))\n")
    np.savez("one.npz", images=np.zeros((20, 8, 8, 3), np.uint8), labels=np.full(20, 3))
    Path("other").mkdir()
    if "other" in arguments:
        assert command(*TINY, "--epochs", "1", "--out", "other").code == 0
    before = sorted(Path("other").iterdir())
    out = [] if "--out" in arguments else ["--out", "run"]
    refused = command(*TINY, *out, *arguments)
    assert (refused.code, refused.out) == (2, "")
    assert refused.error.startswith(f"freqrobust: {message}")
    assert [line.split()[0] for line in refused.err.splitlines()[:-1]] in ([], ["training"])
    assert not Path("run").exists()
    assert sorted(Path("other").iterdir()) == before


def test_a_diverged_training_is_exit_code_3(command: Command) -> None:
    done = command(*TINY, "--optimizer", "sgd:lr=1e30", "--schedule", "constant", "--out", "out")
    assert (done.code, done.out) == (3, "")
    assert done.error.startswith("freqrobust: training: the loss is not finite in step ")
    assert "lower the learning rate; no epoch was finished, so that there is no checkpoint" in done.error
    assert "Traceback" not in done.err


def test_a_truncated_checkpoint(command: Command) -> None:
    assert command(*TINY, "--out", "out").code == 0
    Path("out/training.json").unlink()
    last = Path("out/last.pt")
    last.write_bytes(last.read_bytes()[:1000])
    refused = command(*TINY, "--out", "out")
    assert (refused.code, refused.out) == (2, "")
    assert "out/last.pt is truncated or damaged" in refused.error
    assert "remove the directory out to train again from the start" in refused.error


@pytest.mark.slow
def test_interrupted_and_resumed(command: Command, start: Callable[..., subprocess.Popen[str]]) -> None:
    arguments = [*TINY, "--epochs", "100000", "--out", "out"]
    process = start(*arguments)
    assert process.stderr is not None
    assert any("epoch 3/100000" in " ".join(line.split()) for line in process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    said = err.splitlines()[-1]
    assert said.startswith("freqrobust: interrupted after epoch ")
    assert said.endswith(" of 100000 (exit code 130); run the same command again to resume from out")
    finished = int(said.split("epoch ")[1].split()[0])
    assert finished >= 3
    assert torch.load("out/last.pt", weights_only=True)["training"]["epoch"] == finished
    process = start(*arguments)
    assert process.stderr is not None
    resumed = next(line for line in process.stderr if line.startswith("resumed"))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert resumed == f"resumed from out: {finished} of 100000 epochs are finished\n"


@pytest.mark.parametrize("what", ["recipes", "methods", "augmentations", "regularizers", "optimizers", "schedules"])
def test_lists(what: str, command: Command) -> None:
    listed = command("list", what)
    assert listed.code == 0
    expected = {
        "recipes": "robust-small",
        "methods": "madry",
        "augmentations": "flip-crop",
        "regularizers": "kernel-smoothness",
        "optimizers": "sgd",
        "schedules": "one-cycle",
    }
    assert f"\n  {expected[what]} " in listed.out
