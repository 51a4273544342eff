"""Means over corruptions, mCE and relative mCE, against sums by hand."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from torch import nn

from freqrobust import Report, evaluate
from freqrobust.core.errors import DataError, SpecError
from freqrobust.data.loading import load_data
from freqrobust.models.architectures import SmallCNN
from freqrobust.plugins.corruption_names import COMMON, EXTRA
from freqrobust.plugins.suites import resolve
from freqrobust.results.corruption_summary import ALEXNET, alexnet, applies_alexnet, read_reference

SPECS = ["corruption:name=[fog,contrast,speckle_noise],severity=[1,3,5]"]


@pytest.fixture(scope="module")
def data():
    return load_data("digits", first=80)


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return SmallCNN().eval()


@pytest.fixture(scope="module")
def reference(data) -> Report:
    return evaluate(model(1), data, attacks=SPECS, device="cpu")


@pytest.fixture(scope="module")
def report(data, reference) -> Report:
    return evaluate(model(0), data, attacks=SPECS, defenses=["lowpass:radius=2"], device="cpu", mce_reference=reference)


def accuracy(report: Report, name: str, defense: str = "undefended") -> list[float]:
    return [
        cell.accuracy
        for severity in (1, 3, 5)
        for cell in report.cells
        if cell.attack_params.get("name") == name
        and cell.attack_params.get("severity") == severity
        and cell.defense_spec == defense
    ]


def test_means(report) -> None:
    assert [(s.defense_spec, s.part) for s in report.corruptions] == [
        ("undefended", "common"),
        ("undefended", "extra"),
        ("lowpass:radius=2", "common"),
        ("lowpass:radius=2", "extra"),
    ]
    for summary in report.corruptions:
        assert (summary.source, summary.constants, summary.complete, summary.n) == ("generated", "cifar", False, 80)
        rows = {row.name: row for row in summary.rows}
        for name, row in rows.items():
            found = accuracy(report, name, summary.defense_spec)
            assert list(row.accuracies.values()) == found
            assert row.accuracy == pytest.approx(fmean(found))
        assert summary.mean_accuracy == pytest.approx(fmean(row.accuracy for row in rows.values()))
    assert [row.name for row in report.corruptions[0].rows] == ["fog", "contrast"]


def test_mce_is_the_mean_ratio_of_summed_errors(report, reference) -> None:
    clean = {cell.defense_spec: cell.accuracy for cell in report.cells if cell.attack == "clean"}
    theirs_clean = reference.cells[0].accuracy
    for summary in report.corruptions:
        errors, relative = [], []
        for row in summary.rows:
            ours, theirs = accuracy(report, row.name, summary.defense_spec), accuracy(reference, row.name)
            errors.append(sum(1 - a for a in ours) / sum(1 - a for a in theirs))
            assert row.ce == pytest.approx(errors[-1])
            above = sum(theirs_clean - a for a in theirs)
            if above > 0:
                relative.append(sum(clean[summary.defense_spec] - a for a in ours) / above)
                assert row.relative_ce == pytest.approx(relative[-1])
            else:
                assert row.relative_ce is None
        assert summary.mce == pytest.approx(fmean(errors))
        if len(relative) == len(summary.rows):
            assert summary.relative_mce == pytest.approx(fmean(relative))
        else:
            assert summary.relative_mce is None


def test_against_itself_it_is_one(data, reference, tmp_path) -> None:
    reference.to_json(tmp_path / "reference.json")
    again = evaluate(model(1), data, attacks=SPECS, device="cpu", mce_reference=tmp_path / "reference.json")
    for summary in again.corruptions:
        assert summary.mce == pytest.approx(1)
        assert summary.reference == str(tmp_path / "reference.json")
    assert Report.from_json(_written(again, tmp_path)) == again


def _written(report: Report, folder) -> str:
    report.to_json(folder / "again.json")
    return str(folder / "again.json")


def test_a_reference_for_something_else_is_refused(data, reference) -> None:
    with pytest.raises(DataError, match="lacks snow at severity 2 of the undefended model"):
        evaluate(model(0), data, attacks=["corruption:name=snow,severity=2"], mce_reference=reference, device="cpu")
    with pytest.raises(DataError, match="lacks fog at severity 1"):
        evaluate(
            model(0),
            data,
            attacks=["corruption:name=fog,severity=1,constants=imagenet"],
            mce_reference=reference,
            device="cpu",
        )
    with pytest.raises(
        DataError, match=r"measured on other images \(digits, n = 80\) than this run \(digits, n = 70\)"
    ):
        evaluate(model(0), data.first(70), attacks=SPECS, mce_reference=reference, device="cpu")
    with pytest.raises(SpecError, match="needs corruptions to compare"):
        evaluate(model(0), data, attacks=["lfc:radius=2"], mce_reference=reference, device="cpu")
    with pytest.raises(SpecError, match="for the complete ImageNet-C files only"):
        evaluate(model(0), data, attacks=SPECS, mce_reference="alexnet", device="cpu")


class Whole:
    """Stands for the ImageNet validation set."""

    n, classes, shape, sha256, spec = 50_000, 1000, [3, 224, 224], "", "imagenet"


def test_alexnet_is_for_the_complete_files_only() -> None:
    files = [{"name": name, "severity": s, "source": "files"} for name in COMMON for s in range(1, 6)]
    assert applies_alexnet(Whole(), files)
    assert read_reference("alexnet", Whole(), files) == alexnet()
    assert not applies_alexnet(Whole(), files[:-1])
    assert not applies_alexnet(Whole(), [{**one, "source": "generated"} for one in files])
    smaller = Whole()
    smaller.shape = [3, 64, 64]
    assert not applies_alexnet(smaller, files)


def test_alexnets_errors_are_the_published_ones() -> None:
    """In percent, rounded, as the paper's table prints them."""
    printed = [89, 89, 92, 82, 83, 79, 80, 87, 83, 82, 56, 85, 65, 72, 61]
    assert [round(100 * ALEXNET[name]) for name in COMMON] == printed


def test_suites() -> None:
    common, extra = resolve("corruptions", (3, 32, 32)), resolve("corruptions-extra", (3, 32, 32))
    assert (len(common), len(extra)) == (75, 20)
    assert common[0] == "corruption:name=gaussian_noise,severity=1"
    assert len(set(COMMON + EXTRA)) == 19
    assert resolve("corruptions:files=D", (3, 32, 32))[74] == "corruption:name=jpeg_compression,severity=5,files=D"
    with pytest.raises(SpecError, match="unknown suite"):
        resolve("frequency:clip=true", (3, 32, 32))


def test_a_corruption_outside_of_the_benchmark_has_a_summary_of_its_own(data) -> None:
    spec = "corruption:name=checkerboard_cutout,severity=[1,2,3,4,5]"
    report = evaluate(model(0), data, attacks=[spec, "corruption:name=fog,severity=1"], device="cpu")
    assert [(s.part, s.complete) for s in report.corruptions] == [("other", True), ("common", False)]
    (row,) = report.corruptions[0].rows
    assert (row.name, list(row.accuracies)) == ("checkerboard_cutout", ["1", "2", "3", "4", "5"])
    assert report.corruptions[0].mean_accuracy == pytest.approx(fmean(row.accuracies.values()))
    assert report.corruptions[0].mce is None
