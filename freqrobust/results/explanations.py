"""What the codes in reports mean, and what to do about them: warnings, verdicts, checks, statuses, exit codes.

A contract test finds every code in the source and compares it with this catalogue. This module imports nothing heavy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from freqrobust.results.check_explanations import CHECK_EXPLANATIONS
from freqrobust.results.explanation import (
    ATHALYE,
    CARLINI,
    EXIT_CODES,
    GATE,
    STATUSES,
    STRONGER,
    TRAMER,
    TRENDS,
    VERDICTS,
    WARNINGS,
    Explanation,
)


def _warning(title: str, meaning: str, action: str, paper: str = "") -> Explanation:
    return Explanation(WARNINGS, title, meaning, action, paper)


EXPLANATIONS: dict[str, Explanation] = {
    # -- warnings ---------------------------------------------------------------------------------------------
    "softmax-outputs": _warning(
        "The model returns probabilities instead of logits.",
        "All outputs are between 0 and 1 and sum to 1. The softmax saturates, so that the gradients of the losses of "
        "attacks can vanish, and the robust accuracy is then overestimated.",
        "Remove the softmax from the end of the network, or load it without.",
        CARLINI,
    ),
    "non-finite-logits": _warning(
        "Some predictions are NaN or infinite.",
        "A sample with such a logit counts as misclassified, because it has no predicted class.",
        "Look for divisions by zero, logarithms and overflows in the model, and check the normalisation.",
    ),
    "zero-gradients": _warning(
        "Many gradients that the attack received are exactly zero.",
        "An attack that follows gradients does not move where they are zero. The robust accuracy under this attack is "
        "probably overestimated.",
        "Declare differentiable = False for a defense whose operations have no useful gradient and give it a surrogate, or "
        "use an attack without gradients, such as square. --diagnose runs the checks.",
        ATHALYE,
    ),
    "no-gradients": _warning(
        "The attack received no gradient at all.",
        "No gradient reached the images, so that the attack made no useful step. The robust accuracy is not meaningful.",
        "Make sure that the model does not detach its input or run under torch.no_grad(); else use square.",
        ATHALYE,
    ),
    "attack-warning": _warning(
        "The attack printed a Python warning.",
        "Code of the attack, or of its library, raised a Python warning; the message contains it. The result is kept.",
        "Read the message; for attacks of other libraries it is often about the version of the library.",
    ),
    "train-mode-layers": _warning(
        "Some layers of the model stay in train mode.",
        "Dropout and batch norm behave differently in train mode: outputs may be random or depend on the batch.",
        "Make sure that eval() of the model reaches these layers: a train() that is overridden can prevent it.",
    ),
    "several-networks": _warning(
        "The checkpoint contains several networks, and one of them was used.",
        "Checkpoints often contain the weights and their moving average. The message says which one was loaded.",
        "If it is the wrong one, save the weights of the other one alone to a file.",
    ),
    "normalization": _warning(
        "Another normalisation gives a significantly higher clean accuracy.",
        "On some samples of the dataset, the images were normalised in several ways. The one that was used is "
        "significantly worse than another one, so that it is probably not that of the training.",
        "Give the normalisation that the network was trained with: --normalize.",
    ),
    "image-size": _warning(
        "The images have another size than the model expects.",
        "Arrays and tensors are used as they are, and the model says that it was trained on images of another size. It may "
        "accept them all the same, with a lower accuracy.",
        "Give images of that size, or have them resized: --resize and --crop (in Python resize=, crop=).",
    ),
    "unreadable-images": _warning(
        "Images that cannot be decoded were left out.",
        "These files are damaged or no images, and --skip-unreadable was given. They were found before anything was measured; "
        "the accuracies are those of the other images, which keep their ids.",
        "Replace the files that are named, and measure again if there are many of them.",
    ),
    "changing-outputs": _warning(
        "The outputs of the model change from one call to the next.",
        "Each prediction depends on random draws that freqrobust does not seed. Attacks may differentiate other draws than "
        "those that decide, and results cannot be repeated.",
        "Write the random part as a defense with stochastic = True, which draws from freqrobust.noise: attacks then average "
        "over draws, and predictions are majority votes.",
        ATHALYE,
    ),
    "not-compiled": _warning(
        "A model was not compiled.",
        "Attacks differentiated it in eager mode, which is slower; the results differ only by rounding. The message says why.",
        "No action is needed. --compile off leaves out the attempt. If the message contains nan, PyTorch may have loaded code "
        "that was compiled for another processor: set TORCHINDUCTOR_CACHE_DIR to an empty directory, and use a new --run-dir.",
    ),
    "not-diagnosed": _warning(
        "The full checks had nothing to examine.",
        "Checks examine attacks with a budget, that is a norm and eps above 0, and none was measured.",
        "Add an attack such as pgd:eps=8/255.",
    ),
    "damaged-journal": _warning(
        "A file of an earlier run was damaged.",
        "The checksum of a finished cell did not match its content. The cell was measured again.",
        "No action is needed. If it happens often, check the disk.",
    ),
    "defense-failed": _warning(
        "A defense raised an error, so that none of its cells was measured.",
        "The report is partial: the other defenses are in it.",
        "Read the message; --debug prints the traceback. Then run the same command again: finished cells are kept.",
    ),
    "cell-failed": _warning(
        "An attack raised an error.",
        "The cell has no result and is missing from the worst case, which is then possibly too high.",
        "Read the message; --debug prints the traceback. Then run the same command again: finished cells are kept.",
    ),
    "near-chance-accuracy": _warning(
        "The clean accuracy is no better than chance.",
        "The confidence interval of the clean accuracy contains the accuracy of a model whose predictions are independent "
        "of the labels. The robust accuracy of such a model is not meaningful.",
        "Check the normalisation, the order of the classes and the dataset; else the defense has destroyed the model.",
    ),
    "no-examples": _warning(
        "The example images of a defense could not be made.",
        "The code of the defense or of an attack raised an error while the images were made. The accuracies are not "
        "affected.",
        "Read the message; --debug prints the traceback.",
    ),
    "sequential": _warning(
        "Measuring stopped early.",
        "freqrobust check --sequential measures each cell only until its threshold is decided. The accuracies are those of "
        "the samples measured so far; a report of this kind is no baseline.",
        "Leave out --sequential to measure all samples.",
        "Lan and DeMets: Discrete Sequential Boundaries for Clinical Trials. 1983",
    ),
    # -- verdicts ---------------------------------------------------------------------------------------------
    "no problem found": Explanation(
        VERDICTS,
        "All checks that were run passed.",
        "None of them found more adversarial examples than the report. This is no proof of robustness: a robust accuracy "
        "is an upper bound.",
        "Before publishing a number, run --diagnose, and autoattack or aa.",
        CARLINI,
    ),
    "inconclusive": Explanation(
        VERDICTS,
        "The checks cannot say whether the robust accuracy is right.",
        "Outputs change between calls, or a check failed without misclassifying additional samples, or fewer than 20 "
        "samples were examined.",
        "Do what the failed check asks for (freqrobust explain CHECK), or use more samples.",
        CARLINI,
    ),
    "overestimated": Explanation(
        VERDICTS,
        "Other attacks found more adversarial examples than the report.",
        "At the same budget, an attack of the checks misclassified more samples that the report counted as robust than is "
        "allowed. The worst case already counts them as misclassified.",
        STRONGER,
        TRAMER,
    ),
    "not meaningful": Explanation(
        VERDICTS,
        "The model predicts too badly for its robustness to be judged.",
        "The clean accuracy is no better than chance, or nearly all predictions are one class.",
        "See near-chance-accuracy.",
    ),
    "nothing to check": Explanation(
        VERDICTS,
        "No sample is robust at the budget of the checks.",
        "Where every sample is misclassified, no attack can misclassify more.",
        "For a larger robust accuracy use smaller budgets, such as pgd:eps=[0.5/255,1/255].",
    ),
    **CHECK_EXPLANATIONS,
    # -- statuses ---------------------------------------------------------------------------------------------
    "complete": Explanation(
        STATUSES, "All cells were measured.", "It is the status of a report.", "No action is needed."
    ),
    "partial": Explanation(
        STATUSES,
        "Some cells or certificates failed.",
        "It is the status of a report, which contains all others; the exit code is 3.",
        "Read the warnings of the report, and run the same command again.",
    ),
    "ok": Explanation(
        STATUSES, "It was measured.", "It is the status of a cell or a certificate.", "No action is needed."
    ),
    "failed": Explanation(
        STATUSES,
        "A cell raised an error, or a check found what it looks for.",
        "A cell or certificate that failed has no result, and its error says why. For a check that failed, what was "
        "measured exceeds the threshold.",
        "For a check: freqrobust explain CHECK.",
    ),
    "passed": Explanation(
        STATUSES, "A check found no problem.", "It is the status of a check.", "No action is needed."
    ),
    "not applicable": Explanation(
        STATUSES,
        "A check could not be run.",
        "It is the status of a check, whose reason says why.",
        "No action is needed, unless the reason names one.",
    ),
    "information": Explanation(STATUSES, "It is a remark.", "A check with this status cannot fail.", "Read it."),
    # -- the gate ---------------------------------------------------------------------------------------------
    "threshold": Explanation(
        GATE,
        "An accuracy is compared with the required one.",
        "--fail-under and [thresholds]. With --confident, the lower end of the confidence interval is compared.",
        "Where it failed: a better model, or another threshold.",
    ),
    "regression": Explanation(
        GATE,
        "An accuracy is compared with that of the baseline.",
        "It fails where the accuracy dropped significantly and by more than max-drop. P-values are corrected by Holm over "
        "all cells of the gate.",
        "Where it failed: find the change of the model; if it is intended, freqrobust check --update-baseline.",
        "Holm: A Simple Sequentially Rejective Multiple Test Procedure. 1979",
    ),
    "mcnemar": Explanation(
        GATE,
        "The exact test of two accuracies on the same samples.",
        "Only samples that are correct in one report and misclassified in the other one count.",
        "No action is needed.",
        "McNemar: Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages. 1947",
    ),
    "sign-flip": Explanation(
        GATE,
        "The test of a whole sweep over eps.",
        "The difference of each sample is its change of the number of budgets at which it is robust; under the null "
        "hypothesis its sign is random.",
        "No action is needed.",
        "Fisher: The Design of Experiments. 1935",
    ),
    # -- experiments ------------------------------------------------------------------------------------------
    "reproduced": Explanation(
        TRENDS,
        "The statement of the source was seen here.",
        "The confidence interval is above zero.",
        "No action is needed.",
    ),
    "not reproduced": Explanation(
        TRENDS,
        "The statement of the source was not seen here.",
        "The confidence interval is at or below zero.",
        "Try a larger --scale before concluding that the source is wrong: networks and data are smaller here.",
    ),
    "undecided": Explanation(
        TRENDS,
        "The data does not decide.",
        "The confidence interval contains zero and positive numbers.",
        "Use a larger --scale, or other seeds.",
    ),
    # -- exit codes -------------------------------------------------------------------------------------------
    "0": Explanation(
        EXIT_CODES, "The command did what was asked.", "If it includes a gate, the gate passed.", "No action is needed."
    ),
    "1": Explanation(
        EXIT_CODES,
        "A check of the results failed, such as a gate.",
        "A threshold was not reached, or there is a regression. 'rerun' ends with 1 if results differ, and 'verify' if a "
        "perturbation budget is exceeded. An internal error also ends with 1, and prints a traceback.",
        "Read the rows of the gate, or the last line on standard error.",
    ),
    "2": Explanation(
        EXIT_CODES,
        "The input is wrong.",
        "An option, a file, a model or a spec; the last line on standard error says which, and what would work. Nothing "
        "was measured.",
        "Correct it. --debug prints the traceback.",
    ),
    "3": Explanation(
        EXIT_CODES,
        "Something failed while measuring.",
        "Some cells or certificates failed, and the others are in the report; or a training diverged, or an attack "
        "contradicts a certificate; or an experiment of 'reproduce all' failed.",
        "Read the lines on standard error.",
    ),
    "130": Explanation(
        EXIT_CODES,
        "The user interrupted the command.",
        "Finished work is kept.",
        "Run the same command again to resume.",
    ),
    "141": Explanation(
        EXIT_CODES,
        "The reader of the output closed it.",
        "This happens, for example, with freqrobust list | head.",
        "No action is needed.",
    ),
}


def normal(code: str) -> str:
    """A code as it is compared: without case, and with hyphens in the place of spaces and underscores."""
    return "-".join(code.lower().replace("_", " ").replace("-", " ").split())


def explained(code: str, catalogue: Mapping[str, Explanation] = EXPLANATIONS) -> list[str]:
    """The codes that are meant by what the user wrote: the exact one first, then those that differ in hyphens only."""
    wanted = normal(code).removeprefix("exit-code-").removeprefix("exit-")
    return sorted((key for key in catalogue if normal(key) == wanted), key=lambda key: key != code)


def nearest(code: str, known: Iterable[str] = EXPLANATIONS) -> str:
    """``"; did you mean 'x'?"`` when a code is close, else an empty string."""
    names = {normal(key): key for key in known}
    close = difflib.get_close_matches(normal(code), list(names), n=1, cutoff=0.5)
    return f"; did you mean {names[close[0]]!r}?" if close else ""
