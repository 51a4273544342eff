"""The examples of docs/writing-*.md are run, keep to the rules, and are those that ``freqrobust new`` writes."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from freqrobust.cli.new import KINDS, package_files
from freqrobust.core.user_code import load_file
from freqrobust.testing import analysis_checks, attack_checks, defense_checks, reporter_checks

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "attack": ("writing-an-attack.md", "one-step", "OneStep", attack_checks),
    "analysis": ("writing-an-analysis.md", "confident", "Confident", analysis_checks),
    "report": ("writing-a-report.md", "tabs", "Tabs", reporter_checks),
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("kind", PAGES)
def test_the_example_is_that_of_new_and_keeps_to_the_rules(kind, tmp_path, monkeypatch) -> None:
    page, name, class_name, checks = PAGES[kind]
    example, test = blocks(page, "python")
    files = package_files(kind, name)
    (written,) = [text for path, text in files.items() if path.name == f"{kind}.py"]
    assert example == written
    (tmp_path / f"my_{kind}.py").write_text(example, encoding="utf-8")
    plugin = getattr(load_file(str(tmp_path / f"my_{kind}.py")), class_name)()
    assert f"{checks.__name__}({class_name}())" in test
    for check in checks(plugin):
        check()


@pytest.mark.parametrize("kind", PAGES)
def test_the_commands_run_it(kind, command, tmp_path, monkeypatch) -> None:
    page = PAGES[kind][0]
    monkeypatch.chdir(tmp_path)
    Path(f"my_{kind}.py").write_text(blocks(page, "python")[0], encoding="utf-8")
    _, with_file = blocks(page, "sh")
    done = command(*shlex.split(with_file)[1:])
    assert done.code == 0, done.err
    shown = Path("cells.txt").read_text() if kind == "report" else done.out
    assert {"attack": "worst case Linf 16/255", "analysis": "Confident predictions", "report": "fgsm:eps=0.1\t0."}[
        kind
    ] in shown


@pytest.mark.parametrize(
    ("kind", "page"), [*((k, p[0]) for k, p in PAGES.items()), ("defense", "writing-a-defense.md")]
)
def test_it_takes_five_commands(kind, page) -> None:
    """The documented ones are those that ``new`` prints, which a slow test runs."""
    (five,) = [block.splitlines() for block in blocks(page, "sh") if block.startswith("freqrobust new")]
    _, _, given, name = shlex.split(five[0])
    assert given == kind
    assert five[1:] == [f"cd {name}", "pip install -e .", "pytest", KINDS[kind].command.format(name)]
    assert package_files(kind, name)


def test_the_checks_of_the_documented_defense(tmp_path, monkeypatch) -> None:
    example, *_, test = blocks("writing-a-defense.md", "python")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_defense.py").write_text(example, encoding="utf-8")
    try:
        scope: dict[str, object] = {}
        exec(compile(test, "writing-a-defense.md", "exec"), scope)
        function = scope["test_keeps_the_rule"]
        for check in defense_checks(scope["Quantize"]()):  # type: ignore[operator]
            function(check)  # type: ignore[operator]
    finally:
        sys.modules.pop("my_defense", None)
