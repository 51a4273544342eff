"""The commands ``runs`` and ``cache``: what they list, and that they delete nothing but what freqrobust wrote."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from freqrobust import load_data
from freqrobust.core.files import exclusive, in_use, write_atomically
from freqrobust.core.stored_files import parse_duration, parse_size
from freqrobust.harness.journal import Journal
from support.command import Result

Command = Callable[..., Result]
KEY = "0123456789abcdef" * 2


@pytest.fixture
def interrupted(workspace: Path) -> Path:
    """The directory of an evaluation that was interrupted after its first cell."""
    folder = workspace / "runs" / "demo-1"
    Journal(folder).store(KEY, {"n": 1})
    Journal(folder, "checks")
    return folder


@pytest.fixture
def foreign(workspace: Path) -> set[str]:
    """Things of others in the directory of the runs; their names."""
    folder = workspace / "runs"
    (folder / "site").mkdir(parents=True)
    (folder / "site" / "report.json").write_text('{"title": "mine"}')
    (folder / "half").mkdir()
    (folder / "half" / "report.json").write_text("{")
    (folder / "deep").mkdir()
    (folder / "deep" / "report.json").write_text("[" * 100_000)
    (folder / "cells").mkdir()
    (folder / "cells" / f"{KEY}.json").write_text("{}")
    (folder / "note.txt").write_text("x")
    (folder / "odd\nname").mkdir()
    return {path.name for path in folder.iterdir()}


def rows(command: Command, *arguments: str) -> dict[str, dict[str, object]]:
    result = command(*arguments, "--json", "-")
    assert result.code == 0, result.err
    return {Path(row["path"]).name: row for row in json.loads(result.out)}


def test_an_evaluation_is_recognised_and_removed(base: list[str], command: Command, workspace: Path) -> None:
    assert command(*base, "--attack", "pgd:eps=8/255,steps=2", "--quiet").code == 0
    (row,) = rows(command, "runs").values()
    assert (row["what"], row["status"]) == ("evaluation", "finished")
    assert (row["model"], row["data"]) == ("digits.pt", "digits60.npz (60)")
    assert str(row["worst_case"]).endswith("at Linf 8/255, undefended")
    shown = command("runs")
    assert "worst case" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert command("runs", "size").out.endswith(f"{shown.out.splitlines()[-1]}\n")
    assert command("runs", "prune", "--yes").code == 0
    assert list((workspace / "runs").iterdir()) == []


def test_shards_that_have_finished_are_not_interrupted(base: list[str], command: Command, workspace: Path) -> None:
    folder = workspace / "runs" / "shared"
    expected = [("interrupted", "1 of 2 finished"), ("not merged", "2 of 2 finished")]
    for number, (status, shards) in enumerate(expected, 1):
        given = ("--attack", "lfc:radius=2", "--shard", f"{number}/2", "--run-dir", str(folder))
        assert command(*base, *given).code == 0
        row = rows(command, "runs")["shared"]
        assert (row["status"], row["shards"], row["other_files"]) == (status, shards, [])
    with in_use(folder):  # a shard, or the merge
        assert rows(command, "runs")["shared"]["status"] == "running"
    record = folder / "shards" / "1-of-2.json"
    record.write_text(record.read_text().replace('"finished"', '"interrupted"'))  # it was started again
    assert rows(command, "runs")["shared"]["status"] == "interrupted"
    assert command("merge", str(folder), "--quiet").code == 0
    row = rows(command, "runs")["shared"]
    assert (row["status"], "shards" in row) == ("finished", False)


@pytest.mark.slow
def test_all_kinds_of_runs_are_recognised_and_removed(base: list[str], command: Command, workspace: Path) -> None:
    assert command("train", "--epochs", "1", "--limit", "60", "--augment", "none", "--quiet").code == 0
    assert command("analyze", "kernels", "--model", base[2], "--quiet").code == 0
    assert command("reproduce", "linear-regions", "--quiet").code == 0
    found = rows(command, "runs")
    by_kind = {str(row["what"]): row for row in found.values()}
    assert sorted(by_kind) == ["analysis kernels", "experiment linear-regions", "training"]
    assert by_kind["training"]["model"] == "small_cnn"
    assert all((row["other_files"], row["status"]) == ([], "finished") for row in found.values())
    shown = command("runs")
    assert all(name in shown.out for name in found)
    assert command("runs", "prune", "--yes").code == 0
    assert list((workspace / "runs").iterdir()) == []


def test_only_what_freqrobust_wrote_is_deleted(
    interrupted: Path, foreign: set[str], command: Command, workspace: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    Journal(outside).store(KEY, {"n": 1})
    (workspace / "runs" / "link").symlink_to(outside)
    (interrupted / "cells" / f"{'f' * 32}.json").symlink_to(outside / "cells" / f"{KEY}.json")
    (interrupted / "checks" / "mine").symlink_to(outside)
    (interrupted / "mine.txt").write_text("mine")
    assert rows(command, "runs")["demo-1"]["status"] == "interrupted"
    result = command("runs", "prune", "--yes")
    assert result.code == 3
    assert "files of others were kept: " in result.err
    assert "deleted: 0 of 1 run" in result.err
    assert {path.name for path in (workspace / "runs").iterdir()} == {*foreign, "link", "demo-1"}
    assert sorted(path.name for path in interrupted.rglob("*")) == [
        "cells",
        "checks",
        f"{'f' * 32}.json",
        "mine",
        "mine.txt",
    ]
    assert (outside / "cells" / f"{KEY}.json").exists()


def test_nothing_is_deleted_unless_it_is_wanted(
    interrupted: Path, command: Command, rejected: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = command("runs", "prune", "--dry-run")
    assert dry.code == 0
    assert "dry run: nothing was deleted (1 run" in dry.err
    assert command("runs", "prune").code == 2
    assert "give --yes" in command("runs", "prune").error
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, left in (("\n", True), ("no\n", True), ("y\n", False)):
        monkeypatch.setattr("sys.stdin.readline", lambda answer=answer: answer, raising=False)
        assert command("runs", "prune").code == 0
        assert interrupted.exists() is left


def test_filters(interrupted: Path, command: Command) -> None:
    old = time.time() - 3 * 86400
    for file in interrupted.rglob("*"):
        os.utime(file, (old, old))
    Journal(interrupted.parent / "demo-2").store(KEY, {"text": "x" * 5000})
    assert list(rows(command, "runs", "prune", "--dry-run", "--older-than", "2d")) == ["demo-1"]
    assert list(rows(command, "runs", "prune", "--dry-run", "--larger-than", "4k")) == ["demo-2"]
    assert list(rows(command, "runs", "prune", "--dry-run", "--larger-than", "4k", "--older-than", "2d")) == []


def test_runs_in_use_are_left(interrupted: Path, command: Command) -> None:
    for lock in (in_use, exclusive):
        with lock(interrupted):
            assert rows(command, "runs")["demo-1"]["status"] == "running"
            result = command("runs", "prune", "--yes")
            assert result.code == 3
            assert "a process is using it" in result.err
        assert (interrupted / "cells" / f"{KEY}.json").exists()
    assert command("runs", "prune", "--yes").code == 0
    assert not interrupted.exists()


def test_an_evaluation_is_in_use_while_it_is_measured(
    base: list[str], command: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    store = Journal.store

    def look(self: Journal, key: str, piece: object) -> None:
        with exclusive(workspace / "run") as free:
            seen.append(free)
        store(self, key, piece)

    monkeypatch.setattr(Journal, "store", look)
    assert command(*base, "--attack", "lfc:radius=3", "--run-dir", "run", "--quiet").code == 0
    assert set(seen) == {False}
    with exclusive(workspace / "run") as free:
        assert free


def test_damaged_reports_are_shown_as_such(interrupted: Path, command: Command) -> None:
    (interrupted / "report.json").write_text('{"schema_version": 2')
    assert rows(command, "runs")["demo-1"]["status"] == "damaged"


def test_folders_that_cannot_be_read_are_left_out(interrupted: Path, command: Command) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    interrupted.chmod(0)
    try:
        assert rows(command, "runs") == {}
    finally:
        interrupted.chmod(0o700)


def test_the_cache(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "cache"
    monkeypatch.setenv("FREQROBUST_CACHE", str(root))
    assert command("cache").out == f"{root}: no files, 0 B\n"
    ours = [root / "models" / f"demo-{KEY}.pt", root / "experiments" / f"{KEY}.pt"]
    others = [root / "models" / "mine.pt", root / "models" / f"demo-{KEY}.pt.bak", root / "data" / "cifar10" / "batch"]
    for file in [*ours, *others]:
        write_atomically(file, "x" * 10)
    (root / "models" / f"madry-{KEY}.pt").symlink_to(others[0])
    found = rows(command, "cache")
    assert {name: row["what"] for name, row in found.items()} == {
        ours[0].name: "trained model",
        ours[1].name: "experiment",
        "cifar10": "downloaded dataset",
    }
    assert command("cache", "size").out.endswith(f"{root}: 3 files, 30 B\n")
    assert command("cache", "prune", "--yes").code == 0
    assert [file.exists() for file in ours] == [False, False]
    assert all(file.exists() for file in others)
    assert (root / "models" / f"madry-{KEY}.pt").is_symlink()


@pytest.mark.parametrize("name", ["runs", "cache"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pruned"], ["unknown action 'pruned'", "did you mean 'prune'?"]),
        (["--older-than", "3d"], ["--older-than needs the action prune"]),
        (["prune", "--older-than", "3"], ["--older-than should be a duration such as 12h", "'3'"]),
        (["prune", "--older-than", "-3d"], ["--older-than"]),
        (["prune", "--larger-than", "big"], ["--larger-than should be a size", "'big'"]),
        (["prune", "--larger-than", "1e9999"], ["--larger-than should be a size"]),
        (["--json", "missing/../"], ["cannot write missing/..", "is a directory"]),
        (["list", "x"], ["unexpected extra argument"]),
    ],
)
def test_wrong_input(
    name: str, arguments: list[str], words: list[str], rejected: Callable[..., str], workspace: Path
) -> None:
    (workspace / "runs").mkdir()
    message = rejected(name, *arguments)
    assert all(word in message for word in words), message


def test_a_directory_of_runs_has_to_exist(rejected: Callable[..., str], workspace: Path) -> None:
    assert "there is no directory runs" in rejected("runs")
    (workspace / "file").write_text("")
    assert "there is no directory file" in rejected("runs", "--dir", "file")


def test_sizes_and_durations() -> None:
    assert [parse_size(text, "") for text in ("10", "1k", "1.5M", "2GiB", "3 kB")] == [
        10,
        1024,
        1.5 * 2**20,
        2**31,
        3072,
    ]
    assert [parse_duration(text, "") for text in ("10s", "2m", "1h", "1.5d", "2W")] == [10, 120, 3600, 129600, 1209600]


def test_decoded_images_are_listed_and_removed(command: Command, workspace: Path) -> None:
    for index in range(3):
        path = workspace / "images" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
    data = load_data("folder:images", data_cache=workspace / "decoded")
    data.batch(torch.arange(3), torch.device("cpu"))
    (workspace / "decoded" / "mine.txt").write_text("x")
    found = rows(command, "cache", "--dir", "decoded")
    assert sorted(str(row["what"]) for row in found.values()) == ["decoded images", "folder of images"]
    (images,) = (row for row in found.values() if row["what"] == "decoded images")
    assert (images["data"], images["images"]) == ("folder:images", "3x3x8x8")
    assert int(str(images["bytes"])) > 3 * 3 * 8 * 8
    result = command("cache", "prune", "--dir", "decoded", "--yes")
    assert (result.code, "a process is using it" in result.err) == (3, True)
    del data
    assert command("cache", "prune", "--dir", "decoded", "--yes").code == 0
    assert [path.name for path in (workspace / "decoded").iterdir() if path.name != "manifests"] == ["mine.txt"]
    assert "there is no directory none" in command("cache", "--dir", "none").err
