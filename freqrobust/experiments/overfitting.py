"""Catastrophic overfitting: adversarial training that suddenly stops to be robust."""

from __future__ import annotations

from collections.abc import Sequence

from freqrobust.core.percent import percent
from freqrobust.experiments.probes import parse_probes
from freqrobust.numerics.statistics import independent_difference
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.training import TrainingMethod
from freqrobust.results.training_record import EpochRecord, ProbeResult, Share


def catastrophic_overfitting(epochs: Sequence[EpochRecord], method: TrainingMethod) -> str | None:
    """A sentence about the last epoch if it shows catastrophic overfitting, or None.

    The network becomes robust to the single-step attack of its training only: the accuracy under that attack stays or rises,
    while the accuracy under a stronger attack of the same budget drops towards zero within few steps, on training images as
    well as on others (Wong et al. 2020, sec. 5.4; Andriushchenko and Flammarion 2020, sec. 3). That is said of the
    last epoch where all of these are true, compared with the epoch in which the probe was highest so far:

    1. The accuracy of an adversarial probe has fallen to half or less, by a significant difference (the 95 % interval of
       Newcombe's method 10 is above zero), on the training samples and on the held-out samples.
    2. The accuracy on the training batches, which is measured under the attack of the training, has not fallen.
    3. At its highest the probe was above chance: the constant prediction of an untrained network is not robustness.

    Only probes count whose norm is that of the training attack and whose budget is not larger, as the method's own probes
    declare it; a method without such probes, such as natural training, is never concerned. The slow decrease on
    held-out samples only, robust overfitting (Rice et al. 2020), is another effect, and is not reported here.

    Args:
        epochs: all epochs so far.
        method: the training method.

    Returns:
        For example: ``catastrophic overfitting: the accuracy under pgd:eps=8/255 fell from 41.0 % (epoch 6) to 0.4 %,
        and under the training attack went from 46.2 % to 81.0 %``.
    """
    if not epochs:
        return None
    last, threats = epochs[-1], _threats(method.probes(), method)
    for result in last.probes:
        if not any(_within(threat, own) for threat in _threats([result.name], method) for own in threats):
            continue
        earlier = [(record, found) for record in epochs[:-1] for found in record.probes if found.name == result.name]
        if not earlier:
            continue
        best, highest = max(earlier, key=lambda pair: pair[1].shown.accuracy)
        above_chance = highest.shown.ci95[0] > highest.chance
        if above_chance and last.accuracy >= best.accuracy and _collapsed(highest, result):
            return (
                f"catastrophic overfitting: the accuracy under {result.name} fell from "
                f"{percent(highest.shown.accuracy)} % (epoch {best.epoch}) to {percent(result.shown.accuracy)} %, and under "
                f"the training attack went from {percent(best.accuracy)} % to {percent(last.accuracy)} %"
            )
    return None


def overfitting_notes(epochs: Sequence[EpochRecord], method: TrainingMethod) -> list[str]:
    """A sentence about the first epoch that shows catastrophic overfitting, for the record of the training."""
    found = ((k, catastrophic_overfitting(epochs[:k], method)) for k in range(1, len(epochs) + 1))
    return [f"Epoch {k} shows {text}." for k, text in found if text is not None][:1]


def _threats(specs: Sequence[str], method: TrainingMethod) -> list[Threat]:
    """The budgets of those probes that are attacks with a budget."""
    found = [probe.spec.plugin.threat() for probe in parse_probes(specs, method) if probe.spec is not None]
    return [threat for threat in found if threat is not None]


def _within(threat: Threat, own: Threat) -> bool:
    return threat.norm == own.norm and threat.eps <= own.eps * (1 + 1e-9)


def _collapsed(before: ProbeResult, now: ProbeResult) -> bool:
    """Whether the accuracy has fallen to half or less on the training samples, and on the held-out ones if there are any."""
    pairs = [(before.train, now.train)]
    if before.held_out is not None and now.held_out is not None:
        pairs.append((before.held_out, now.held_out))
    return all(_halved(first, second) for first, second in pairs)


def _halved(before: Share, now: Share) -> bool:
    _, (low, _) = independent_difference(before.correct, before.n, now.correct, now.n)
    return low > 0 and now.accuracy <= before.accuracy / 2
