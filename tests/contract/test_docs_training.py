"""The code of docs/writing-a-training-method.md is run, and docs/augmentations.md names what is registered."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from freqrobust import Batch, StepContext, load_model
from freqrobust.cli.main import main
from freqrobust.core.training_config import Recipe
from freqrobust.plugins.registry import Registry, augmentations, methods, optimizers, regularizers, schedules
from freqrobust.training.plan import plan

ROOT = Path(__file__).parents[2]
WRITING = ROOT / "docs" / "writing-a-training-method.md"
PARTS = (ROOT / "docs" / "augmentations.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "tests" / "thirdparty_plugin" / "freqrobust_example"


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documented files, in the current directory."""
    monkeypatch.chdir(tmp_path)
    code = blocks("python", WRITING.read_text(encoding="utf-8"))
    for name, text in zip(("focal.py", "half.py", "erasing.py", "sparse.py"), code, strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_examples_are_those_of_the_package(files: Path) -> None:
    for name in ("focal.py", "erasing.py", "sparse.py"):
        assert (files / name).read_text(encoding="utf-8") == (EXAMPLES / name).read_text(encoding="utf-8")
        assert len((files / name).read_text(encoding="utf-8").splitlines()) <= 25


def test_the_documented_command_trains_with_all_of_them(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = blocks("sh", WRITING.read_text(encoding="utf-8"))
    parts = ["--augment", "erasing.py:Erasing:size=3", "--regularizer", "sparse.py:Sparse:weight=0.001"]
    _, *arguments = shlex.split(command)
    assert run([*arguments, *parts, "--first", "200"]) == 0
    record = json.loads((files / "run" / "training.json").read_text(encoding="utf-8"))
    written = json.dumps(record)
    for spec in ("Focal:gamma=3", "Erasing:size=3", "Sparse:weight=0.001"):
        assert spec in written
    assert not load_model(files / "run" / "best.pt").training
    assert capsys.readouterr().out


def batch_and_context() -> tuple[Batch, StepContext]:
    generator = torch.Generator().manual_seed(0)
    images, labels, ids = torch.rand(8, 1, 8, 8, generator=generator), torch.arange(8) % 3, torch.arange(8)
    return Batch(images, labels, ids, labels), StepContext(ids, 0, 0, 3)


@pytest.mark.usefixtures("files")
def test_what_the_examples_compute() -> None:
    batch, context = batch_and_context()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    losses, logits = methods.parse("focal.py:Focal:gamma=3")[0].plugin.losses(model, batch, context)
    p = model(batch.images).softmax(dim=1)[torch.arange(8), batch.labels]
    torch.testing.assert_close(losses, -((1 - p) ** 3) * p.log())
    torch.testing.assert_close(logits, model(batch.images))
    erased = augmentations.parse("erasing.py:Erasing:size=3")[0].plugin.augment(batch, context).images
    changed = erased != batch.images
    assert changed.flatten(1).sum(dim=1).tolist() == [9] * 8
    assert set(erased[changed].tolist()) == {0.5}
    assert changed.any(dim=3).sum(dim=2).flatten().tolist() == [3] * 8
    penalty = regularizers.parse("sparse.py:Sparse:weight=0.1")[0].plugin.penalty(model)
    expected = 0.1 * sum(float(parameter.detach().abs().sum()) for parameter in model.parameters())
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("files")
def test_the_adversarial_example_attacks() -> None:
    batch, context = batch_and_context()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).train()
    method = methods.parse("half.py:Half:eps=0.1")[0].plugin
    losses, logits = method.losses(model, batch, context)
    clean = F.cross_entropy(model(batch.images), batch.labels, reduction="none")
    attacked = F.cross_entropy(logits, batch.labels, reduction="none")
    torch.testing.assert_close(losses, (clean + attacked) / 2)
    assert bool((attacked > clean).all())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert method.probes() == ["pgd:eps=0.1,steps=10"]


@pytest.mark.parametrize("registry", [augmentations, regularizers, optimizers, schedules], ids=lambda r: r.plural)
def test_the_page_has_every_plugin_and_its_examples_are_specs(registry: Registry) -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| .*? \| `([^`]+)` \| [^|]*\|$", PARTS, flags=re.MULTILINE))
    ours = [name for name in registry.names() if registry.origin(name).startswith("freqrobust ")]
    for name in ours:
        assert name in rows, f"docs/augmentations.md has no row for {name}"
        (parsed,) = registry.parse(rows[name])
        assert parsed.name == name


def test_the_documented_recipe_is_one() -> None:
    (command,) = blocks("sh", PARTS)
    words = shlex.split(command.replace("\\\n", " "))
    given: dict[str, list[str]] = {}
    for option, value in zip(words[2::2], words[3::2], strict=True):
        given.setdefault(option.removeprefix("--"), []).append(value)
    values = {key: items if key in ("augment", "regularizer") else items[0] for key, items in given.items()}
    values.pop("data"), values.pop("out")
    resolved = plan(Recipe(**{**values, "epochs": int(values["epochs"]), "ema": float(values["ema"])}))
    assert [part.name for part in resolved.parts] == [
        "natural",
        "adamw",
        "cosine",
        "flip-crop",
        "mixup",
        "kernel-smoothness",
    ]
