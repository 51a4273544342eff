"""What every registered analysis keeps to, third-party ones too."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from freqrobust import AnalysisRecord, ImageData, analyze
from freqrobust.core.errors import DataError, SpecError
from freqrobust.harness.analysis import Analysis, analyses
from freqrobust.models.fingerprint import state_hash
from freqrobust.plugins.selection import parse_attacks
from freqrobust.testing.analysis_rules import close, content

#: What would take too long otherwise, and what needs several models.
PARAMS: dict[str, dict[str, Any]] = {
    "energy": {"shifts": ["lfc:radius=2", "hfc:radius=2", "lfc:radius=3"]},
    "spectrum": {"shifts": ["lfc:radius=2"], "attacks": ["pgd:eps=0.1,steps=2"]},
    "misalignment": {"radii": [1, 2, 3], "gallery": 1},
    "radius-curve": {"per_class": True},
    "robustness-curve": {"attack": "support.nearest:Nearest:steps=6"},
}
#: Those that look at models; tests/cli/test_aum.py has the one that looks at the data alone.
NAMES = [name for name in analyses.names() if analyses.get(name).needs_model]


def build(name: str) -> Analysis:
    made = analyses.get(name).build(name, PARAMS.get(name, {}))
    assert isinstance(made, Analysis)
    return made


def look(name: str, network: nn.Module, data: ImageData | None, **options: Any) -> AnalysisRecord:
    given: dict[str, Any] = {"defenses": ["smooth:rho=0.5"], "device": "cpu", "picture": "png", **options}
    return analyze(network, data, build(name), **given)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few(digits: ImageData) -> ImageData:
    return digits.first(20)


@pytest.fixture(scope="module")
def looked(trained: nn.Module, digits: ImageData) -> Callable[[str], AnalysisRecord]:
    """``looked(name)``: the record of one analysis, made once; not to be changed."""
    network = trained.eval().requires_grad_(False)
    return functools.cache(lambda name: look(name, network, digits.first(20)))


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_complete_and_comes_back(
    name: str, network: nn.Module, looked: Callable[[str], AnalysisRecord], tmp_path: Any
) -> None:
    before = state_hash(network)
    record = looked(name)
    assert state_hash(network) == before
    assert [one.defense for one in record.results] == ["undefended", "smooth"]
    assert all(one.label and one.sentence for one in record.results)
    assert record.tables
    assert all(len(row) == len(table.columns) for table in record.tables for row in table.rows)
    assert record.picture is not None
    assert record.params.keys() == analyses.get(name).model_fields.keys()
    record.to_json(tmp_path / "record.json")
    text = (tmp_path / "record.json").read_text(encoding="utf-8")
    numbers = record.model_copy(update={"picture": None}).dumps()
    assert "NaN" not in numbers
    assert "Infinity" not in numbers
    assert AnalysisRecord.from_json(tmp_path / "record.json").dumps() == text


@pytest.mark.parametrize("name", NAMES)
def test_the_same_again_and_whatever_the_batch_size(
    name: str, network: nn.Module, few: ImageData, looked: Callable[[str], AnalysisRecord]
) -> None:
    first, second = looked(name), look(name, network, few)
    assert content(first) == content(second)
    assert first.picture == second.picture
    results, _ = content(look(name, network, few, batch_size=7, picture=None))
    expected, _ = content(first)
    for a, b in zip(results, expected, strict=True):
        for text in ("sentence",):
            del a[text], b[text]
        assert close(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_random_and_hard_defenses(name: str, network: nn.Module, few: ImageData) -> None:
    """Votes and averaged gradients are keyed; straight-through gradients are enough."""
    given: dict[str, Any] = {"defenses": ["gaussian-noise:sigma=0.1", "bit-depth:bits=2"], "picture": None}
    refused = [one.spec for one in build(name).attack_specs() if one.plugin.deterministic_only]
    if refused:
        with pytest.raises(SpecError, match=f"{refused[0]} needs a deterministic model, but gaussian-noise.* is stoch"):
            look(name, network, few, **given)
        given["defenses"] = given["defenses"][1:]
    first, second = (look(name, network, few.first(5), **given) for _ in range(2))
    assert content(first) == content(second)


@pytest.mark.parametrize("name", NAMES)
def test_memory_that_runs_out_changes_nothing(
    name: str,
    network: nn.Module,
    few: ImageData,
    looked: Callable[[str], AnalysisRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch of which only a part fits is repeated in halves, and nothing is counted twice."""
    expected, _ = content(looked(name))
    forward: Callable[..., Any] = type(network).forward

    def limited(self: nn.Module, x: torch.Tensor) -> Any:
        if len(x) > 8:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, x)

    monkeypatch.setattr(type(network), "forward", limited)
    monkeypatch.setattr("freqrobust.harness.opening.auto_batch_size", lambda *_: 16)
    found, _ = content(look(name, network, few, picture=None))
    for a, b in zip(found, expected, strict=True):
        for key in ("sentence", "forwards", "backwards"):
            del a[key], b[key]
        assert close(a, b)


def test_parameters_of_lists_of_specs_survive_their_text() -> None:
    (one,) = analyses.parse("spectrum:attacks=[[pgd:eps=0.1,steps=2],fgsm:eps=0.1]")
    assert one.params["attacks"] == ["pgd:eps=0.1,steps=2", "fgsm:eps=0.1"]
    (same,) = analyses.parse("spectrum", {"attacks": ["pgd:eps=0.1,steps=2", "fgsm:eps=0.1"]})
    assert same.params == one.params
    (again,) = analyses.parse(same.spec)
    assert again.params == one.params
    assert len(parse_attacks(one.params["attacks"])) == 2
    for given in (["0,2.5,4"], ["0", "2.5", "4"], ["[0,2.5,4]"]):
        (listed,) = analyses.parse("misalignment", {"radii": given})
        assert listed.params["radii"] == [0, 2.5, 4]


@pytest.mark.parametrize("name", NAMES)
def test_without_images_it_runs_on_weights_alone_or_says_what_is_missing(name: str, network: nn.Module) -> None:
    before = state_hash(network)
    if analyses.get(name).needs_data:
        with pytest.raises(DataError, match=f"{name} needs images: give data"):
            look(name, network, None)
        return
    record = look(name, network, None)
    assert state_hash(network) == before
    assert record.data is None
    assert record.picture is not None
    assert [one.defense for one in record.results] == ["undefended", "smooth"]


def test_every_label_of_the_energy_picture_leads_to_its_points(network: nn.Module, few: ImageData) -> None:
    plugin = build("energy")
    results = look("energy", network, few, picture=None).results
    figure = plugin.draw(results)
    assert figure is not None
    (axes,) = figure.axes
    top = axes.get_ylim()[1]
    guides = [segment for lines in axes.collections for segment in lines.get_segments()]
    (shown,) = [one for one in results if one.label != one.reference]
    ends = sorted((100 * point.high_share, 100 * point.change) for point in shown.points)
    assert sorted((x, low) for (x, low), _ in guides) == [pytest.approx(end) for end in ends]
    assert [high for _, (_, high) in guides] == pytest.approx([top] * len(ends))
