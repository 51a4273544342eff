"""Probes: what is measured of a network while it is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from freqrobust import evaluate, load_data
from freqrobust.core.errors import SpecError
from freqrobust.data.dataset import ImageData
from freqrobust.experiments.probes import (
    Probe,
    check_probes,
    choose_best,
    how_best,
    is_best,
    measure_probes,
    parse_probes,
)
from freqrobust.harness.correctness import correct_samples
from freqrobust.methods.madry import Madry
from freqrobust.methods.natural import Natural
from freqrobust.models.architectures import SmallCNN
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics.statistics import wilson
from freqrobust.results.training_record import EpochRecord, ProbeResult, Share
from freqrobust.training.loop import Training, fit
from freqrobust.training.plan import sgd_plan

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def train() -> ImageData:
    return load_data("digits", split="train", limit=320)


@pytest.fixture(scope="module")
def trained(train: ImageData) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SmallCNN()
    return fit(network, train, sgd_plan(4, 0.1, batch_size=64), device=CPU)


class Passes:
    """A number of images that copies of a network share."""

    def __init__(self) -> None:
        self.images = 0

    def __deepcopy__(self, memo: object) -> Passes:
        return self


class Counting(nn.Module):
    """Counts the images that a network and its copies are given, without the zeros with which memory is measured."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.passes = Passes()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes.images += int((images.flatten(1).abs().amax(dim=1) > 0).sum())
        logits: torch.Tensor = self.network(images)
        return logits

    def count(self) -> int:
        """Images since the last call."""
        counted, self.passes.images = self.passes.images, 0
        return counted


def names(probes: list[Probe]) -> list[str]:
    return [probe.name for probe in probes]


def test_probes_of_a_method_and_a_pair_of_filters_are_the_default() -> None:
    assert names(parse_probes(None, Natural(), SHAPE)) == ["clean", "lfc:radius=2", "hfc:radius=2"]
    assert names(parse_probes(None, Natural(), (3, 32, 48))) == ["clean", "lfc:radius=8", "hfc:radius=8"]
    adversarial = parse_probes(None, Madry(eps=8 / 255), None)
    assert names(adversarial) == ["clean", "pgd:eps=8/255,norm=linf,steps=10"]
    assert names(parse_probes([], Madry(), SHAPE)) == ["clean"]


def test_sweeps_periods_and_short_names() -> None:
    given = ["lfc:radius=[2,3]", "pgd:eps=2/255,steps=10 @every=5", "pgd:eps=2/255,steps=20", "hfc:radius=2"]
    probes = parse_probes(given, Natural())
    assert names(probes) == [
        "clean",
        "lfc:radius=2",
        "lfc:radius=3",
        "pgd:eps=2/255,steps=10",
        "pgd:eps=2/255,steps=20",
        "hfc:radius=2",
    ]
    assert [probe.every for probe in probes] == [1, 1, 1, 5, 1, 1]
    assert [probe.label for probe in probes] == ["clean", "lfc:2", "lfc:3", "pgd:10", "pgd:20", "hfc"]
    assert [probe.kind for probe in probes] == ["clean", "shift", "shift", "adversarial", "adversarial", "shift"]


def test_probes_that_measure_the_same_are_one_at_the_shorter_period() -> None:
    given = ["pgd:eps=8/255@every=5", "pgd:eps=8/255,norm=linf@every=3", "clean@every=2", "clean"]
    assert [(probe.name, probe.every) for probe in parse_probes(given, Natural())] == [
        ("clean", 1),
        ("pgd:eps=8/255", 3),
    ]
    assert parse_probes(["clean@every=2"], Natural())[0].every == 2


def test_a_probe_is_due_at_its_period_and_at_the_end() -> None:
    probe = Probe("lfc", None, every=3)
    assert [epoch for epoch in range(1, 9) if probe.due(epoch, 8)] == [3, 6, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smooth:rho=0.5", r"probe 'smooth:rho=0.5': unknown attack 'smooth' \(attacks: aa, "),
        ("pgd:epps=2/255", "probe 'pgd:epps=2/255': pgd: unknown parameter 'epps'; did you mean 'eps'"),
        ("pgd:eps=2/255@evry=5", "expected @every=N behind the spec, but got @evry"),
        ("pgd:eps=2/255@every=0", "every should be a number of epochs from 1 to 1000000, but got '0'"),
        ("pgd:eps=2/255@every=1.5", "every should be a number of epochs from 1 to 1000000, but got '1.5'"),
        ("pgd:eps=2/255@every=", "every should be a number of epochs from 1 to 1000000, but got ''"),
        ("fmn", "probe 'fmn': fmn has no budget"),
        ("", "probe '': empty attack spec"),
        ("@every=2", "probe '@every=2': empty attack spec"),
    ],
)
def test_a_probe_that_is_no_attack_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        parse_probes([text], Natural())
    assert "\n" not in str(error.value)


def test_a_probe_that_does_not_fit_the_images_is_refused_before_the_training(train: ImageData) -> None:
    with pytest.raises(SpecError, match="saturate takes images of 3 channels"):
        check_probes(parse_probes(["corruption:name=saturate,severity=3"], Natural()), train)
    check_probes(parse_probes(None, Madry(), train.shape), train)


def test_the_best_checkpoint_is_chosen_by_the_first_adversarial_probe_or_a_named_one() -> None:
    probes = parse_probes(["lfc:radius=2", "pgd:eps=2/255", "pgd:eps=8/255"], Natural())
    assert choose_best(probes, None).name == "pgd:eps=2/255"
    assert choose_best(probes, "clean").name == "clean"
    assert choose_best(probes, "pgd:norm=linf,eps=8/255").name == "pgd:eps=8/255"
    assert choose_best(probes[:2], None).name == "clean"
    expected = "one of the probes clean, lfc:radius=2, pgd:eps=2/255, pgd:eps=8/255, but got"
    for given in ("hfc:radius=2", "pgd:eps=[2/255,8/255]"):
        with pytest.raises(SpecError, match=expected):
            choose_best(probes, given)


def test_probes_are_measured_as_by_evaluate(trained: nn.Module, train: ImageData) -> None:
    held_out = load_data("digits", split="test", limit=60)
    subset = train.limit(50)
    probes = parse_probes(["pgd:eps=0.1,steps=5", "lfc:radius=2", "hfc:radius=2"], Natural())
    results = measure_probes(trained, probes, 3, 9, subset, held_out, device=CPU, seed=4)
    assert [result.name for result in results] == ["clean", "pgd:eps=0.1,steps=5", "lfc:radius=2", "hfc:radius=2"]
    for part, shares in ((subset, [r.train for r in results]), (held_out, [r.held_out for r in results])):
        report = evaluate(trained, part, attacks=[probe.spec for probe in probes if probe.spec is not None], seed=4)
        assert [share.correct for share in shares] == [cell.correct for cell in report.cells]
        assert all(share.n == len(part) and share.ci95 == wilson(share.correct, share.n) for share in shares)
    assert {result.chance for result in results} == {0.1}
    assert results[0].train.accuracy > results[1].train.accuracy


def test_only_what_is_due_is_measured(trained: nn.Module, train: ImageData) -> None:
    probes = parse_probes(["clean@every=2", "lfc:radius=2@every=3"], Natural())
    found = [
        [result.name for result in measure_probes(trained, probes, epoch, 7, train.limit(20), None, device=CPU)]
        for epoch in range(1, 8)
    ]
    clean, lfc = "clean", "lfc:radius=2"
    assert found == [[], [clean], [lfc], [clean], [], [clean, lfc], [clean, lfc]]


def test_probes_add_only_their_own_passes(trained: nn.Module, train: ImageData, monkeypatch) -> None:
    monkeypatch.setattr("freqrobust.harness.target_model.fold_batch_norm", lambda *given: pytest.fail("not needed"))
    network = Counting(trained)
    n, held_out = 40, 24
    parts = train.limit(n), load_data("digits", split="test", limit=held_out)
    shifts = ["lfc:radius=2", "hfc:radius=2", "lfc:radius=2.0"]
    measure_probes(network, parse_probes(shifts, Natural()), 1, 1, *parts, device=CPU)
    assert network.count() == 3 * (n + held_out)
    measure_probes(network, parse_probes(["clean@every=2", *shifts], Natural()), 1, 2, *parts, device=CPU)
    assert network.count() == 2 * (n + held_out)  # the clean images are not due, and shifts do without them


def test_an_attack_adds_its_steps_and_one_prediction(trained: nn.Module, train: ImageData) -> None:
    network, part = Counting(trained), train.limit(40)
    correct = int(correct_samples(trained, part, [None], device=CPU)[0].sum())
    measure_probes(network, parse_probes(["fgsm:eps=0.02"], Natural()), 1, 1, part, None, device=CPU)
    # four images check that the folded copy equals the network
    assert network.count() == len(part) + correct + correct + 2 * 4


def test_probes_leave_the_training_as_it_is(train: ImageData) -> None:
    def trained_with(probed: bool) -> str:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = nn.Sequential(SmallCNN(), nn.Dropout(0.2))
        training = Training(network, train, sgd_plan(2, 0.05, batch_size=64), device=CPU)
        for _ in range(2):
            torch.manual_seed(5)
            numbers = training.run_epoch()
            if probed:
                before = network.training, [p.requires_grad for p in network.parameters()]
                probes = parse_probes(["pgd:eps=0.05,steps=2"], Natural())
                measure_probes(training.evaluated, probes, numbers.epoch, 2, train.limit(20), None, device=CPU)
                assert before == (network.training, [p.requires_grad for p in network.parameters()])
        return state_hash(training.finish())

    assert trained_with(True) == trained_with(False)


def epoch(number: int, correct: int | None, *, held_out: bool = True, name: str = "clean") -> EpochRecord:
    """An epoch with one probe; None where it was not due."""
    shares = {
        "train": Share.of(90, 100),
        "held_out": Share.of(correct, 100) if held_out and correct is not None else None,
    }
    probes = [ProbeResult(name=name, label=name, kind="clean", chance=0.1, **shares)] if correct is not None else []
    return EpochRecord(epoch=number, loss=1.0, accuracy=0.5, learning_rate=0.1, seconds=1.0, probes=probes)


def test_the_best_epoch_is_the_earliest_with_the_highest_accuracy() -> None:
    probe, before = Probe("clean", None), []
    best = []
    for number, correct in enumerate([None, 0, 60, None, 60, 59, 61, 61], start=1):
        record = epoch(number, correct)
        best.append(is_best(record.probes, before, probe))
        before.append(record)
    assert best == [False, True, True, False, False, False, True, False]


def test_without_held_out_samples_the_last_epoch_is_the_best() -> None:
    probe, before = Probe("pgd", None), []
    for number, correct in enumerate([70, 60, None, 50], start=1):
        record = epoch(number, correct, held_out=False)
        assert is_best(record.probes, before, probe) == (correct is not None)
        before.append(record)
    assert how_best(probe, 0) == "No samples are held out, so that the best checkpoint is that of the last epoch."
    assert "earliest one with the highest accuracy under clean images on 50 samples" in how_best(probe, 50)
