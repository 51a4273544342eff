"""Saved examples, evaluated again: on the same model, on another, on other data, after rounding."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from freqrobust import ImageData, load_data
from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.progress import Silent
from freqrobust.data.adversarial_sets import read
from freqrobust.harness.save_adversarial import save_adversarial
from freqrobust.harness.verify import verify


def test_the_same_model_predicts_as_when_saved(folder, model, digits) -> None:
    results = verify(folder, model, data=digits, device="cpu")
    assert [(one.defense, one.n, one.same_model) for one in results] == [
        ("lowpass:radius=3", 60, True),
        ("undefended", 60, True),
    ]
    for one in results:
        assert one.same_predictions == one.n
        assert one.misclassified == one.misclassified_when_saved > 5
        assert (one.budget, one.largest) == ("within", pytest.approx(0.1, abs=1e-6))
        assert one.robust == one.n - one.misclassified  # all are right when clean, or wrong both times


def test_the_whole_data_set_does_as_well(folder, model) -> None:
    assert {one.budget for one in verify(folder, model, data=load_data("digits"), device="cpu")} == {"within"}
    assert {one.budget for one in verify(folder, model, device="cpu")} == {"not checked"}


def test_batch_size_changes_nothing(folder, model) -> None:
    assert verify(folder, model, device="cpu", batch_size=7) == verify(folder, model, device="cpu")


def test_another_model(undefended, other, model) -> None:
    (one,) = verify(undefended, other, device="cpu")
    saved = read(undefended)
    with torch.no_grad():
        wrong = other(saved.images).argmax(dim=1) != saved.labels
    assert not one.same_model
    assert one.misclassified == int(wrong.sum())
    (defended,) = verify(undefended, model, defense="lowpass:radius=2", device="cpu")
    assert (defended.defense, defended.same_model) == ("lowpass:radius=2", False)


def test_the_progress_has_every_set(folder, model) -> None:
    said = []

    class Told(Silent):
        def end(self, summary: str) -> None:
            said.append(summary)

    results = verify(folder, model, device="cpu", progress=Told())
    assert said == [
        f"verifying {one.defense} / {one.attack}: {one.misclassified} of {one.n} misclassified" for one in results
    ]


class Above(torch.nn.Module):
    """Class 1 where the mean of the image is above a hundred and a fifth of 255."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        above = x.mean(dim=(1, 2, 3)) * 255 - 100.2
        return torch.stack([-above, above], dim=1)


def test_what_rounding_undoes(undefended, tmp_path) -> None:
    saved = read(undefended)
    levels = torch.full((60, 1, 8, 8), 100.4)  # wrong, and right again as 100
    levels[:20] = 100.6  # as 101 still wrong
    levels[50:] = 100.1  # right
    labels = torch.zeros(60, dtype=torch.int64)
    replace(saved, images=levels / 255, labels=labels).write(tmp_path)
    (one,) = verify(tmp_path, Above(), device="cpu")
    assert (one.misclassified, one.survive_rounding) == (50, 20)


def test_a_budget_that_does_not_hold(undefended, model, digits, tmp_path) -> None:
    saved = read(undefended)
    replace(saved, images=1 - saved.images).write(tmp_path)
    (one,) = verify(tmp_path, model, data=digits, device="cpu")
    assert one.budget == "exceeded"
    assert one.largest is not None
    assert one.largest > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: replace(d, images=d.images * 0.5), "other data: digits .*images or labels differ"),
        (lambda d: replace(d, labels=(d.labels + 1) % 10), "images or labels differ"),
        (lambda d: replace(d, ids=torch.arange(60) + 9000), r"sample \d+ is not there"),
        (lambda d: d.first(30), r"sample \d+ is not there"),
    ],
)
def test_other_data(folder, model, digits, change, message) -> None:
    with pytest.raises(DataError, match=message):
        verify(folder, model, data=change(digits), device="cpu")


def test_a_model_for_other_images(folder, model) -> None:
    three = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 8), torch.nn.Flatten())
    with pytest.raises(DataError, match="contains grayscale images, but the model takes 3 channels"):
        verify(folder, three, device="cpu")
    with pytest.raises(DataError, match="labels up to 9, but the model has 2 classes"):
        verify(folder, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)), device="cpu")


def test_defenses_that_cannot_be_made_again(model, digits, undefended, tmp_path) -> None:
    saved = read(undefended)
    gone = saved.meta.model_copy(update={"defense": "Mine", "defense_source": "gone.py:Mine"})
    replace(saved, meta=gone).write(tmp_path)
    with pytest.raises(SpecError, match=r"made for the defense Mine: .*give --defense undefended, or its spec"):
        verify(tmp_path, model, device="cpu")
    assert verify(tmp_path, model, defense="undefended", device="cpu")[0].same_predictions == 60
    with pytest.raises(SpecError, match="is a sweep of 2"):
        verify(tmp_path, model, defense="lowpass:radius=[1,2]", device="cpu")
    with pytest.raises(SpecError, match="needs training data"):
        verify(tmp_path, model, defense="madry", device="cpu")


def test_a_defense_from_a_file(model, digits, tmp_path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from freqrobust import InputDefense\n\n\nclass Half(InputDefense):\n"
        '    """Half as bright."""\n\n    def transform(self, images):\n        return images / 2\n'
    )
    monkeypatch.chdir(tmp_path)
    save_adversarial(
        model,
        digits,
        attacks=["fgsm:eps=0.1"],
        defenses=["mine.py:Half"],
        directory=tmp_path / "out",
        undefended=False,
        device="cpu",
    )
    (one,) = verify("out", model, device="cpu")
    assert (one.defense, one.same_predictions, one.same_model) == ("Half", 60, True)


def test_command(command, folder, digits, tmp_path) -> None:
    code, out, _ = command("verify", folder, "--model", "demo", "--data", "digits", "--json", "found.json")
    assert code == 0
    assert "\x1b" not in out
    rows = [[cell.strip() for cell in line.split("|")] for line in out.splitlines() if "|" in line]
    assert [row[:3] for row in rows[1:]] == [
        ["pgd:eps=0.1,steps=5", "lowpass:radius=3", "60"],
        ["pgd:eps=0.1,steps=5", "undefended", "60"],
    ]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["misclassified"] for one in found] == [int(row[4]) for row in rows[1:]]
    assert command("verify", folder, "--model", "demo", "--quiet")[1] == ""


def test_command_with_bad_input(command, folder, undefended, tmp_path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "none.npz").write_bytes(undefended.read_bytes()[:500])
    np.savez("mine.npz", images=np.zeros((600, 8, 8), dtype=np.uint8), labels=np.zeros(600, dtype=np.int64))
    for arguments, message in [
        (["nowhere", "--model", "demo"], "nowhere does not exist"),
        (["bad", "--model", "demo"], "cannot be read"),
        ([folder], "verify needs --model"),
        ([folder, "--model", "demo", "--data", "mine.npz"], "was made for other data: digits [test], not mine.npz"),
        ([folder, "--model", "demo", "--batch-size", "0"], "--batch-size should be auto or at least 1"),
        ([folder, "--model", "demo", "--json", "."], "it is a directory"),
    ]:
        code, out, err = command("verify", *arguments)
        assert (code, out) == (2, ""), err
        assert err.count("freqrobust:") == 1
        assert message in err


def test_command_says_where_a_budget_is_exceeded(command, undefended, tmp_path) -> None:
    saved = read(undefended)
    replace(saved, images=1 - saved.images).write(tmp_path / "far")
    code, out, _ = command("verify", "far", "--model", "demo", "--data", "digits")
    assert code == 1
    assert "exceeded: Linf" in out
    code, out, err = command("verify", "far", "--model", "demo", "--data", "digits", "--quiet")
    assert (code, out) == (1, "")
    first, last = err.splitlines()
    assert "pgd:eps=0.1,steps=5 exceeds its perturbation budget: exceeded: Linf 1 of 0.1" in first
    assert last == "freqrobust: exit code 1: 1 of 1 sets of examples exceeded the perturbation budget"


def test_clean_images_are_read_in_batches(undefended, model, digits, monkeypatch) -> None:
    sizes = []
    real = ImageData.batch

    def batch(self: ImageData, index: torch.Tensor, device: torch.device) -> Any:
        sizes.append(len(index))
        return real(self, index, device)

    monkeypatch.setattr(ImageData, "batch", batch)
    (one,) = verify(undefended, model, data=digits, device="cpu", batch_size=16)
    assert max(sizes) == 16
    assert one.largest == pytest.approx(0.1, abs=1e-6)
