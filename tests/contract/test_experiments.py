"""What is required of every registered experiment. Tests in tests/experiments run each of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from freqrobust.core.training_config import ReproduceCommand
from freqrobust.experiments.experiment import Experiment, experiments

ROOT = Path(__file__).parents[2]
NAMES = [name for name in experiments.names() if experiments.origin(name).startswith("freqrobust ")]
INDEX = ROOT / "docs" / "reproductions.md"


@pytest.mark.parametrize("name", NAMES)
def test_it_names_its_source_in_one_line(name: str) -> None:
    cls = experiments.get(name)
    assert re.search(r"(19|20)\d\d", cls.source), "the paper and its year, with table or figure"
    sentence = (cls.__doc__ or "").strip().split("\n\n")[0]
    assert sentence.endswith((".", ")"))
    assert len(" ".join(sentence.split())) <= 160
    assert cls.run is not Experiment.run
    cls()  # every parameter has a default: the name alone runs it


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_page_with_its_command_and_picture(name: str) -> None:
    page = ROOT / "docs" / "reproductions" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    commands = re.findall(rf"^freqrobust reproduce {re.escape(name)}(?:[ :\\].*)?$", text, flags=re.MULTILINE)
    assert commands, "the command that makes what the page shows"
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert pictures
    assert all((page.parent / picture).is_file() for picture in pictures)
    assert set(re.findall(r"(?<=\s)--[a-z-]+", " ".join(commands))) <= ReproduceCommand.flags()


@pytest.mark.parametrize("name", NAMES)
def test_a_test_runs_it(name: str) -> None:
    tests = [file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "experiments").glob("test_*.py")]
    assert any(f'"{name}"' in text and "reproduce(" in text for text in tests)


def test_the_index_lists_every_experiment_and_no_other() -> None:
    text = INDEX.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`([\w-]+)`\]\(reproductions/([\w-]+)\.md\) \|", text, flags=re.MULTILINE)
    assert [name for name, _ in rows] == [page for _, page in rows]
    assert sorted(name for name, _ in rows) == NAMES


def test_the_index_names_the_sources() -> None:
    lines = {
        line.split("`")[1]: line for line in INDEX.read_text(encoding="utf-8").splitlines() if line.startswith("| [`")
    }
    assert [name for name in NAMES if experiments.get(name).source.split(",")[0] not in lines[name]] == []
