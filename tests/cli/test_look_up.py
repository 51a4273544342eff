"""``list KIND NAME`` and ``explain``: one plugin or one code on a page."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from freqrobust.cli.listing import KINDS, LISTS
from freqrobust.cli.plugin_page import COMMANDS, OTHER_COMMANDS, OTHER_PAGES, PAGES, described, documentation, example
from freqrobust.core.commands import COMMANDS as WITH_OPTIONS
from freqrobust.results.explanations import EXPLANATIONS
from freqrobust.results.glossary import TERMS
from support.command import Result

Command = Callable[..., Result]
ROOT = Path(__file__).parents[2]
PLUGINS = [(kind, name) for kind, registry in KINDS.items() for name in registry.names()]


def shown(result: Result) -> str:
    assert result.code == 0, result.err
    assert max(map(len, result.out.splitlines())) <= 80
    return " ".join(result.out.split())


def test_an_attack(command: Command) -> None:
    text = shown(command("list", "attacks", "pgd"))
    for part in (
        "pgd (attack, freqrobust ",
        "Projected gradient ascent on a loss",
        "source Madry et al. 2018, eq. 1",
        "threat model Linf, L2 or L1, at most eps (default 8/255)",
        "steps int >= 1 and <= 1000000; default 20",
        "example freqrobust eval --attack pgd",
        "documentation docs/attacks.md",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["suites", "quick"], ["pgd:eps=[2/255,8/255],steps=10", "freqrobust eval --suite quick"]),
        (["suites", "corruptions"], ["... and 70 more"]),
        (["recipes", "trades"], ["Zhang et al. 2019", "epochs = 100", "freqrobust train --recipe trades"]),
        (["models", "timm"], ["timm:NAME", "freqrobust eval --model timm:NAME"]),
        (["datasets", "folder"], ["folder:DIR"]),
        (["archs", "resnet20"], ["He et al. 2016", "--arch resnet20"]),
        (["attacks", "lfc"], ["none: a shift", "freqrobust eval --attack lfc:radius="]),
        (["attacks", "ddn"], ["no budget: it minimises the L2 norm", "a deterministic model"]),
        (["attacks", "square"], ["scores of the model, no gradients"]),
        (["attacks", "torchattacks:PGD"], ["torchattacks:PGD (attack, torchattacks ", "alpha"]),
        (["experiments", "wang-table1"], ["docs/reproductions/wang-table1.md"]),
    ],
)
def test_pages(arguments: list[str], parts: list[str], command: Command) -> None:
    if "torchattacks" in arguments[1]:
        pytest.importorskip("torchattacks")
    text = shown(command("list", *arguments))
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["attack", "pgd"], ["unknown list 'attack'", "did you mean 'attacks'?"]),
        (["attacks", "pgdd"], ["unknown attack 'pgdd'", "did you mean 'pgd'?"]),
        (["suites", "quik"], ["unknown suite 'quik'", "did you mean 'quick'?"]),
        (["recipes", "trade"], ["unknown recipe", "did you mean 'trades'?"]),
        (["models", "tim"], ["unknown model source", "did you mean 'timm'?"]),
        (["archs", "resnt20"], ["unknown architecture", "did you mean 'resnet20'?"]),
        (["datasets", "digit"], ["unknown dataset", "did you mean 'digits'?"]),
        (["defenses", ""], ["empty defense spec"]),
    ],
)
def test_unknown_names(arguments: list[str], parts: list[str], rejected: Callable[..., str]) -> None:
    message = rejected("list", *arguments)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=lambda value: str(value))
def test_every_plugin_has_a_page(kind: str, name: str) -> None:
    cls = KINDS[kind].get(name)
    texts, _ = described(cls)
    assert texts[0][-1] in ".:", texts
    assert not any("``" in text for text in texts)
    page = documentation(kind, name, KINDS[kind].origin(name))
    if page is not None:
        assert name in (ROOT / page).read_text(encoding="utf-8"), page
    words = shlex.split(example(kind, name, cls))
    assert words[0] == "freqrobust"
    assert {word for word in words if word.startswith("--")} <= WITH_OPTIONS[words[1]].flags()
    assert "VALUE" not in words[-1]


def test_the_tables_name_existing_plugins() -> None:
    assert set(COMMANDS) == set(KINDS) == {*PAGES, "experiments"}
    assert {*OTHER_COMMANDS, *OTHER_PAGES} <= set(PLUGINS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind, name in PLUGINS
        if kind in ("attacks", "certificates", "criteria", "defenses")
        and name not in ("madry", "corruption", "replay", "jpeg", "autoattack", "randomized-smoothing", "fourier")
    ],
    ids=lambda value: str(value),
)
def test_examples_run(kind: str, name: str, command: Command) -> None:
    words = shlex.split(example(kind, name, KINDS[kind].get(name)))[1:]
    limit = [] if "--limit" in words else ["--limit", "20"]
    result = command(*words, *limit, "--quiet")
    assert result.code == 0, result.err


def test_explain(command: Command, rejected: Callable[..., str]) -> None:
    text = shown(command("explain", "zero-gradients"))
    assert "zero-gradients (warnings)" in text
    assert "zero gradients (checks of robust accuracies)" in text
    assert "what to do Declare differentiable = False" in text
    assert "paper Athalye, Carlini and Wagner: Obfuscated Gradients" in text
    assert "if it fails" in shown(command("explain", "plain", "pgd"))
    assert "Something failed while measuring." in shown(command("explain", "exit code 3"))
    everything = shown(command("explain"))
    assert all(code in everything for code in EXPLANATIONS)
    assert "did you mean 'overestimated'?" in rejected("explain", "overestimatd")
    assert "'freqrobust explain' lists all of them" in rejected("explain", "qqqq")


@pytest.mark.parametrize(
    ("words", "beginning"),
    [
        ("LFC", "LFC, low-frequency component (terms) The image rebuilt"),
        ("high frequency component", "HFC, high-frequency component (terms)"),
        ("~", "no better than chance (~) (terms)"),
        ("mce", "corruption, mCE (terms)"),
        ("regression", "regression (rows and tests of a gate)"),
    ],
)
def test_explain_a_term(words: str, beginning: str, command: Command) -> None:
    text = shown(command("explain", words))
    assert text.startswith(beginning)
    assert "more in docs/" in text


def test_every_term_is_listed_and_explained(command: Command, rejected: Callable[..., str]) -> None:
    everything = shown(command("explain"))
    for term in TERMS:
        assert shown(command("explain", term.name.removeprefix("verdict: ")))
        assert (term.name in everything) == (not term.name.startswith("verdict: "))
    assert "did you mean 'worst case'?" in rejected("explain", "worstcase")


def test_explain_a_report(base: list[str], command: Command, rejected: Callable[..., str], workspace: Path) -> None:
    made = command(*base, "--attack", "fgsm:eps=0.1", "--limit", "10", "--json", "r.json", "--quiet")
    assert made.code == 0
    text = shown(command("explain", "r.json"))
    assert "inconclusive (verdicts on robust accuracies)" in text
    assert "at least 20 are needed" in text
    (workspace / "bad.json").write_text("{")
    assert "bad.json is not JSON" in rejected("explain", "bad.json")
    assert "missing.json" in rejected("explain", "missing.json")


def test_every_list_can_be_printed(command: Command) -> None:
    assert all(command("list", what).code == 0 for what in LISTS)
