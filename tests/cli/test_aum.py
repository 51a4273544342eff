"""``freqrobust analyze aum``: mislabelled samples of a user's own data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freqrobust import analyze
from freqrobust.analyses.aum import AreaUnderMargin
from freqrobust.core.errors import SpecError
from freqrobust.data.loading import load_data
from freqrobust.training.margins import flipped

FLAGS = ["--epochs", "3", "--augment", "none", "--quiet"]


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[int]]:
    """300 digits in a file, of which every fifth has another label, and the positions of these."""
    data = load_data("digits", split="train").first(300)
    labels = flipped(data.labels, 10, 0.2, seed=5)
    path = tmp_path_factory.mktemp("aum") / "wrong.npz"
    np.savez(path, images=data.images.numpy(), labels=labels.numpy())
    return path, set((labels != data.labels).nonzero()[:, 0].tolist())


def test_it_finds_most_of_the_wrong_labels(mislabelled: tuple[Path, set[int]], command: Callable[..., Any]) -> None:
    path, wrong = mislabelled
    result = command("analyze", "aum", "--data", path, "--out", "a.svg", "--json", "a.json", *FLAGS)
    assert result.code == 0, result.err
    record = json.loads(Path("a.json").read_text(encoding="utf-8"))
    (found,) = record["results"]
    assert record["models"] == []
    assert found["defense"] == "undefended"
    flagged = {one["id"] for one in found["flagged"]}
    assert len(flagged & wrong) > 0.7 * len(wrong)
    assert len(flagged - wrong) < 0.4 * len(flagged)
    distances = [one["distance"] for one in found["flagged"]]
    assert distances == sorted(distances)
    assert max(distances) <= 0
    assert len(found["aum"]) == len(found["ids"]) == 300
    assert len(found["indicators"]) == 2 * (300 // 11)
    assert "<svg" in Path("a.svg").read_text(encoding="utf-8")


def test_the_same_again_in_python() -> None:
    data = load_data("digits", split="train").first(120)
    options: dict[str, Any] = {"device": "cpu", "seed": 3}
    plugin = AreaUnderMargin(epochs=1, augment="none", scores="softmax", runs=3)
    before = torch.random.get_rng_state()
    first, second = (analyze(None, data, plugin, picture="png", **options) for _ in range(2))
    assert first.results[0].model_dump(exclude={"seconds"}) == second.results[0].model_dump(exclude={"seconds"})
    assert first.picture == second.picture
    assert bool((torch.random.get_rng_state() == before).all())
    assert len(first.results[0].thresholds) == 3  # type: ignore[attr-defined]
    for table in first.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    other = analyze(None, data, plugin, device="cpu", seed=4)
    assert other.results[0].aum != first.results[0].aum  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "demo"], "aum looks at the data, with networks that it trains itself: give no model"),
        (["--defense", "smooth"], "aum looks at the data, with networks that it trains itself: give no defense"),
        (["--network", "resnet21"], "unknown architecture 'resnet21'"),
        (["--augment", "flip"], "unknown augmentation 'flip'"),
        (["--epochs", "0"], "aum: parameter 'epochs' should be"),
        (["--runs", "1"], "aum: parameter 'runs' should be"),
        (["--runs", "12"], "expected 2 to 11 runs, but got 12"),
        (["--first", "9"], "9 samples are too few"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, mislabelled: tuple[Path, set[int]], rejected: Callable[..., str]
) -> None:
    assert message in rejected("analyze", "aum", "--data", mislabelled[0], "--json", "a.json", *arguments)
    assert not Path("a.json").exists()


def test_data_are_needed(rejected: Callable[..., str]) -> None:
    assert "aum needs images" in rejected("analyze", "aum")


def test_others_need_a_model() -> None:
    with pytest.raises(SpecError, match="heatmap needs a model"):
        analyze(None, load_data("digits").first(2), "heatmap", device="cpu")


def test_an_analysis_without_a_model_that_asks_for_it(
    mislabelled: tuple[Path, set[int]], write: Callable[[str, str], str], rejected: Callable[..., str]
) -> None:
    source = """
from freqrobust import Analysis

class Odd(Analysis):
    \"\"\"Says that it needs none.\"\"\"
    needs_model = False

    def run(self, model, data, context):
        return model.training
"""
    spec = f"{write('odd.py', source)}:Odd"
    message = rejected("analyze", spec, "--data", mislabelled[0], "--json", "a.json")
    assert "Odd declares needs_model = False, but asks for the model: 'training' is not there" in message
