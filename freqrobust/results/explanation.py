"""What an explanation of a code consists of, and the papers that several of them cite."""

from __future__ import annotations

from typing import NamedTuple

WARNINGS, VERDICTS, CHECKS, STATUSES, GATE, TRENDS, EXIT_CODES = (
    "Warnings",
    "Verdicts on robust accuracies",
    "Checks of robust accuracies",
    "Statuses",
    "Rows and tests of a gate",
    "Verdicts on the trends of an experiment",
    "Exit codes",
)


class Explanation(NamedTuple):
    """One code.

    Attributes:
        group: what kind of code it is; the list is ordered by it.
        title: a short sentence.
        meaning: what it says about the result.
        action: what to do.
        paper: where the matter is treated: authors, title, year.
    """

    group: str
    title: str
    meaning: str
    action: str
    paper: str = ""


ATHALYE = (
    "Athalye, Carlini and Wagner: Obfuscated Gradients Give a False Sense of Security: Circumventing Defenses to "
    "Adversarial Examples. 2018, sec. 3.1"
)
CARLINI = "Carlini et al.: On Evaluating Adversarial Robustness. 2019"
TRAMER = "Tramer, Carlini, Brendel and Madry: On Adaptive Attacks to Adversarial Example Defenses. 2020"
CROCE = "Croce and Hein: Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks. 2020"
PINTOR = (
    "Pintor et al.: Indicators of Attack Failure: Debugging and Improving Optimization of Adversarial Examples. 2022"
)
STRONGER = (
    "The robust accuracy in the report is too high: report this attack as well, and see which part of the evaluation was "
    "too weak (steps, restarts, loss, gradients of the defense)."
)
