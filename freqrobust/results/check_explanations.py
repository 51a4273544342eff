"""What each check of a robust accuracy asks, and what to do where it fails."""

from __future__ import annotations

from freqrobust.results.explanation import ATHALYE, CARLINI, CHECKS, CROCE, PINTOR, STRONGER, TRAMER, Explanation


def _check(title: str, meaning: str, action: str, paper: str) -> Explanation:
    return Explanation(CHECKS, title, meaning, action, paper)


CHECK_EXPLANATIONS: dict[str, Explanation] = {
    "repeatability": _check(
        "Are the outputs the same in another call and in other batches?",
        "Where they are not, every other comparison depends on random draws.",
        "Set stochastic = True for a random defense, and draw from freqrobust.noise; a model must not mix samples of a batch.",
        CROCE,
    ),
    "zero gradients": _check(
        "Are at most 5 % of the gradients of the margin loss exactly zero?",
        "Where gradients are zero, attacks that follow them fail, although adversarial examples exist.",
        "Give the defense a surrogate (BPDA), and use an attack without gradients, such as square.",
        CARLINI,
    ),
    "noise": _check(
        "Does random noise misclassify samples that the attacks did not?",
        "An attack that is weaker than random noise at the same budget has failed.",
        STRONGER,
        ATHALYE,
    ),
    "gradient-based attacks": _check(
        "Did the report run an attack with gradients, and did it receive gradients other than zero?",
        "Without one, the robust accuracy is that under weak attacks.",
        "Add apgd or pgd; if they receive no gradients, declare a surrogate.",
        CARLINI,
    ),
    "softmax outputs": _check(
        "Information: the model returns probabilities.",
        "Losses on probabilities can saturate; see softmax-outputs.",
        "Return logits.",
        CARLINI,
    ),
    "gradients inside forward": _check(
        "Information: the model computes gradients while it predicts.",
        "Defenses that optimise at test time need attacks that are adapted to them; the gradients used here may be partial.",
        "Write an adaptive attack for this defense.",
        CROCE,
    ),
    "other norms": _check(
        "Information: attacks with other norms were measured, but not examined.",
        "The checks examine one norm: Linf, else L2, else L1.",
        "Evaluate the other norms in runs of their own.",
        CARLINI,
    ),
    "strong attack": _check(
        "Does Auto-PGD with 20 steps misclassify samples that are robust in the report?",
        "It is the only strong attack of the quick checks.",
        STRONGER,
        CROCE,
    ),
    "plain PGD": _check(
        "Does PGD with 20 steps misclassify samples that are robust in the report?",
        "It is initialised at random, and not from a smaller budget of a sweep.",
        STRONGER,
        CARLINI,
    ),
    "single step": _check(
        "Does one step misclassify samples that 20 steps do not?",
        "Iterative attacks are at least as strong as single steps, unless the gradients are masked.",
        "Look for masked gradients: non-differentiable operations, randomness, saturated losses.",
        ATHALYE,
    ),
    "black box": _check(
        "Does an attack without gradients misclassify samples that PGD does not?",
        "Attacks with gradients are stronger, unless the gradients are masked.",
        "Give the defense a surrogate, and report square as well.",
        ATHALYE,
    ),
    "transfer": _check(
        "Are examples of the undefended model misclassified where adaptive ones are not?",
        "The adaptive attack could use the same examples, so that it has failed where they are stronger.",
        "Give the defense a surrogate with useful gradients.",
        ATHALYE,
    ),
    "more steps": _check(
        "Do 100 steps misclassify samples that 20 steps did not?", "The attack had not converged.", STRONGER, CARLINI
    ),
    "more restarts": _check(
        "Do 5 restarts misclassify samples that 1 did not?",
        "The result depends on the initialisation.",
        STRONGER,
        CARLINI,
    ),
    "another loss": _check(
        "Does the margin loss misclassify samples that the cross-entropy did not?",
        "The cross-entropy saturates for confident networks.",
        STRONGER,
        TRAMER,
    ),
    "nearest classes": _check(
        "Does Auto-PGD towards the nearest classes misclassify more samples?",
        "Targeted runs find examples that untargeted ones do not.",
        STRONGER,
        CROCE,
    ),
    "averaged gradients": _check(
        "Do gradients averaged over noise misclassify more samples?",
        "Where a loss is discontinuous, its gradient does not say in which direction it increases; the mean over a "
        "neighbourhood does.",
        STRONGER,
        TRAMER,
    ),
    "increasing eps": _check(
        "Is a sample robust at a larger budget that is misclassified at a smaller one?",
        "A larger ball contains the smaller one, so that the attack at the larger budget has failed.",
        "More steps at the larger budget, or a sweep, which inherits examples.",
        ATHALYE,
    ),
    "large eps": _check(
        "Is a sample robust where every image can become mid-grey?",
        "At such a budget no information about the image is left, so that every attack has to succeed.",
        "Look for masked gradients.",
        ATHALYE,
    ),
    "loss still rising": _check(
        "Is the loss still rising at the end of the attack?",
        "The attack was stopped before it converged.",
        "More steps, or a larger step size.",
        PINTOR,
    ),
    "silent success": _check(
        "Was a sample misclassified at some step, but not in the image that was returned?",
        "The attack passed an adversarial example and did not return it.",
        "Return the best image of all steps.",
        PINTOR,
    ),
    "steps without effect": _check(
        "Do the steps increase the loss?",
        "The direction of the gradient is not a direction in which the loss increases.",
        "Declare a surrogate, use another loss, or an attack without gradients.",
        PINTOR,
    ),
    "scale of gradients": _check(
        "Are gradients finite, and large enough for float32?",
        "Gradients below 1e-20 are rounded to zero in products; confident networks have such gradients.",
        "Use logits, divide them by a constant, or use loss=margin.",
        PINTOR,
    ),
    "all checks combined": _check(
        "How many additional samples do all checks misclassify together?",
        "Each check may stay within what is allowed, and all together exceed it.",
        "The robust accuracy in the report is too high, although no single check may show it: use a stronger attack, such "
        "as aa or autoattack.",
        CARLINI,
    ),
}
