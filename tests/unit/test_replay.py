"""``replay:dir=...``: saved examples as an attack; ``eval --save-adversarial``."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from freqrobust import evaluate
from freqrobust.core.errors import SpecError
from freqrobust.data.adversarial_sets import read, read_all
from freqrobust.plugins.registry import attacks


def right(model, saved, digits) -> torch.Tensor:
    """Right on the clean image and on the saved one."""
    clean, _, _ = digits.batch(torch.arange(len(digits)), torch.device("cpu"))
    with torch.no_grad():
        return (model(clean).argmax(dim=1) == digits.labels) & (model(saved.images).argmax(dim=1) == digits.labels)


class Knows(torch.nn.Module):
    """The label of the nearest of the images it was given."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.images, self.labels = images.flatten(1), labels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(x.flatten(1), self.images).argmin(dim=1)
        return torch.nn.functional.one_hot(self.labels[nearest], 10).float()


@pytest.mark.parametrize("which", ["model", "other"])
def test_the_accuracy_is_that_of_the_saved_images(request, which, undefended, digits) -> None:
    network = request.getfixturevalue(which)
    report = evaluate(network, digits, attacks=[f"replay:dir={undefended}"], device="cpu")
    cell = report.cell("replay")
    assert cell.status == "ok", cell.error
    assert torch.equal(torch.from_numpy(cell.right()), right(network, read(undefended), digits))
    assert cell.threat is not None
    assert (cell.threat.norm, cell.threat.eps, cell.backwards) == ("linf", 0.1, 0)
    assert len(report.worst_case) == 1


def test_of_several_sets_the_strongest_example_counts(folder, model, digits) -> None:
    report = evaluate(model, digits, attacks=[f"replay:dir={folder}"], device="cpu", batch_size=11)
    everywhere = torch.stack([right(model, saved, digits) for saved in read_all(folder)]).all(dim=0)
    assert torch.equal(torch.from_numpy(report.cell("replay").right()), everywhere)


def test_a_part_of_the_samples(undefended, model, digits) -> None:
    part = digits.take(torch.tensor([40, 3, 17]))
    cell = evaluate(model, part, attacks=[f"replay:dir={undefended}"], device="cpu").cell("replay")
    assert torch.equal(torch.from_numpy(cell.right()), right(model, read(undefended), digits)[[40, 3, 17]])


def test_the_threat_is_that_of_all_sets_or_none(undefended, tmp_path) -> None:
    saved = read(undefended)
    assert saved.meta.threat is not None
    saved.write(tmp_path)
    larger = saved.meta.threat.model_copy(update={"eps": 0.2})
    replace(saved, meta=saved.meta.model_copy(update={"threat": larger, "attack": "pgd:eps=0.2"})).write(tmp_path)
    (one,) = attacks.parse(f"replay:dir={undefended}")
    (both,) = attacks.parse(f"replay:dir={tmp_path}")
    assert one.plugin.threat() == ("linf", 0.1)
    assert both.plugin.threat() is None
    assert one.params["sha256"] != both.params["sha256"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: replace(d, ids=d.ids + 5000),
            r"has no example of sample \d+ and of 59 others; it was generated for 60",
        ),
        (lambda d: replace(d, labels=(d.labels + 1) % 10), r"made for other data \(digits\): some labels differ"),
        (lambda d: replace(d, images=1 - d.images), "exceeds its perturbation budget"),
    ],
)
def test_other_data(undefended, model, digits, change, message) -> None:
    data = change(digits)
    images, _, _ = data.batch(torch.arange(len(data)), torch.device("cpu"))
    network = Knows(images, data.labels)  # an attack is shown only samples that are right
    cell = evaluate(network, data, attacks=[f"replay:dir={undefended}"], device="cpu").cell("replay")
    assert cell.status == "failed"
    assert cell.error is not None
    assert re.search(message, cell.error), cell.error


def test_images_of_another_shape(undefended, digits) -> None:
    data = replace(digits, images=digits.images[..., :7])
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(56, 10))
    cell = evaluate(network, data, attacks=[f"replay:dir={undefended}"], device="cpu").cell("replay")
    assert cell.error is not None
    assert "has images (1, 8, 8), but these are (1, 8, 7)" in cell.error


def test_what_cannot_be_read(tmp_path) -> None:
    with pytest.raises(SpecError, match=r"replay: .*nowhere does not exist"):
        attacks.parse(f"replay:dir={tmp_path / 'nowhere'}")
    with pytest.raises(SpecError, match="parameter 'dir' is required, for example replay:dir=adversarial"):
        attacks.parse("replay")


def test_commands(command, tmp_path) -> None:
    quick = ["--first", 50, "--quiet", "--run-dir", "run", "--defense", "lowpass:radius=3"]
    code, _, err = command("eval", *quick, "--attack", "fgsm:eps=0.1", "--save-adversarial", "adv", "--json", "a.json")
    assert code == 0, err
    assert [saved.meta.defense for saved in read_all(tmp_path / "adv")] == ["lowpass:radius=3", "undefended"]
    code, _, err = command("eval", *quick, "--attack", "replay:dir=adv", "--json", "b.json")
    assert code == 0, err


def test_commands_with_bad_input(command, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, message in [
        (["--attack", "fgsm", "--save-adversarial", "file"], "file is not a folder"),
        (["--attack", "lfc:radius=2", "--save-adversarial", "adv"], "none of the attacks is adversarial"),
        (["--attack", "replay:dir=nowhere"], "replay: nowhere does not exist"),
    ]:
        code, out, err = command("eval", *arguments)
        assert (code, out) == (2, ""), err
        assert message in err.splitlines()[-1]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
