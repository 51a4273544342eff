"""Checks for authors of plugins: the rules that every built-in plugin keeps to, for one of your own.

``check_defense(MyDefense())`` checks all of them on a small built-in network, in seconds. In a test, a rule a line:

Example:
    >>> import pytest
    >>> from freqrobust.testing import defense_checks
    >>> @pytest.mark.parametrize("check", defense_checks(MyDefense()), ids=str)  # doctest: +SKIP
    ... def test_contract(check):
    ...     check()

The rules are listed in docs/writing-a-defense.md, docs/writing-an-attack.md, docs/writing-an-analysis.md and
docs/writing-a-report.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freqrobust.harness.analysis import Analysis
    from freqrobust.plugins.base import Attack, Defense
    from freqrobust.results.reporter import Reporter
    from freqrobust.testing.rules import Check, Setting

__all__ = [
    "analysis_checks",
    "attack_checks",
    "check_analysis",
    "check_attack",
    "check_defense",
    "check_reporter",
    "defense_checks",
    "reporter_checks",
]


def attack_checks(attack: Attack, setting: Setting | None = None) -> list[Check]:
    """A check for each rule that applies to an attack; calling it raises a ``ContractError`` if the rule is broken.

    Args:
        setting: the model and the images that it is checked on; by default a small network with random weights.

    Raises:
        PluginError: it is no attack.
    """
    from freqrobust.testing.attack_rules import ATTACKS

    return ATTACKS.checks(attack, setting)


def check_attack(attack: Attack) -> None:
    """Check that an attack keeps to all rules of docs/writing-an-attack.md.

    Raises:
        ContractError: a rule is broken: an ``AssertionError`` and a ``FreqRobustError``, whose message says which rule.
        PluginError: it is no attack.
    """
    for check in attack_checks(attack):
        check()


def defense_checks(defense: Defense, setting: Setting | None = None) -> list[Check]:
    """A check for each rule that applies to a defense, as :func:`attack_checks`."""
    from freqrobust.testing.defense_rules import DEFENSES

    return DEFENSES.checks(defense, setting)


def check_defense(defense: Defense) -> None:
    """Check that a defense keeps to all rules of docs/writing-a-defense.md, as :func:`check_attack`."""
    for check in defense_checks(defense):
        check()


def analysis_checks(analysis: Analysis, setting: Setting | None = None) -> list[Check]:
    """A check for each rule that applies to an analysis, as :func:`attack_checks`."""
    from freqrobust.testing.analysis_rules import ANALYSES

    return ANALYSES.checks(analysis, setting)


def check_analysis(analysis: Analysis) -> None:
    """Check that an analysis keeps to all rules of docs/writing-an-analysis.md, as :func:`check_attack`."""
    for check in analysis_checks(analysis):
        check()


def reporter_checks(reporter: Reporter, setting: Setting | None = None) -> list[Check]:
    """A check for each rule that applies to a reporter, as :func:`attack_checks`."""
    from freqrobust.testing.report_rules import REPORTS

    return REPORTS.checks(reporter, setting)


def check_reporter(reporter: Reporter) -> None:
    """Check that a reporter keeps to all rules of docs/writing-a-report.md, as :func:`check_attack`."""
    for check in reporter_checks(reporter):
        check()
