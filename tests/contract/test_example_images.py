"""Example images: they show what was attacked, and change nothing that was measured."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

from freqrobust import Attack, ImageData, Report, evaluate
from freqrobust.core.errors import SpecError
from freqrobust.harness.example_images import SIDE, as_png
from freqrobust.numerics.frequency import low_pass
from freqrobust.results.examples import ExamplePicture, ExampleSet

ATTACKS = ["lfc:radius=2", "hfc:radius=2", "fgsm:eps=[0.05,0.1]"]


def pixels(picture: ExamplePicture) -> torch.Tensor:
    """``(C, H, W)``, in [0, 1]."""
    image = Image.open(io.BytesIO(base64.b64decode(picture.base64)))
    values = torch.from_numpy(np.array(image)).float() / 255
    return values.reshape(image.height, image.width, -1).permute(2, 0, 1)


def run(network: nn.Module, digits: ImageData, **options: Any) -> Report:
    return evaluate(
        network,
        digits,
        **{"attacks": ATTACKS, "device": "cpu", "batch_size": 64, "examples": 3, "diagnose": None, **options},
    )


@pytest.fixture(scope="module")
def report(trained: nn.Module, digits: ImageData) -> Report:
    return run(trained, digits, defenses=["lowpass:radius=3"])


def by_kind(found: ExampleSet) -> list[dict[str, ExamplePicture]]:
    return [{picture.kind: picture for picture in sample.pictures} for sample in found.samples]


def test_they_show_what_was_attacked(report: Report, digits: ImageData, trained: nn.Module) -> None:
    (found,) = report.examples
    assert (found.attack_spec, found.threat.eps, found.radius) == ("fgsm:eps=0.1", 0.1, 2)
    assert (found.defense, found.width, found.height) == ("undefended", 8, 8)
    right = report.cell("clean").right() & report.cell("lowpass/clean").right()
    labels = []
    for sample, shown in zip(found.samples, by_kind(found), strict=True):
        position = digits.ids.tolist().index(sample.id)
        assert right[position]
        labels.append(sample.label)
        assert sample.label == digits.labels[position]
        assert sample.name == str(sample.label) == shown["clean"].name
        clean = digits.images[position]
        half = 0.5 / 255 + 1e-6
        assert (pixels(shown["clean"]) - clean).abs().max() <= half
        delta = pixels(shown["adversarial"]) - clean
        assert 0 < delta.abs().max() <= 0.1 + half
        assert (pixels(shown["perturbation"]) - 0.5 - found.magnified * delta).abs().max() <= (
            1 + found.magnified
        ) * half
        low = low_pass(clean[None], 2)[0]
        assert (pixels(shown["lfc"]) - low.clamp(0, 1)).abs().max() <= half
        assert (pixels(shown["hfc"]) - (0.5 + clean - low).clamp(0, 1)).abs().max() <= half
        assert shown["perturbation"].prediction is None
        with torch.no_grad():
            assert shown["lfc"].prediction == int(trained.eval()(low[None]).argmax())
        assert sample.adversarial == (shown["adversarial"].prediction != sample.label)
    assert len(set(labels)) == 3  # of different classes
    assert found.magnified * 0.1 <= 0.5 < 2.5 * found.magnified * 0.1


def comparable(report: Report) -> Any:
    seconds = {"__all__": {"seconds"}}
    return report.model_dump(
        exclude={"cells": seconds, "diagnostics": seconds, "created": True, "config": True, "examples": True}
    )


def test_nothing_that_is_measured_changes(
    report: Report, trained: nn.Module, digits: ImageData, tmp_path: Path
) -> None:
    without = run(trained, digits, defenses=["lowpass:radius=3"], examples=0, run_dir=tmp_path)
    assert without.examples == []
    assert comparable(without) == comparable(report)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    again = run(trained, digits, defenses=["lowpass:radius=3"], run_dir=tmp_path)
    assert again.examples == report.examples
    assert comparable(again) == comparable(report)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"oblivious": False}])
def test_they_do_not_depend_on_batches_and_on_what_else_is_measured(
    options: dict[str, Any], report: Report, trained: nn.Module, digits: ImageData
) -> None:
    attacks = ["fgsm:eps=0.1"] if "oblivious" in options else ATTACKS
    found = run(trained, digits, defenses=["lowpass:radius=3"], **options, attacks=attacks).examples[0]
    if attacks == ATTACKS:
        assert found.samples == report.examples[0].samples
    else:  # no radius was measured
        assert found.radius == 3
        assert [s.pictures[:3] for s in found.samples] == [s.pictures[:3] for s in report.examples[0].samples]


class FailsLater(Attack):
    """An attack that works on many samples, and fails on few."""

    eps: float = 0.1
    norm: str = "linf"

    def perturb(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: Any) -> torch.Tensor:
        if len(images) < 4:
            raise RuntimeError("too few images")
        return images


def test_a_failure_is_a_warning(trained: nn.Module, digits: ImageData) -> None:
    found = run(trained, digits.first(20), attacks=[FailsLater()])
    assert found.status == "complete"
    assert found.examples == []
    assert [(one.code, "too few images" in one.message) for one in found.warnings] == [("no-examples", True)]


@pytest.mark.parametrize("attacks", [["lfc:radius=2"], ["fgsm:eps=0"], ["fmn:steps=5"]])
def test_without_a_budget_there_are_none(attacks: list[str], trained: nn.Module, digits: ImageData) -> None:
    found = run(trained, digits.first(10), attacks=attacks)
    assert found.examples == []
    assert not [one for one in found.warnings if one.code == "no-examples"]


def test_several_models_and_a_stochastic_defense(trained: nn.Module, digits: ImageData) -> None:
    models = {"a": trained, "b": trained}
    options: dict[str, Any] = {"attacks": ["fgsm:eps=0.1"], "defenses": ["smoothing:sigma=0.1"], "undefended": False}
    found = run(models, digits.first(6), **options, examples=2).examples  # type: ignore[arg-type]
    assert [one.model for one in found] == [0, 1]
    assert found[0].samples == found[1].samples
    assert found[0].defense_spec.startswith("smoothing")


@pytest.mark.parametrize(
    ("shape", "size"), [((3, 300, 450), (SIDE, 149)), ((1, 8, 8), (8, 8)), ((5, 300, 10), (7, SIDE))]
)
def test_large_images_are_stored_small(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    image = Image.open(io.BytesIO(base64.b64decode(as_png(torch.rand(shape)))))
    assert image.size == size
    assert image.mode == ("RGB" if shape[0] == 3 else "L")


@pytest.mark.parametrize("count", [-1, 65, 2.5, "many"])
def test_wrong_numbers(count: Any, trained: nn.Module, digits: ImageData) -> None:
    with pytest.raises(SpecError, match="examples"):
        run(trained, digits, examples=count)


@pytest.mark.parametrize("text", ["", "not base64!", base64.b64encode(b"<svg/>").decode()])
def test_only_pictures_are_accepted(text: str) -> None:
    with pytest.raises(ValidationError, match="the picture should be"):
        ExamplePicture(kind="clean", base64=text)


def test_the_page_shows_them_later(report: Report, shown: Callable[..., str], tmp_path: Path) -> None:
    report.to_json(tmp_path / "run.json")
    page = shown("html", Report.from_json(tmp_path / "run.json"))
    for sample in report.examples[0].samples:
        for picture in sample.pictures:
            assert picture.base64 in page
