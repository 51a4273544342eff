"""Defenses that draw random numbers: keyed noise, majority votes, reports that can be repeated."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import Attack, InputDefense, evaluate
from freqrobust.harness.run_plan import VOTES
from freqrobust.numerics import noise


class Jitter(InputDefense):
    """Adds Gaussian noise, keyed by sample."""

    stochastic: ClassVar[bool] = True
    sigma: float = 0.3

    def transform(self, images):
        return images + self.sigma * noise.scoped_normal(images)


class Unkeyed(Jitter):
    """The same with torch's own generator: nobody can repeat it."""

    def transform(self, images):
        return images + self.sigma * torch.randn(images.shape)


class Spy(Attack):
    """Asks the model twice, and keeps what it was told to do."""

    goals: ClassVar[list[str]] = []
    seen: ClassVar[list[torch.Tensor]] = []

    def perturb(self, model, images, labels, context):
        self.goals.append(context.goal)
        self.seen.append(torch.stack([model(images), model(images)]).detach())
        return images


def run(network, digits, size, attacks=("pgd:eps=0.1,steps=3", "lfc:radius=3"), **options):
    return evaluate(
        network,
        digits,
        attacks=attacks,
        defenses=options.pop("defenses", [Jitter()]),
        oblivious=options.pop("oblivious", False),
        device="cpu",
        batch_size=size,
        **options,
    )


def content(report):
    return [
        (c.defense, c.attack, c.outcomes, c.votes, c.forwards, c.backwards, c.chance_accuracy) for c in report.cells
    ]


@pytest.mark.slow
def test_reports_do_not_depend_on_the_batch_size_nor_on_the_global_generator(network, digits) -> None:
    reports = []
    strong = {"defenses": [Jitter(sigma=1.0)], "diagnose": None}  # other draws would be other votes
    for size, global_seed in [(64, 0), (1, 1), (7, 2), (64, 3)]:
        torch.manual_seed(global_seed)
        reports.append(content(run(network, digits.first(24), size, oblivious=True, **strong)))
    assert all(report == reports[0] for report in reports[1:])


def test_the_seed_of_the_run_matters(network, digits) -> None:
    strong = {"defenses": [Jitter(sigma=1.0)]}
    first, again, other = (run(network, digits, 64, seed=seed, **strong) for seed in (0, 0, 1))
    cells = [report.cell("Jitter/clean").outcomes for report in (first, again, other)]
    assert cells[0] == cells[1] != cells[2]


def test_samples_keep_their_noise_in_a_subset(network, digits) -> None:
    """Votes of a sample are its own: the first 20 samples alone vote as they do among 64."""
    strong = {"defenses": [Jitter(sigma=1.0)], "attacks": ["clean"]}
    whole = run(network, digits, 64, **strong).cell("Jitter/clean").right()
    part = run(network, digits.first(20), 64, **strong).cell("Jitter/clean").right()
    assert np.array_equal(part, whole[:20])


def test_noise_that_is_not_keyed_shows(network, digits) -> None:
    """What the tests above would miss if they could not fail."""
    torch.manual_seed(0)
    found = {
        run(network, digits, 64, attacks=["clean"], defenses=[Unkeyed(sigma=1.0)]).cells[1].outcomes for _ in range(3)
    }
    assert len(found) > 1


def test_right_is_a_majority_of_votes_which_the_report_tells(network, digits) -> None:
    report = run(network, digits, 64)
    assert {cell.votes for cell in report.cells if cell.defense == "undefended"} == {None}
    assert {cell.votes for cell in report.cells if cell.defense == "Jitter"} == {VOTES}
    counts = torch.zeros(64, 10)
    images, labels, ids = digits.batch(torch.arange(64), torch.device("cpu"))
    for vote in range(VOTES):
        with noise.sample_scope(ids, seed=0, stream=f"vote {vote}"), torch.no_grad():
            drawn = network(Jitter().transform(images)).argmax(dim=1)
        counts[torch.arange(64), drawn] += 1
    assert report.cell("Jitter/clean").right().tolist() == (counts.argmax(dim=1) == labels).tolist()
    assert (counts.max(dim=1).values < VOTES).sum() > 0  # they did not all agree
    assert report.cell("Jitter/clean").forwards == VOTES * 64


def test_every_sample_is_attacked_and_driven_to_the_maximum(network, digits) -> None:
    Spy.goals.clear()
    Spy.seen.clear()
    report = run(network, digits, 64, attacks=[Spy()])
    assert Spy.goals == ["decide", "maximize"]
    undefended, defended = Spy.seen
    assert undefended.shape[1] == report.cell("clean").correct
    assert defended.shape[1] == 64
    assert torch.equal(undefended[0], undefended[1])
    assert not torch.equal(defended[0], defended[1])  # each pass draws afresh: averaging over passes is possible


def test_gradients_pass_through_the_noise(network, digits) -> None:
    report = run(network, digits, 64, attacks=["pgd:eps=0.3,steps=5"])
    assert report.cell("Jitter/pgd").correct < report.cell("Jitter/clean").correct - 20
    assert report.cell("Jitter/pgd").inherited == 0


def test_a_sweep_hands_nothing_over(network, digits) -> None:
    report = run(network, digits, 64, attacks=["pgd:eps=[0.05,0.3],steps=2"])
    assert [c.inherited for c in report.cells if c.defense == "Jitter"] == [0, 0, 0]


@pytest.mark.slow
def test_noise_inside_the_network_is_keyed_too(network, digits) -> None:
    """A module in the middle of a model draws in the same scope, once for every call."""

    class NoisyFeatures(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0.2 * noise.scoped_uniform(x) - 0.2 * noise.scoped_uniform(x)

    class Inside(InputDefense):
        """Noise in two places."""

        stochastic: ClassVar[bool] = True

        def transform(self, images):
            return NoisyFeatures()(images)

    reports = [content(run(network, digits, size, defenses=[Inside()])) for size in (64, 5)]
    assert reports[0] == reports[1]


@pytest.mark.parametrize("votes_for", ["undefended", "Jitter"])
def test_worst_case_is_at_most_every_cell(network, digits, votes_for) -> None:
    report = run(network, digits, 64, attacks=["pgd:eps=0.1,steps=3", "fgsm:eps=0.1", "pgd:eps=0.05,steps=3"])
    for row in (row for row in report.worst_case if row.defense == votes_for):
        cells = [c for c in report.cells if c.defense == votes_for and c.threat == row.threat]
        assert cells
        assert all(row.correct <= cell.correct for cell in cells)


class Twice(Attack):
    """Keeps how far two calls of the model are apart."""

    apart: ClassVar[list[float]] = []

    def perturb(self, model, images, labels, context):
        self.apart.append(float((model(images) - model(images)).std()))
        return images


class TwiceItself(Twice):
    """The same, and says that it averages by itself."""

    averages_draws: ClassVar[bool] = True


def test_attacks_that_do_not_average_are_shown_averages(network, digits) -> None:
    """The mean of ten draws scatters less than one draw, by about the square root of ten."""
    Twice.apart.clear()
    reports = [run(network, digits, 64, [attack()], undefended=False) for attack in (Twice, TwiceItself)]
    averaged, single = Twice.apart
    assert single / averaged == pytest.approx(10**0.5, rel=0.2)
    first, second = (report.cells[1] for report in reports)
    assert first.forwards - second.forwards == 2 * 9 * 64
    assert first.eot == 10


def test_the_report_says_over_how_many_draws(network, digits) -> None:
    report = run(network, digits, 64, ["pgd:eps=0.1,steps=1", "pgd:eps=0.1,steps=1,eot=3", "lfc:radius=3"])
    draws = {(c.defense, c.attack_spec): c.eot for c in report.cells}
    assert draws["Jitter", "pgd:eps=0.1,steps=1"] == 10
    assert draws["Jitter", "pgd:eps=0.1,steps=1,eot=3"] == 3
    assert {draws[key] for key in draws if key[0] == "undefended" or key[1] in ("clean", "lfc:radius=3")} == {None}


def test_an_image_that_is_not_changed_is_not_broken(network, digits) -> None:
    """Votes are the same draws for the clean and the attacked image, whatever the attack."""
    attacks = ["pgd:eps=0,steps=1", "fgsm:eps=0", "noise:eps=0"]
    report = run(network, digits, 64, attacks, defenses=[Jitter(sigma=1.0)], diagnose=None)
    cells = [cell for cell in report.cells if cell.defense == "Jitter"]
    assert {cell.outcomes for cell in cells} == {cells[0].outcomes}
    assert {w.outcomes for w in report.worst_case if w.defense == "Jitter"} == {cells[0].outcomes}


@pytest.mark.slow
def test_the_spelling_of_an_attack_changes_no_number(network, digits):
    first, second = (
        run(network, digits, 16, attacks=[spec]) for spec in ("pgd:eps=0.1,steps=3", "pgd: eps = 25.5/255 ,steps=03")
    )
    assert content(first) == content(second)
