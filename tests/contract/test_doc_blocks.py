"""Every block of Python and of shell commands in the README and in docs/ is run, or parsed, or marked with a reason.

A block is run as it stands, in an empty folder, after the blocks before it on its page. A comment before it changes that:
``<!-- parsed: REASON -->``, ``<!-- not run: REASON -->``, and ``<!-- file: NAME -->`` for code that is saved as a file.
Commands that need files which are not there are parsed: their options exist, and their specs name plugins and parameters
that exist.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from freqrobust.cli.main import build, main
from freqrobust.core.errors import SpecError
from freqrobust.plugins.selection import parse_attacks, parse_certificates, parse_criterion, parse_defenses
from support.pages import PAGES, ROOT, RUN_BY, Block, blocks, treatment

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [(block, words) for block in BLOCKS if block.mark != "not run" for words in block.commands]
#: Flags with specs of plugins.
SPECS: dict[str, Any] = {
    "--attack": lambda spec: parse_attacks([spec]),
    "--certify": lambda spec: parse_certificates([spec]),
    "--criterion": parse_criterion,
    "--defense": lambda spec: parse_defenses([spec]),
}


def parsed(words: list[str]) -> None:
    """Parse as the program does, without executing.

    Raises:
        click.UsageError: an option or a value is wrong.
        FreqRobustError: a plugin that the command names does not exist.
    """
    app, arguments = build(list(words))
    group = typer.main.get_command(app)
    if arguments == ["--version"]:
        return
    with group.make_context("freqrobust", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, arguments)  # type: ignore[attr-defined]
        with command.make_context(name, rest, parent=context):
            pass


@pytest.mark.parametrize(
    ("block", "words"), COMMANDS, ids=[f"{block.page}:{block.line}:{words[0]}" for block, words in COMMANDS]
)
def test_a_command_has_options_and_plugins_that_exist(block: Block, words: list[str]) -> None:
    made = re.findall(r"^freqrobust new \w+ (\S+)", (ROOT / block.page).read_text(encoding="utf-8"), re.MULTILINE)
    if any(".py:" in word or word == "$@" or (words[0] != "new" and word.partition(":")[0] in made) for word in words):
        # code of the page itself
        saved = any(one.page == block.page and one.mark == "file" for one in BLOCKS)
        assert saved or block.page in RUN_BY or "--arch" in words
        return
    parsed(words)
    for flag, spec in pairwise(words):
        if flag in SPECS and not spec.startswith("replay") and spec != "SPEC" and (flag != "--defense" or ":" in spec):
            SPECS[flag](spec)


OTHERS = [
    (block, line) for block in BLOCKS if block.mark != "not run" and block.language != "python" for line in block.others
]


@pytest.mark.parametrize(("block", "line"), OTHERS, ids=[f"{block.page}:{block.line}" for block, _ in OTHERS])
def test_other_commands_name_what_exists(block: Block, line: str) -> None:
    words = shlex.split(line, comments=True)
    while re.match(r"[A-Z_]+=", words[0]):  # variables of the environment
        words = words[1:]
    if words[0] == "freqrobust":
        parsed(words[1:])
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    elif words[0] == "python" and words[1].endswith(".py"):
        source = (ROOT / words[1]).read_text(encoding="utf-8")
        if "timing.parser(" in source:
            source += (ROOT / "benchmarks/timing.py").read_text(encoding="utf-8")
        assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []
    elif words[0] == "torchrun":
        parsed(words[words.index("freqrobust") + 1 :])
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"\[([\w,]+)\]", line)
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert all(f"\n{extra} = [" in project for one in extras for extra in one.split(","))
    else:
        assert block.page in RUN_BY, f"not a command that is checked, mark the block: {line}"


def test_an_unknown_option_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed(["eval", "--atack", "pgd"])
    with pytest.raises(SpecError, match="stepz"):
        SPECS["--attack"]("pgd:stepz=3")


def test_nothing_is_left_out() -> None:
    """Blocks in other notations would not be found; and each mark has a reason."""
    for page in PAGES:
        fences = re.findall(r"^ *```(\w*)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(blocks(page)) == sum(one in ("python", "sh", "bash", "shell", "console") for one in fences), page
    treated = Counter(treatment(block, BLOCKS[:i]) for i, block in enumerate(BLOCKS))
    assert sum(treated.values()) == len(BLOCKS)
    assert treated["run"] >= 30
    assert treated["marked"] <= 12
    assert all(len(block.about.split()) >= 2 for block in BLOCKS if block.mark in ("parsed", "not run"))
    for page, test in RUN_BY.items():
        assert Path(page).name in (ROOT / "tests" / "contract" / test).read_text(encoding="utf-8"), page


def pages_to_run() -> list[Any]:
    found = []
    for page in PAGES:
        here = blocks(page)
        if any(treatment(block, here[:i]) == "run" for i, block in enumerate(here)):
            found.append(pytest.param(page, id=page.relative_to(ROOT).as_posix()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_to_run())
@pytest.mark.filterwarnings("ignore::UserWarning:torchattacks", "ignore::UserWarning:foolbox")
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    here, names = blocks(page), {"__name__": "__page__"}
    for number, block in enumerate(here):
        done = treatment(block, here[:number])
        if done == "written":
            Path(block.about).parent.mkdir(parents=True, exist_ok=True)
            Path(block.about).write_text(block.text, encoding="utf-8")
        elif done == "run" and block.language == "python":
            if needed := re.findall(r"^import (torchattacks|foolbox)", block.text, re.MULTILINE):
                pytest.importorskip(needed[0], reason="an extra is not installed")
            exec(compile("\n" * block.line + block.text, os.fspath(page), "exec"), names)
        elif done == "run":
            for words in block.commands:
                with pytest.raises(SystemExit) as ended:
                    main(list(words))
                shown = capsys.readouterr()
                assert ended.value.code == 0, f"{block.page}:{block.line}: {' '.join(words)}\n{shown.out}{shown.err}"
