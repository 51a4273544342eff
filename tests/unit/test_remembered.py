"""What is kept so that a command starts faster: it must not change what is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from freqrobust.core import source_hash
from freqrobust.core.source_hash import code_hash, remembering
from freqrobust.data.dataset import ImageData
from freqrobust.models import normalization
from freqrobust.models.architectures import SmallCNN
from freqrobust.models.loading import load_model

MODULES = ["freqrobust.numerics.norms"]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many files were parsed; nothing is known of any at first, as in a new process."""
    count = [0]
    real = source_hash._parse

    def parse(content: bytes) -> source_hash._Parsed:
        count[0] += 1
        return real(content)

    monkeypatch.setattr(source_hash, "_parse", parse)

    def forget() -> int:
        found, count[0] = count[0], 0
        monkeypatch.setattr(source_hash, "_known", {})
        source_hash._parsed.cache_clear()
        return found

    forget()
    return forget


def test_files_are_parsed_once_for_all_processes(parsed: Callable[[], int], tmp_path: Path) -> None:
    expected = code_hash(MODULES)
    files = parsed()
    assert files > 3
    with remembering(tmp_path, only_read=True):
        assert code_hash(MODULES) == expected
    assert not list(tmp_path.iterdir())
    parsed()
    with remembering(tmp_path):
        assert code_hash(MODULES) == expected
    assert parsed() == files
    with remembering(tmp_path):
        assert code_hash(MODULES) == expected
    assert parsed() == 0
    (file,) = tmp_path.iterdir()
    for damaged in ("", "[]", '{"a": 1}', '{"a": [[], "no hex"]}', file.read_text(encoding="utf-8")[:-50]):
        file.write_text(damaged, encoding="utf-8")
        with remembering(tmp_path):
            assert code_hash(MODULES) == expected
        assert parsed() == files, damaged


def test_a_changed_file_is_parsed(parsed: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remembering(tmp_path):
        before = code_hash(MODULES)
    parsed()
    real = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: real(self) + (b"CHANGED = 1\n" if self.name == "norms.py" else b"")
    )
    with remembering(tmp_path):
        assert code_hash(MODULES) != before
    assert parsed() == 1


def test_a_trial_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = []
    real = normalization.trial

    def trial(*arguments):
        trials.append(1)
        return real(*arguments)

    monkeypatch.setattr(normalization, "trial", trial)
    torch.manual_seed(0)
    network = SmallCNN(num_classes=3, in_channels=1)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    data = ImageData(torch.rand(20, 1, 8, 8), torch.arange(20) % 3, 3)
    cache = tmp_path / "cache"

    def scores(**changed):
        given = {"arch": "small_cnn", "normalize": "none", "data": data, "cache_dir": cache, **changed}
        return load_model(tmp_path / "model.pt", **given).normalization.scores

    alone = scores(cache_dir=None)
    assert scores() == scores() == alone
    assert len(trials) == 2
    assert scores(normalize="half") == alone  # one of the presets: but it is compared with the others
    assert scores(data=data.first(10)) != {}
    assert len(trials) == 4
    for file in (cache / "trials").iterdir():
        file.write_text('{"none": "1"}', encoding="utf-8")
    assert scores() == alone
    assert len(trials) == 5
