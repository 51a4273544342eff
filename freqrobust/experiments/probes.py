"""Probes: what is measured of a network while it is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import number_text
from freqrobust.core.progress import Progress, Silent
from freqrobust.data.dataset import ImageData
from freqrobust.harness.correctness import correct_samples
from freqrobust.plugins.base import Attack
from freqrobust.plugins.plugin import value_text
from freqrobust.plugins.selection import parse_attacks
from freqrobust.plugins.specs import PluginSpec
from freqrobust.plugins.training import TrainingMethod
from freqrobust.results.training_record import EpochRecord, ProbeResult, Share
from freqrobust.training.threads import suitable_threads

CLEAN = "clean"
#: Longest name of an attack in a short name of a probe.
_NAME = 12
_SETTING = re.compile(r"@\s*(?P<key>[A-Za-z_]+)\s*=\s*(?P<value>[^@\[\],:/]*)$")


@dataclass(frozen=True)
class Probe:
    """An attack or a shift that is measured during a training.

    Attributes:
        name: ``clean``, or the spec in normal form.
        spec: the attack or shift; None for the clean images.
        every: it is measured after every so many epochs, and after the last one.
        label: a short name, unique among the probes of a training.
    """

    name: str
    spec: PluginSpec[Attack] | None
    every: int = 1
    label: str = ""

    @property
    def kind(self) -> Literal["clean", "shift", "adversarial"]:
        """What it measures."""
        return self.spec.plugin.kind if self.spec is not None else "clean"

    @property
    def key(self) -> str:
        """Equal for probes that measure the same."""
        return (
            f"{self.spec.name} {sorted(self.spec.params.items())} {self.spec.code}" if self.spec is not None else CLEAN
        )

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether it is measured after this epoch, counted from 1."""
        return epoch % self.every == 0 or epoch == epochs


def parse_probes(
    specs: Sequence[str] | None, method: TrainingMethod, shape: Sequence[int] | None = None
) -> list[Probe]:
    """The probes of a training; ``clean`` is the first of them.

    Args:
        specs: each is ``clean`` or the spec of an attack or shift, and may end in ``@every=5``; sweeps are expanded,
            and of probes that measure the same, one is kept, at the shorter period. None stands for those that the
            method names, and a pair of filters at half of the highest frequency.
        method: the training method.
        shape: of the images, ``(C, H, W)``, for the pair of filters: LFC and HFC of radius ``min(H, W) / 4``. Without it
            there is none.

    Raises:
        SpecError: one of them is no attack or shift, has no budget, or the period is wrong.
    """
    if isinstance(specs, str):
        specs = [specs]
    return probes_of([*method.probes(), *_filters(shape)] if specs is None else specs)


def probes_of(specs: Sequence[str], every: int = 1) -> list[Probe]:
    """The probes that specs stand for, as of :func:`parse_probes`; ``clean`` is the first of them.

    Args:
        specs: see there.
        every: the period of those that name none.

    Raises:
        SpecError: see there.
    """
    found: dict[str, Probe] = {}
    for probe in [Probe(CLEAN, None, every), *(probe for text in specs for probe in _parsed(text, every))]:
        known = found.get(probe.key)
        every = min(probe.every, known.every) if known is not None and known.spec is not None else probe.every
        found[probe.key] = replace(known or probe, every=every)
    parse_attacks(probe.spec for probe in found.values() if probe.spec is not None)  # refuses two plugins of one name
    return _labelled(list(found.values()))


def _filters(shape: Sequence[int] | None) -> list[str]:
    """LFC and HFC at half of the Nyquist frequency, which is half the side, in cycles per image."""
    if shape is None:
        return []
    radius = number_text(min(shape[-2:]) / 4)
    return [f"lfc:radius={radius}", f"hfc:radius={radius}"]


def _parsed(text: str, every: int = 1) -> list[Probe]:
    """The probes of one text; ``every`` is their period where it names none."""
    if not isinstance(text, str):
        raise SpecError(f"a probe should be a spec such as pgd:eps=2/255@every=5, but got {type(text).__name__}")
    given = text.strip()
    setting = _SETTING.search(given)
    if setting is not None:
        given, every = given[: setting.start()].strip(), _period(setting, text)
    if given == CLEAN:
        return [Probe(CLEAN, None, every)]
    try:
        parsed = parse_attacks([given])
    except SpecError as error:
        raise SpecError(f"probe {text!r}: {error}") from error
    for plugin_spec in parsed:
        if plugin_spec.plugin.minimizes() is not None:
            raise SpecError(
                f"probe {text!r}: {plugin_spec.name} has no budget, so that it has no accuracy; "
                f"use an attack with a budget, such as pgd:eps=8/255"
            )
    return [Probe(plugin_spec.spec, plugin_spec, every) for plugin_spec in parsed]


def _period(setting: re.Match[str], text: str) -> int:
    key, value = setting["key"], setting["value"].strip()
    if key != "every":
        raise SpecError(f"probe {text!r}: expected @every=N behind the spec, but got @{key}")
    if not (value.isascii() and value.isdigit()) or not 1 <= int(value[:10]) <= 1_000_000:
        raise SpecError(f"probe {text!r}: every should be a number of epochs from 1 to 1000000, but got {value!r}")
    return int(value)


def _labelled(probes: list[Probe]) -> list[Probe]:
    """The probes with short names: the name of the attack, and the parameters in which those of one name differ."""
    labelled = []
    for probe in probes:
        if probe.spec is None:
            labelled.append(replace(probe, label=CLEAN))
            continue
        plugin = probe.spec.plugin
        same = [p.spec.plugin for p in probes if p.spec is not None and p.spec.name == probe.spec.name]
        differing = [key for key in type(plugin).model_fields if len({value_text(other, key) for other in same}) > 1]
        values = ",".join(value_text(plugin, key) for key in differing)
        short = probe.spec.name.rpartition(":")[2][:_NAME]
        labelled.append(replace(probe, label=f"{short}:{values}" if values else short))
    labels = [probe.label for probe in labelled]
    return [p if labels.count(p.label) == 1 else replace(p, label=p.name) for p in labelled]


def check_probes(probes: Iterable[Probe], data: ImageData) -> None:
    """Refuse probes that cannot be measured on the data, before anything is trained.

    Raises:
        SpecError, DataError: one of them does not fit the data.
    """
    for probe in probes:
        if probe.spec is not None:
            probe.spec.plugin.check_data(data)


def choose_best(probes: Sequence[Probe], given: str | None) -> Probe:
    """The probe that chooses the best checkpoint: the given one, or the first adversarial one, or else clean.

    Raises:
        SpecError: the given one is not among the probes.
    """
    if given is None:
        return next((probe for probe in probes if probe.kind == "adversarial"), probes[0])
    parsed = _parsed(given)
    chosen = [probe for probe in probes if probe.key in {one.key for one in parsed}]
    if len(parsed) != 1 or len(chosen) != 1:
        raise SpecError(
            f"the best checkpoint is chosen by one of the probes {', '.join(probe.name for probe in probes)}, "
            f"but got {given!r}"
        )
    return chosen[0]


def measure_probes(
    network: nn.Module,
    probes: Sequence[Probe],
    epoch: int,
    epochs: int,
    train_subset: ImageData,
    held_out_subset: ImageData | None,
    *,
    device: torch.device,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[ProbeResult]:
    """The accuracy of a network under the probes that are due after an epoch, as ``freqrobust eval`` measures it.

    The random numbers of attacks are the same after every epoch, so that a change is one of the network.

    Args:
        network: images in [0, 1] to logits; its modes are afterwards those from before.
        probes: all probes of the training.
        epoch: number of finished epochs.
        epochs: of the whole training.
        train_subset: samples of the training data.
        held_out_subset: samples that are not trained on; None where there are none.
        device: where the network runs.
        seed: seeds all random numbers of the attacks.
        progress: reports every batch.
    """
    due = [probe for probe in probes if probe.due(epoch, epochs)]
    parts = [part for part in (train_subset, held_out_subset) if part is not None]
    if not due:
        return []
    progress = progress or Silent()
    progress.begin(f"probes {epoch}/{epochs}", len(due) * sum(len(part) for part in parts))
    with suitable_threads(network, train_subset.shape, device):
        counted = [_counted(network, due, part, device, seed, progress) for part in parts]
    return [
        ProbeResult(
            name=probe.name,
            label=probe.label or probe.name,
            kind=probe.kind,
            train=counted[0][number],
            held_out=counted[1][number] if held_out_subset is not None else None,
            chance=1 / train_subset.classes,
        )
        for number, probe in enumerate(due)
    ]


def _counted(
    network: nn.Module, due: Sequence[Probe], part: ImageData, device: torch.device, seed: int, progress: Progress
) -> list[Share]:
    correct = correct_samples(network, part, [probe.spec for probe in due], device=device, seed=seed, progress=progress)
    return [Share.of(int(which.sum()), len(part)) for which in correct]


def is_best(results: Sequence[ProbeResult], before: Sequence[EpochRecord], probe: Probe) -> bool:
    """Whether an epoch is better than all before it, by the accuracy of a probe on the held-out samples.

    Of epochs with equal accuracies, the earliest is the best. Where no samples are held out, every epoch that was
    measured counts as better than those before it: the last epoch is the best one. An epoch after which the probe was not
    due is never better.

    Args:
        results: what the probes showed after the epoch.
        before: the epochs before it.
        probe: the probe that chooses.
    """
    accuracy = _held_out(results, probe)
    if accuracy is None:
        return bool(results) and all(result.held_out is None for result in results)
    earlier = (_held_out(record.probes, probe) for record in before)
    return all(accuracy > known for known in earlier if known is not None)


def _held_out(results: Sequence[ProbeResult], probe: Probe) -> float | None:
    found = (result.held_out for result in results if result.name == probe.name)
    share = next(found, None)
    return share.accuracy if share is not None else None


def how_best(probe: Probe, held_out: int) -> str:
    """How the best checkpoint is chosen, as a sentence for the record of the training.

    Args:
        probe: the probe that chooses.
        held_out: the number of held-out samples on which probes are measured.
    """
    if held_out == 0:
        return "No samples are held out, so that the best checkpoint is that of the last epoch."
    measured = "clean images" if probe.spec is None else probe.name
    return (
        f"The best checkpoint is the earliest one with the highest accuracy under {measured} "
        f"on {held_out} samples held out from the training data."
    )
