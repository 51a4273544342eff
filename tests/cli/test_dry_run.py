"""``--dry-run``: what it says of a run, and what the run was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from freqrobust.data.pixel_cache import MemoryCache
from freqrobust.harness import cost
from support.sharing import in_blocks_of

ARGUMENTS = ["--attack", "pgd:eps=[0.1,0.2],steps=5", "--attack", "lfc:radius=3", "--defense", "smooth:rho=0.1"]


@pytest.fixture
def planned(base: list[str], command: Any, tmp_path: Path) -> Any:
    """What a dry run with more arguments says, as JSON, and on the screen."""

    def call(*more: str) -> tuple[dict[str, Any], str]:
        target = tmp_path / "plan.json"
        shown = command(
            *base, *ARGUMENTS, "--run-dir", str(tmp_path / "run"), "--dry-run", "--json", str(target), *more
        )
        assert shown.code == 0, shown.err
        return json.loads(target.read_text(encoding="utf-8")), shown.err

    return call


def rows(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["kind"]: row for row in plan["rows"]}


def test_it_says_what_the_run_will_be(planned: Any, base: list[str], command: Any, tmp_path: Path) -> None:
    plan, shown = planned()
    assert not (tmp_path / "run").exists()
    assert "dry run: nothing was measured, and only " in shown
    table = [
        line for line in shown.splitlines() if line.startswith(("  ", "clean ", "pgd ", "lfc ", "checks ", "all "))
    ]
    assert len(table) == 6
    assert {len(line) for line in table} == {80}
    done = command(*base, *ARGUMENTS, "--run-dir", str(tmp_path / "run"))
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    kinds: dict[str, list[dict[str, Any]]] = {}
    for cell in report["cells"]:
        kinds.setdefault(cell["attack"], []).append(cell)
    for kind, cells in kinds.items():
        row = rows(plan)[kind]
        assert (row["cells"], row["stored"]) == (len(cells), 0)
        passes = sum(cell["forwards"] + 2 * cell["backwards"] for cell in cells)
        assert 0.5 * passes <= row["most"]
        assert row["passes"] / 3 <= passes <= 3 * row["passes"]
    assert plan["total"]["cells"] == len(report["cells"])
    assert 0 < plan["total"]["seconds"] <= plan["total"]["most_seconds"]
    size = sum(file.stat().st_size for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert 0.6 < plan["disk"] / size < 1.6
    assert plan["memory"] > 2**26

    finished, shown = planned()
    assert finished["total"]["stored"] == finished["total"]["cells"] == len(report["cells"])
    assert sum(row["passes"] for row in finished["rows"] if row["cells"]) == 0
    assert f"where {len(report['cells'])} of {len(report['cells'])} cells are finished" in " ".join(shown.split())


def test_cells_of_another_seed_are_not_stored(planned: Any, base: list[str], command: Any, tmp_path: Path) -> None:
    command(*base, "--attack", "lfc:radius=3", "--run-dir", str(tmp_path / "run"))
    assert rows(planned()[0])["lfc"]["stored"] == 1  # of the undefended model
    assert planned("--seed", "1")[0]["total"]["stored"] == 0


def test_oblivious_cells_certificates_and_several_models(planned: Any, base: list[str]) -> None:
    alone, _ = planned("--no-oblivious")
    assert rows(alone)["pgd"]["cells"] == 4
    certified, _ = planned("--certify", "crown:eps=0.01", "--defense", "smooth:rho=0.2")
    assert {kind: row["cells"] for kind, row in rows(certified).items()} == {
        "clean": 3,
        "pgd": 10,
        "lfc": 3,
        "crown": 3,
        "checks quick": 0,
    }


def test_no_step_is_timed_where_nothing_is_differentiated(base: list[str], command: Any, tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    shown = command(*base, "--attack", "lfc:radius=3", "--run-dir", str(tmp_path / "run"), "--dry-run", "--json", str(target))  # fmt: skip
    assert json.loads(target.read_text(encoding="utf-8"))["step"] == 0
    assert "for a forward pass of one image\n" in shown.err
    assert "step of an attack" not in shown.err


def test_defenses_that_train_are_not_timed(planned: Any, tmp_path: Path) -> None:
    plan, shown = planned("--defense", "madry:epochs=1", "--train-data", "digits", "--first", "20")
    assert plan["untimed"] == ["madry:epochs=1"]
    assert "not timed: madry:epochs=1; the training is not included" in " ".join(shown.split())


def test_batches_are_not_larger_than_blocks(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_blocks_of(monkeypatch, 10)
    plan, shown = planned("--batch-size", "16")
    assert (plan["batch_size"], plan["timed_images"]) == (10, 10)
    assert "with batches of 10" in " ".join(shown.split())


@pytest.fixture
def on_images(command: Any, tmp_path: Path) -> Any:
    """A command on a folder of six images, with more arguments."""
    for index in range(6):
        path = tmp_path / "images" / str(index % 2) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * index, 0, 0)).save(path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))\n"
    )

    def call(*arguments: str) -> Any:
        shown = command(
            *arguments, "--model", f"{tmp_path / 'net.py'}:build", "--normalize", "none", "--data", f"folder:{tmp_path / 'images'}"
        )  # fmt: skip
        assert shown.code == 0, shown.err
        return shown

    return call


def test_images_that_will_be_kept_in_memory_are_counted(
    on_images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryCache, "missing", 10**12)
    memory = {}
    for cache in ("memory", "off"):
        on_images(
            "eval", "--attack", "lfc:radius=3", "--data-cache", cache, "--dry-run", "--json", str(tmp_path / "plan.json")
        )  # fmt: skip
        memory[cache] = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["memory"]
    assert memory["off"] < 10**12 <= memory["memory"]


def test_the_time_of_decoding_is_counted(on_images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freqrobust.harness.speed.seconds_to_decode", lambda images: 1000.0)
    (tmp_path / "decoded").mkdir()

    def decodings(cache: object, size: int = 2) -> tuple[int, dict[str, Any]]:
        target, run = tmp_path / "plan.json", ("--run-dir", str(tmp_path / "new"))
        arguments = ("--attack", "lfc:radius=3", "--data-cache", str(cache), "--batch-size", str(size), *run)
        on_images("eval", *arguments, "--dry-run", "--json", str(target))
        plan = json.loads(target.read_text(encoding="utf-8"))
        return round(rows(plan).get("decoding", {"seconds": 0})["seconds"] / 1000), plan

    assert decodings("off")[0] == 12  # twice: a clean pass, and a shift
    assert decodings("off", 3)[0] == decodings("memory")[0] == decodings(tmp_path / "decoded")[0] == 6
    on_images("eval", "--attack", "hfc:radius=3", "--data-cache", str(tmp_path / "decoded"))
    assert decodings(tmp_path / "decoded")[0] == 0
    plan = decodings("off")[1]
    assert plan["decode"] == 1000
    assert rows(plan)["decoding"]["most_seconds"] == rows(plan)["decoding"]["seconds"]  # nothing stops early
    assert plan["total"]["cells"] == 2
    assert plan["total"]["seconds"] > 11000


def test_images_are_decoded_for_all_samples_if_no_attack_stops_early(
    on_images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second eps of a sweep is measured for the samples that are robust at the first one."""
    monkeypatch.setattr("freqrobust.harness.speed.seconds_to_decode", lambda images: 1000.0)
    monkeypatch.setattr(cost, "_attacked", lambda speed, chain, lower: 1.0 if lower is None else 0.5)
    target = tmp_path / "plan.json"
    options = ("--data-cache", "off", "--batch-size", "2", "--dry-run", "--json", str(target))
    on_images("eval", "--attack", "fgsm:eps=[0.1,0.2]", *options)
    row = rows(json.loads(target.read_text(encoding="utf-8")))["decoding"]
    assert [round(row[kind] / 1000) for kind in ("seconds", "most_seconds")] == [6 + 6 + 3, 6 + 6 + 6]


def test_the_time_of_decoding_is_counted_for_each_epoch(
    on_images: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freqrobust.harness.speed.seconds_to_decode", lambda images: 1000.0)
    on_images("eval", "--attack", "lfc:radius=3", "--dry-run")  # makes the folder
    options = ["--epochs", "2", "--batch-size", "1", "--hold-out", "0", "--dry-run", "--out", str(tmp_path / "out")]
    shifted = ("--train-shift", "lfc:radius=3")
    for cache, hours, more in (("off", "3:20:", ()), ("memory", "1:40:", ()), ("off", "3:20:", shifted)):
        shown = command("train", "--data", f"folder:{tmp_path / 'images'}", "--data-cache", cache, *more, *options)
        assert f"time: about {hours}" in shown.err, shown.err


def test_a_dry_run_says_that_decoded_images_do_not_fit_on_the_disk(
    on_images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9, 100)  # type: ignore[attr-defined]
    monkeypatch.setattr("freqrobust.data.pixel_cache.shutil.disk_usage", lambda path: usage)
    with pytest.raises(
        AssertionError, match=r"the decoded images take 1\.2 kB, but 100 bytes are free; give another --dat"
    ):
        on_images("eval", "--attack", "lfc:radius=3", "--data-cache", str(tmp_path / "decoded"), "--dry-run")
    assert not (tmp_path / "decoded").exists()


@pytest.mark.slow
@pytest.mark.parametrize("start", [("eval", "--attack", "lfc:radius=3"), ("analyze", "spectrum")])
def test_nothing_is_written(
    start: tuple[str, ...], on_images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freqrobust.data.manifest._RECENT_NS", -(10**18))  # files are remembered at once
    for folder in ("cache", "decoded"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("FREQROBUST_CACHE", str(tmp_path / "cache"))
    before = sorted(tmp_path.rglob("*"))
    for cache in (str(tmp_path / "decoded"), "memory"):
        shown = on_images(*start, "--data-cache", cache, "--skip-unreadable", "--dry-run")
        assert "dry run: nothing was" in shown.err
        assert sorted(tmp_path.rglob("*")) == before
    assert f"decoded once and kept in {tmp_path / 'decoded'}" in on_images(
        *start, "--data-cache", str(tmp_path / "decoded"), "--dry-run"
    ).err.replace("\n", " ")
    on_images(*start, "--data-cache", str(tmp_path / "decoded"))
    assert len(list((tmp_path / "decoded").rglob("*"))) > 3  # what a dry run did not write
