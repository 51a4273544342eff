"""Text for users is written in the terms of the field, with one term per concept."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import freqrobust
from freqrobust.cli.main import main
from freqrobust.experiments.experiment import experiments
from freqrobust.harness.analysis import analyses
from freqrobust.plugins.registry import (
    attacks,
    augmentations,
    certificates,
    defenses,
    methods,
    optimizers,
    regularizers,
    schedules,
)
from freqrobust.results.reporter import reports

ROOT = Path(__file__).parents[2]
PACKAGES = ("freqrobust", "attacks", "defenses", "reports")
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(page.relative_to(ROOT).as_posix() for page in sorted((ROOT / "docs").rglob("*.md"))),
)
COMMANDS = (
    "",
    "eval",
    "analyze",
    "train",
    "verify",
    "compare",
    "check",
    "init",
    "report",
    "leaderboard",
    "list",
    "reproduce",
    "explain",
    "runs",
    "cache",
    "rerun",
    "new",
)

#: Patterns that are not used, and what to write instead.
WORDS = {
    r"believable|doubtful|believed?": "no problem found, inconclusive, overestimated, not meaningful",
    r"too few to tell|no check found fault|found? fault": "inconclusive, no problem found",
    r"(?:hold|holds|held|holding)(?![- ]out)": "is robust, contains, is at most",
    r"broke|broken(?! (?:pipe|link|symbolic link|entry point))|breaking eps": "misclassified, damaged, invalid",
    r"fool|fools|fooled|fooling": "misclassified, adversarial",
    r"victims?": "target model",
    r"unaware|knows? of": "oblivious",
    r"false security": "overestimated, oblivious attacks",
    r"hand(?:s|ed|ing)? (?:over|on|out)|handed": "inherited, passed to",
    r"climb(?:s|ed|ing)?": "ascent",
    r"corners?": "initialisation",
    r"(?:left|leaves?|leaving) (?:its|their|the) budgets?": "exceeds its perturbation budget",
    r"(?:fallen|falls?) behind": "regression",
    r"sees|could have seen": "detects, minimum detectable drop, uses",
    r"keyed": "seeded",
    r"memory (?:ran|runs) out": "out of memory",
    r"go(?:es|ing)? on with": "retrying with",
    r"nothing is ever": "never",
    r"(?:samples|images) further|further (?:samples|images)": "additional samples",
    r"lies?|lying": "is at, is in, is wrong",
    r"puzzles?|honest|honestly|patience|anew": "a plain word",
    r"surviv(?:e|es|ed|ing)|left standing|images standing": "robust",
    r"t(?:ell|ells|old) (?:\w+ )?apart": "differ significantly",
    r"means? nothing|(?:is|are) worth nothing": "not meaningful",
    r"against none": "difference from the undefended model",
    r"hides? (?:its|their) gradients": "masked gradients",
}
PATTERNS = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): wanted for pattern, wanted in WORDS.items()}


def offences(text: str) -> list[str]:
    """What is wrong with a text: each match, its context and what to write instead."""
    text = " ".join(text.split())
    return [
        f"{match.group()!r} in {text[max(0, match.start() - 40) : match.end() + 40]!r} (write: {wanted})"
        for pattern, wanted in PATTERNS.items()
        for match in pattern.finditer(text)
    ]


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string of at least two words that is not a docstring: messages, help, titles."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            skipped.add(node.value)
        if isinstance(node, ast.JoinedStr):
            skipped.update(node.values)
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if node not in skipped and " " in text.strip():
            yield node.lineno, text


def prose(text: str) -> str:
    """A page without its code, links' targets and HTML comments."""
    text = re.sub(r"```.*?```|<!--.*?-->", " ", text, flags=re.DOTALL)
    return re.sub(r"`[^`]*`|\]\([^)]*\)", " ", text)


def sources() -> list[Path]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return sorted({file.resolve() for file in files})


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", sources(), ids=name)
def test_strings(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert [f"line {line}: {found}" for line, text in literals(tree) for found in offences(text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_pages(page: str) -> None:
    assert offences(prose((ROOT / page).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("template", sorted((ROOT / "reports" / "templates").iterdir()), ids=name)
def test_templates(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert offences(re.sub(r"{%.*?%}|{{.*?}}|<[^>]*>", " ", text, flags=re.DOTALL)) == []


def registered() -> list[Any]:
    registries: list[Any] = [attacks, certificates, defenses, analyses, reports, experiments]
    registries += [methods, augmentations, regularizers, optimizers, schedules]
    return [
        pytest.param(plugin, registry.get(plugin), id=plugin)
        for registry in registries
        for plugin in registry.names()
        if registry.origin(plugin).startswith("freqrobust ")
    ]


@pytest.mark.parametrize(("plugin", "cls"), registered())
def test_plugins(plugin: str, cls: type[Any]) -> None:
    """Their docstrings and the descriptions of their parameters, which the help and the lists show."""
    descriptions = [str(field.description) for field in cls.model_fields.values()]
    assert offences("\n".join([cls.__doc__ or "", *descriptions])) == []


@pytest.mark.parametrize("public", freqrobust.__all__)
def test_public_names(public: str) -> None:
    value = getattr(freqrobust, public)
    if callable(value) and str(getattr(value, "__module__", "")).startswith("freqrobust"):
        assert offences(value.__doc__ or "") == []


@pytest.mark.parametrize("arguments", [*(f"{command} --help".strip() for command in COMMANDS), "list"])
def test_output(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments.split())
    assert offences(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out)) == []


def test_a_word_is_found_and_similar_words_are_not() -> None:
    assert len(offences("3 samples held; the defense was broken")) == 2
    assert offences("a threshold, a broken pipe, a placeholder and an unkeyed belief") == []
    assert offences("accuracy on held-out images; 400 images are held out; --hold-out 0.1") == []
    assert offences(prose("It `holds`.\n```sh\nbroken\n```\n")) == []
