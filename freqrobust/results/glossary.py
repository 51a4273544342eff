"""The terms of a report, each in one or two sentences, with the page of the documentation that has more."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freqrobust.results.explanations import normal

if TYPE_CHECKING:
    from freqrobust.results.report import Report

_VERDICT = "verdict: "


@dataclass(frozen=True)
class Term:
    """One term.

    Attributes:
        name: as reports write it.
        text: what it means.
        page: the file of the documentation that explains it.
        used: whether a report contains it.
    """

    name: str
    text: str
    page: str
    used: Callable[[Report], bool]

    def names(self) -> list[str]:
        """The words that the name consists of: ``["LFC", "low-frequency component"]``."""
        return [name for name in re.split(r", | \(|\)", self.name) if name]


def defined() -> list[Term]:
    """The terms that are not codes: ``freqrobust explain`` knows verdicts by their codes."""
    return [term for term in TERMS if not term.name.startswith(_VERDICT)]


def named(words: str) -> list[Term]:
    """The terms that are meant by what the user wrote, whatever its case and its hyphens."""
    return [term for term in defined() if normal(words) in map(normal, (term.name, *term.names()))]


def glossary(report: Report) -> list[Term]:
    """The terms that a report uses."""
    return [term for term in TERMS if term.used(report)]


def _attack(*names: str) -> Callable[[Report], bool]:
    return lambda report: any(cell.attack in names for cell in report.cells)


def _verdict(name: str) -> Callable[[Report], bool]:
    return lambda report: any(diagnosis.verdict == name for diagnosis in report.diagnostics)


def _always(report: Report) -> bool:
    return True


def _adversarial(report: Report) -> bool:
    return any(cell.kind == "adversarial" for cell in report.cells)


def _examples(report: Report) -> bool:
    return bool(report.examples)


def _filters(report: Report) -> bool:
    return _attack("lfc", "hfc")(report) or _examples(report)


TERMS = (
    Term(
        "accuracy",
        "The share of samples that are classified correctly. Clean accuracy is that on the unchanged images.",
        "docs/reading-a-table.md",
        _always,
    ),
    Term(
        "95 % interval",
        "The range of accuracies that are compatible with the measured one: another draw of as many samples would "
        "give another accuracy. It is Wilson's interval of a share.",
        "docs/concepts/index.md",
        _always,
    ),
    Term(
        "paired difference",
        "The change of the accuracy from that of the undefended model on the same samples, in points, with its 95 % "
        "interval. An interval that excludes 0 is a significant change.",
        "docs/concepts/index.md",
        lambda report: any(cell.difference is not None for cell in report.cells),
    ),
    Term(
        "eps, Linf, L2, L1",
        "The perturbation budget of an attack: no pixel may change by more than eps (Linf), or the Euclidean (L2) or the "
        "absolute sum (L1) of all changes is at most eps, for pixels in [0, 1].",
        "docs/concepts/threat-models.md",
        lambda report: any(cell.threat is not None for cell in report.cells),
    ),
    Term(
        "adversarial example",
        "An image with a small perturbation, chosen by an attack, that the model misclassifies although it classifies the "
        "unchanged image correctly.",
        "docs/concepts/threat-models.md",
        _adversarial,
    ),
    Term(
        "robust accuracy",
        "The share of samples that are correct on the unchanged image and under the attack. An attack gives an upper bound: "
        "a stronger one can find more adversarial examples.",
        "docs/concepts/index.md",
        _adversarial,
    ),
    Term(
        "worst case",
        "The robust accuracy under all attacks together: a sample counts only if it is correct under every adversarial "
        "example within the budget.",
        "docs/concepts/threat-models.md",
        lambda report: bool(report.worst_case),
    ),
    Term(
        "adaptive",
        "The attack is run on the defended model itself, with its gradients. Robust accuracies are those under adaptive "
        "attacks.",
        "docs/concepts/adaptive-attacks.md",
        lambda report: any(cell.defense != "undefended" and cell.kind == "adversarial" for cell in report.cells),
    ),
    Term(
        "oblivious",
        "The adversarial examples were made on the undefended model, and the defended model classifies them. The accuracy "
        "overestimates the robustness against an attacker who knows the defense.",
        "docs/concepts/adaptive-attacks.md",
        lambda report: any(cell.knowledge == "oblivious" for cell in report.cells),
    ),
    Term(
        "LFC, low-frequency component",
        "The image rebuilt from its spatial frequencies below a radius, in cycles per image: a blurred image.",
        "docs/concepts/frequencies.md",
        _filters,
    ),
    Term(
        "HFC, high-frequency component",
        "The image rebuilt from its spatial frequencies at or above the radius: edges and texture. LFC and HFC add up to the "
        "image.",
        "docs/concepts/frequencies.md",
        _filters,
    ),
    Term(
        "no better than chance (~)",
        "The accuracy is not significantly higher than that of predictions that do not depend on the image.",
        "docs/concepts/index.md",
        lambda report: any(cell.chance_accuracy is not None for cell in report.cells),
    ),
    Term(
        "minimum-norm attack",
        "An attack that looks for the nearest adversarial example of each sample instead of one within a budget. The "
        "distances give the robust accuracy at every eps, the robustness curve.",
        "docs/robustness-curve.md",
        lambda report: any(cell.distances is not None for cell in report.cells),
    ),
    Term(
        "corruption, mCE",
        "A change of the image that no attacker chooses, such as noise, blur or fog, at severities from 1 to 5. The mean "
        "corruption error (mCE) divides the errors by those of a reference model.",
        "docs/corruptions.md",
        lambda report: bool(report.corruptions),
    ),
    Term(
        "certified",
        "A proof, instead of an attack, that no perturbation within the budget changes the prediction: a lower bound of the "
        "robust accuracy.",
        "docs/certificates.md",
        lambda report: bool(report.certificates),
    ),
    Term(
        "verdict: no problem found",
        "The checks tried stronger and other attacks, and none of them misclassified more samples. It is no proof.",
        "docs/concepts/verdicts.md",
        _verdict("no problem found"),
    ),
    Term(
        "verdict: inconclusive",
        "A check failed without finding further adversarial examples, the outputs are not repeatable, or there are too few "
        "samples.",
        "docs/concepts/verdicts.md",
        _verdict("inconclusive"),
    ),
    Term(
        "verdict: overestimated",
        "The checks found adversarial examples for samples that count as robust under the attacks of the report: the robust "
        "accuracy is lower.",
        "docs/concepts/verdicts.md",
        _verdict("overestimated"),
    ),
    Term(
        "verdict: not meaningful",
        "The model predicts no better than chance or nearly always the same class, so that its robust accuracies say nothing "
        "about robustness.",
        "docs/concepts/verdicts.md",
        _verdict("not meaningful"),
    ),
    Term(
        "verdict: nothing to check",
        "No sample is robust at the budget of the checks.",
        "docs/concepts/verdicts.md",
        _verdict("nothing to check"),
    ),
    Term(
        "gate, baseline, regression",
        "The gate compares accuracies with required ones, and with the stored report of an earlier model, the baseline. A "
        "regression is a significant drop that is larger than allowed.",
        "docs/statistics.md",
        lambda report: report.gate is not None,
    ),
    Term(
        "perturbation, magnified",
        "The difference of the adversarial and the unchanged image, multiplied so that it can be seen; grey is no change.",
        "docs/reports.md",
        _examples,
    ),
)
