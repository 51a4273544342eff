"""The tables of data and model sources: names, forms, entry points of other packages, messages."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import load_data, load_model
from freqrobust.core.errors import DataError, FreqRobustError, ModelError, PluginError, SpecError
from freqrobust.core.source_table import Source, SourceTable
from freqrobust.data.source_table import DataSource, data_sources
from freqrobust.models.source_table import ModelSource, model_sources

DATA = DataSource("pairs:N", "N random images", lambda request: (torch.rand(int(request.argument), 1, 4, 4), LABELS))
LABELS = torch.tensor([0, 1, 1, 0])
RAISING = DataSource("raising:N", "raises", lambda request: 1 // 0)
EXACT = DataSource("exact", "one tensor", lambda request: torch.zeros(3))
NETWORK = ModelSource("network:K", "a linear classifier", lambda request: nn.Linear(4, int(request.argument)))
OTHER = ModelSource("other:K", "not a model", lambda request: "text")
RENAMED = DataSource("digits", "another one", lambda request: None)
NOT_A_SOURCE = "text"


@pytest.fixture
def declare(monkeypatch):
    """Declare entry points in both tables, as an installed package would."""

    def declared(table: SourceTable, **entries: str) -> None:
        points = [EntryPoint(name, value, table.group) for name, value in entries.items()]
        monkeypatch.setattr("freqrobust.core.entry_points.entry_points", lambda group: points)
        monkeypatch.delitem(vars(table), "_entries", raising=False)

    yield declared
    for table in (data_sources, model_sources):
        vars(table).pop("_entries", None)


def test_a_declared_data_source_is_loaded_listed_and_suggested(declare) -> None:
    declare(data_sources, pairs=f"{__name__}:DATA")
    data = load_data("pairs:4", first=3)
    assert (data.spec, data.shape, data.labels.tolist()) == ("pairs:4", (1, 4, 4), [0, 1, 1])
    assert ("pairs:N", "N random images") in data_sources.rows()
    with pytest.raises(DataError, match=r"unknown data 'pears:4'; did you mean 'pairs:'\? \(.*pairs:N.*FILE\.npz"):
        load_data("pears:4")
    with pytest.raises(DataError, match="data 'pairs:': expected pairs:N"):
        load_data("pairs:")


def test_what_a_declared_data_source_returns_is_checked(declare) -> None:
    declare(data_sources, pairs=f"{__name__}:DATA", raising=f"{__name__}:RAISING", exact=f"{__name__}:EXACT")
    with pytest.raises(DataError, match="pairs:3: 3 images, but 4 labels"):
        load_data("pairs:3")
    with pytest.raises(DataError, match="raising:1 failed: ZeroDivisionError"):
        load_data("raising:1")
    with pytest.raises(DataError, match="got Tensor"):
        load_data("exact")
    with pytest.raises(FreqRobustError, match="cannot import 'exact'"):
        load_data("exact:attribute")  # the name alone is declared


def test_a_declared_model_source(declare) -> None:
    declare(model_sources, network=f"{__name__}:NETWORK", other=f"{__name__}:OTHER")
    model = load_model("network:3")
    assert model(torch.rand(2, 4)).shape == (2, 3)
    assert (model.arch, model.normalization.preset) == ("network:3", "none")
    assert ("network:K", "a linear classifier") in model_sources.rows()
    with pytest.raises(ModelError, match=r"should return a LoadedModel or an nn\.Module, but returned str"):
        load_model("other:3")
    with pytest.raises(SpecError, match="unknown model 'networks'; did you mean 'network:'"):
        load_model("networks")


@pytest.mark.parametrize(
    ("entries", "spec", "message"),
    [
        ({"broken": "no_such_package_x:SOURCE"}, "broken:1", "data source 'broken' .* cannot be loaded"),
        ({"text": f"{__name__}:NOT_A_SOURCE"}, "text:1", "is not a data source: .* begins with 'text:'"),
        ({"another": f"{__name__}:DATA"}, "another:1", "is not a data source: .* form is 'another'"),
        ({"digits": f"{__name__}:RENAMED"}, "digits", "the data source 'digits' is built in"),
    ],
)
def test_broken_entry_points_are_named(declare, entries, spec, message) -> None:
    declare(data_sources, **entries)
    with pytest.raises(PluginError, match=message):
        load_data(spec)


def test_a_broken_entry_point_does_not_affect_the_others(declare) -> None:
    declare(data_sources, broken="no_such_package_x:SOURCE")
    assert len(load_data("digits")) == 500
    (reason,) = [about for form, about in data_sources.rows() if form == "broken"]
    assert "No module named 'no_such_package_x'" in reason


def test_two_packages_with_one_name(monkeypatch) -> None:
    points = [EntryPoint("same", f"{module}:SOURCE", "freqrobust.data_sources") for module in "ab"]
    monkeypatch.setattr("freqrobust.core.entry_points.entry_points", lambda group: points)
    table = SourceTable("data", "freqrobust.data.sources", DataError)
    with pytest.raises(PluginError, match="two data sources are named 'same': a:SOURCE and b:SOURCE"):
        table.find("digits")


@pytest.mark.parametrize("table", [data_sources, model_sources], ids=["data", "model"])
def test_the_forms_of_a_table_exclude_each_other(table) -> None:
    """Every name belongs to one source, and a spec of its form is found by it."""
    named = [source for source in table._builtin if source.matches is None]
    assert len({source.name for source in named}) == len(named)
    for source in named:
        spec = source.start + ("x" if source.start.endswith(":") else "")
        assert table.find(spec) is source
        assert not any(other.matches(spec) for other in table._builtin if other.matches) or spec.endswith(":x")
    for form, about in table.rows():
        assert form
        assert about


@pytest.mark.parametrize("source", [*data_sources._builtin, *model_sources._builtin], ids=lambda source: source.form)
def test_unknown_specs_list_every_form(source: Source) -> None:
    load, kind = (load_data, "data") if source in data_sources._builtin else (load_model, "model")
    with pytest.raises(FreqRobustError, match=f"unknown {kind} 'no/such thing'") as raised:
        load("no/such thing")
    assert source.form in str(raised.value)


# ---------------------------------------------------------------- CIFAR-10.1


@pytest.fixture
def cifar10_1(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for version, n in (("v4", 21), ("v6", 20)):
        np.save(tmp_path / f"cifar10.1_{version}_data.npy", draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
        np.save(tmp_path / f"cifar10.1_{version}_labels.npy", (np.arange(n) % 10).astype(np.int32))
    return tmp_path


@pytest.mark.parametrize(("parameters", "version"), [("", "v6"), (",version=v4", "v4"), (",version=v6", "v6")])
def test_cifar10_1(cifar10_1, parameters, version) -> None:
    data = load_data(f"cifar10.1:{cifar10_1}{parameters}", first=15)
    images, labels = (np.load(cifar10_1 / f"cifar10.1_{version}_{part}.npy") for part in ("data", "labels"))
    assert (data.classes, data.images.dtype, data.ids.tolist()) == (10, torch.uint8, list(range(15)))
    assert np.array_equal(data.images, images[:15].transpose(0, 3, 1, 2))
    assert np.array_equal(data.labels, labels[:15])


def test_cifar10_1_that_is_not_there(cifar10_1) -> None:
    with pytest.raises(SpecError, match="version should be v6 or v4, but got 'v5'"):
        load_data(f"cifar10.1:{cifar10_1},version=v5")
    with pytest.raises(
        SpecError, match=r"unknown parameter 'verson'; did you mean 'version'\? \(parameters: version\)"
    ):
        load_data(f"cifar10.1:{cifar10_1},verson=v4")
    (cifar10_1 / "cifar10.1_v6_labels.npy").unlink()
    with pytest.raises(DataError, match=r"cifar10\.1_v6_labels\.npy cannot be read: No such file"):
        load_data(f"cifar10.1:{cifar10_1}")
