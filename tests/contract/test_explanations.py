"""Every code that a report can contain is explained, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from freqrobust.cli import failures, options
from freqrobust.core import errors
from freqrobust.harness.diagnosis.checks import FULL_CHECKS, QUICK_CHECKS
from freqrobust.results import findings
from freqrobust.results.cells import Cell
from freqrobust.results.certificates import CertificateRecord
from freqrobust.results.diagnosis import Check, Verdict
from freqrobust.results.explanation import CHECKS, EXIT_CODES, GATE, STATUSES, TRENDS, VERDICTS, WARNINGS
from freqrobust.results.explanations import EXPLANATIONS, explained, normal
from freqrobust.results.gate_record import RegressionRow, ThresholdRow
from freqrobust.results.report import Report

ROOT = Path(__file__).parents[2]
PACKAGES = ("freqrobust", "attacks", "defenses", "reports")
KEBAB = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)+$")


def trees() -> Iterator[tuple[str, ast.Module]]:
    files = {file.resolve() for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    for file in sorted(files):
        yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def warnings_in(tree: ast.AST) -> Iterator[str]:
    """Codes of ``Warned(code=...)``, and of pairs ``("code", "message")``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) == "Warned":
            given = next((keyword.value for keyword in node.keywords if keyword.arg == "code"), None)
            code = text(given)
            # any other code is passed on from the warnings of an outcome
            assert code is not None or name_of(given or node) == "code", ast.unparse(node)
            if code is not None:
                yield code
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
            code, message = text(node.elts[0]), node.elts[1]
            prose = isinstance(message, ast.JoinedStr) or " " in (text(message) or "") or name_of(message) == "message"
            if code is not None and KEBAB.match(code) and prose:
                yield code


def checks_in(tree: ast.AST) -> Iterator[str]:
    """Names of checks that are made one by one: ``inform("name", ...)``, ``_judge("name", ...)``, ``{"name": "name"}``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in ("inform", "_judge") and text(node.args[0]):
            yield str(text(node.args[0]))
        elif isinstance(node, ast.Dict):
            pairs = {text(key): value for key, value in zip(node.keys, node.values, strict=True)}
            if "source" in pairs and "name" in pairs:
                yield text(pairs["name"]) or "repeatability"


def statuses(*classes: type) -> set[str]:
    return {value for cls in classes for value in get_args(cls.model_fields["status"].annotation)}


def exit_codes() -> set[str]:
    own = {error.exit_code for error in vars(errors).values() if hasattr(error, "exit_code")}
    named = {value for module in (options, failures) for key, value in vars(module).items() if key.startswith("EXIT_")}
    return {str(code) for code in {0, failures.GATE_FAILED, failures.CELLS_FAILED, *own, *named}}


def test_the_search_finds_codes() -> None:
    source = "w.append(('new-code', f'{n} things')); Warned(code='other', message=m); x = ('a-b', 3)"
    assert sorted(warnings_in(ast.parse(source))) == ["new-code", "other"]


EMITTED = {
    WARNINGS: lambda: {code for _, tree in trees() for code in warnings_in(tree)},
    VERDICTS: lambda: set(get_args(Verdict)),
    CHECKS: lambda: {
        *(check.name for check in (*FULL_CHECKS, *QUICK_CHECKS)),
        *(name for file, tree in trees() if "/diagnosis/" in file for name in checks_in(tree)),
    },
    STATUSES: lambda: statuses(Report, Cell, CertificateRecord, Check),
    GATE: lambda: (
        {RegressionRow.model_fields["kind"].default, ThresholdRow.model_fields["kind"].default}
        | set(get_args(RegressionRow.model_fields["test"].annotation))
    ),
    TRENDS: lambda: set(get_args(findings.Verdict)),
    EXIT_CODES: exit_codes,
}


@pytest.mark.slow
@pytest.mark.parametrize("group", EMITTED)
def test_every_code_is_explained_and_every_explanation_is_used(group: str) -> None:
    emitted = EMITTED[group]()
    assert len(emitted) > 1
    assert emitted == {code for code, explanation in EXPLANATIONS.items() if explanation.group == group}


def test_explanations_are_complete_sentences() -> None:
    assert {explanation.group for explanation in EXPLANATIONS.values()} == set(EMITTED)
    for code, explanation in EXPLANATIONS.items():
        for part in (explanation.title, explanation.meaning, explanation.action):
            assert part[0].isupper() or part.startswith(("--", "freqrobust")), (code, part)
            assert part[-1] in ".?", (code, part)
        assert not explanation.paper or re.search(r": .+\. (19|20)\d\d", explanation.paper), code


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        ("zero-gradients", ["zero-gradients", "zero gradients"]),
        ("Zero Gradients", ["zero-gradients", "zero gradients"]),
        ("zero gradients", ["zero gradients", "zero-gradients"]),
        ("exit code 3", ["3"]),
        ("exit-130", ["130"]),
        ("PLAIN_PGD", ["plain PGD"]),
        ("nothing", []),
    ],
)
def test_codes_are_found_however_they_are_written(given: str, codes: list[str]) -> None:
    assert explained(given) == codes
    assert normal(normal(given)) == normal(given)
