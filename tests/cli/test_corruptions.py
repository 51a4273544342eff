"""Corruptions and frequency shifts from the command line: bad input, the folded table, mCE, published files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from freqrobust.data.loading import load_data
from freqrobust.results.report import Report

Command = Callable[..., Any]
Rejected = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--attack corruption", "corruption: parameter 'name' is required, for example corruption:name=fog"),
        ("--attack corruption:name=fog", "parameter 'severity' is required, for example corruption:severity=3"),
        ("--attack corruption:name=fogg,severity=3", "corruption: unknown corruption 'fogg'; did you mean 'fog'?"),
        ("--attack corruption:name=fog,severity=0", "'severity' should be greater than or equal to 1, but got '0'"),
        ("--attack corruption:name=fog,severity=6", "'severity' should be less than or equal to 5, but got '6'"),
        ("--attack corruption:name=fog,severity=1.5", "corruption: parameter 'severity' should be a valid integer"),
        ("--attack corruption:name=fog,severity=3,constants=tiny", "'auto', 'cifar' or 'imagenet', but got 'tiny'"),
        ("--attack corruption:name=saturate,severity=1", "saturate takes images of 3 channels, but these have 1: only"),
        (
            "--attack corruption:name=glass_blur,severity=5,constants=imagenet",
            "glass_blur at severity 5 takes sides of at least 9 pixels, but the images are 8 x 8: it moves pixels",
        ),
        ("--suite corruptions-extra", "saturate takes images of 3 channels"),
        ("--suite corruptions:files=nowhere", "corruption: nowhere is not a folder"),
        (
            "--suite corruptions:files=empty",
            "empty contains neither gaussian_noise.npy nor gaussian_noise/1/CLASS/IMAGE",
        ),
        ("--suite corruptions:files=short", "short: gaussian_noise.npy has 7 images, but labels.npy has 60 labels"),
        ("--suite corruptions:file=short", "corruption: unknown parameter 'file'"),
        ("--attack corruption:name=frost,severity=1,frost=empty", "frost=empty contains no pictures"),
        ("--attack corruption:name=frost,severity=1,frost=small", "after scaling by 0.2, but the images have 8 x 8"),
        ("--suite corruption", "unknown suite 'corruption'; did you mean 'corruptions'?"),
        ("--suite corruptions --mce-reference alexnet", "are for the complete ImageNet-C files only"),
        ("--attack corruption:name=fog,severity=1 --mce-reference no.json", "no.json: No such file"),
        ("--attack lfc:radius=2 --mce-reference no.json", "needs corruptions to compare: give --suite corruptions"),
        (
            "--attack fourier-noise:u=5,v=0",
            "frequency (5, 0) does not exist at 8 x 8 pixels: u goes up to 4, v up to 4",
        ),
        ("--attack filtered-noise:l2=1,low=9", "images of 8 x 8 pixels have no frequency from 9 to below inf cycles"),
        ("--attack filtered-noise:l2=1,low=3,high=2", "'high' (2) should be greater than 'low' (3)"),
        ("--attack critical-band:center=12", "critical-band: images of 8 x 8 pixels have no frequency from 8.485"),
        ("--attack hybrid:radius=2 --first 1", "hybrid pairs images, so that it needs at least two"),
        ("--attack phase-swap:keep=both", "'keep' should be 'phase' or 'amplitude', but got 'both'"),
    ],
)
def test_bad_request(arguments: str, expected: str, base: list[str], rejected: Rejected) -> None:
    for name in ("empty", "short", "small"):
        Path(name).mkdir()
    np.save("short/labels.npy", np.zeros(60, dtype=np.int64))
    np.save("short/gaussian_noise.npy", np.zeros((7, 8, 8, 3), dtype=np.uint8))
    Image.new("RGB", (35, 50)).save("small/frost.png")
    assert expected in rejected(*base, *arguments.split())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("cifar10c:nowhere,name=fog,severity=3", "nowhere is not a folder; expected cifar10c:DIR,name=fog,severity=3"),
        ("cifar10c:.,name=fog,severity=3", "fog.npy cannot be read: No such file or directory"),
        ("cifar10c:.,name=fog,severity=0", "name a corruption and a severity of 1 to 5"),
        ("imagenetc:.,name=fog,severity=3", "contains neither fog.npy nor fog/3/CLASS/IMAGE"),
        ("cifar10c", "data 'cifar10c': expected cifar10c:DIR,name=NAME,severity=S"),
    ],
)
def test_bad_data(data: str, expected: str, trained: Path, rejected: Rejected) -> None:
    assert expected in rejected("eval", "--model", trained, "--data", data, "--attack", "fgsm")


def test_reference_that_is_no_report(base: list[str], rejected: Rejected, write: Callable[[str, str], str]) -> None:
    write("other.json", "{}")
    message = rejected(*base, "--attack", "corruption:name=fog,severity=1", "--mce-reference", "other.json")
    assert "other.json: expected a report of schema version 2" in message


@pytest.fixture(scope="module")
def suite_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: the cells of the suite are measured once, and shown at several widths."""
    return tmp_path_factory.mktemp("suite")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_suite_is_one_table_by_severity(
    columns: int, base: list[str], suite_run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = command(*base, "--suite", "corruptions", "--full", "--json", "out.json", "--run-dir", suite_run)
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line for line in lines if len(line) > columns] == []
    assert "Every cell" not in result.out
    assert len(lines) < 100
    report = Report.from_json("out.json")
    (summary,) = report.corruptions
    assert (summary.complete, len(report.cells)) == (True, 76)
    _, _, table = result.out.partition("Corruptions (generated")
    for row in summary.rows:
        rows = [line for line in table.splitlines() if line.startswith(row.name)]
        shown = [float(number) for line in rows for number in re.findall(r"\d+\.\d", line.partition("|")[2])]
        expected = [round(100 * value, 1) for value in (*row.accuracies.values(), row.accuracy)]
        assert shown == expected
    headline, _, _ = result.out.partition("Corruptions (generated")
    assert headline.count(f"{100 * summary.mean_accuracy:.1f}") == 1


def test_other_attacks_stay_in_every_cell(base: list[str], command: Command) -> None:
    result = command(
        *base,
        "--attack",
        "corruption:name=[fog,contrast],severity=[1,2]",
        "--attack",
        "lfc:radius=2",
        "--defense",
        "lowpass:radius=3",
        "--full",
    )
    assert result.code == 0
    every, _, corruptions = result.out.partition("Every cell")[2].partition("Corruptions (generated, cifar constants)")
    assert "lfc:radius=2" in every
    assert "corruption:" not in every
    assert "defense undefended" in corruptions
    assert "defense lowpass:radius=3" in corruptions


def test_a_single_corruption_is_a_cell_like_others(base: list[str], command: Command) -> None:
    result = command(*base, "--attack", "corruption:name=fog,severity=2", "--full")
    assert "corruption:name=fog,severity=2" in "".join(result.out.partition("Every cell")[2].split())
    assert "Corruptions (" not in result.out


def test_mce_against_a_report(base: list[str], command: Command) -> None:
    attack = ["--attack", "corruption:name=[fog,contrast],severity=[3,5]"]
    command(*base, *attack, "--json", "reference.json")
    result = command(
        *base, *attack, "--defense", "lowpass:radius=2", "--mce-reference", "reference.json", "--json", "out.json"
    )
    assert result.code == 0
    none, defended = Report.from_json("out.json").corruptions
    assert none.mce == pytest.approx(1)
    line = next(line for line in result.out.splitlines() if line.startswith("mCE"))
    assert "100.0" in line
    assert f"{100 * defended.mce:.1f}" in line


def test_files_beside_generated_ones(base: list[str], digits: Path, command: Command, tmp_path: Path) -> None:
    """Published files of the same images, in the shape of the data: grayscale here."""
    data = load_data(str(digits))
    folder = tmp_path / "files"
    folder.mkdir()
    np.save(folder / "labels.npy", data.labels.numpy())
    np.save(folder / "fog.npy", np.concatenate([data.images.permute(0, 2, 3, 1).numpy()] * 5))
    attack = "corruption:name=fog,severity=[1,2]"
    result = command(*base, "--attack", f"{attack},files={folder}", "--attack", attack, "--full", "--json", "out.json")
    report = Report.from_json("out.json")
    clean, first, second, *generated = report.cells
    assert clean.outcomes == first.outcomes == second.outcomes
    assert {cell.attack_params["source"] for cell in generated} == {"generated"}
    assert [summary.source for summary in report.corruptions] == ["files", "generated"]
    assert "Corruptions (published files), defense undefended" in result.out
    assert "Corruptions (generated, cifar constants), defense undefended" in result.out


def test_frost_from_a_folder(base: list[str], report: Callable[..., dict[str, Any]]) -> None:
    Path("frost").mkdir()
    Image.new("RGB", (60, 50), (255, 255, 255)).save("frost/white.png")
    found = report(*base, "--attack", "corruption:name=frost,severity=5,frost=frost")
    assert found["cells"][1]["status"] == "ok"
    assert found["cells"][1]["attack_params"]["frost"] == "frost"


def test_the_suites_are_listed(command: Command) -> None:
    out = command("list", "suites").out
    assert "corruptions-extra" in out
    assert "files=DIR" in out
