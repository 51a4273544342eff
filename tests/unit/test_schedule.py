"""How much of a run is done, and how long the rest is expected to take."""

from __future__ import annotations

import random

import pytest

from freqrobust.core.progress import Screen
from freqrobust.core.schedule import Piece, Schedule, clock_text


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def schedule(*work: float) -> tuple[Schedule, Clock]:
    clock = Clock()
    return Schedule([Piece(f"p{i}", one, (f"kind{i % 2}",)) for i, one in enumerate(work)], clock), clock


def test_nothing_is_known_at_first() -> None:
    plan, _ = schedule(1, 2, 3)
    assert plan.remaining() is None
    assert plan.share() == 0
    assert plan.status() == "  0 %, cell 1 of 3, 0:00, estimating the time"


def test_the_first_piece_says_how_long_the_others_take() -> None:
    plan, clock = schedule(2, 4)
    plan.begin("p0", 10)
    clock.now += 1
    plan.advance(5)  # half of it took a second: another one, and four for the other piece
    assert plan.remaining() == pytest.approx(1 + 4)
    assert plan.status() == " 16 %, cell 1 of 2, 0:01, about 0:05 left"
    assert plan.status(wide=False) == " 16 %, cell 1 of 2, about 0:05 left"


def test_equal_pieces_of_several_models_are_counted_each() -> None:
    clock = Clock()
    plan = Schedule([Piece("clean", 100.0)] * 2, clock)
    plan.begin("clean", 100)
    clock.now += 1
    plan.advance(50)  # half of the first model took a second: another one, and two for the second model
    assert plan.remaining() == pytest.approx(3)
    plan.finish("clean")
    assert plan.remaining() == pytest.approx(1)
    plan.begin("clean", 100)
    assert plan.remaining() == pytest.approx(1)


def test_a_long_batch_moves() -> None:
    plan, clock = schedule(2, 4)
    plan.begin("p0", 10)
    shares = []
    for step in range(1, 9):
        clock.now += 1
        plan.within(step)  # a sample a second, all in one batch
        shares.append(plan.share())
    assert shares == pytest.approx([step / 30 for step in range(1, 9)])
    plan.within(0)  # the batch is repeated
    assert plan.share() == shares[-1]
    plan.advance(10)
    assert plan.remaining() == pytest.approx(16)


def test_samples_that_are_skipped_say_nothing_about_the_others() -> None:
    plan, clock = schedule(1, 1)
    plan.begin("p0", 10)
    plan.skip(6)
    clock.now += 1
    plan.within(1)
    assert plan.remaining() == pytest.approx(3 + 4)


def test_the_bar_does_not_stand_still_where_more_is_left_than_expected() -> None:
    plan, clock = schedule(1, 1, 1)
    plan.begin("p0", 1)
    clock.now += 1
    plan.finish("p0")
    assert plan.share() == pytest.approx(1 / 3)
    plan.begin("p1", 10)
    for _ in range(10):  # ten times what it was expected to take
        before = plan.share()
        clock.now += 1
        plan.advance(1)
        assert before < plan.share() < 0.99
    plan.finish("p1")
    plan.finish("p2")
    assert plan.share() == 1


def test_cells_are_counted_and_checks_are_none() -> None:
    plan = Schedule([Piece("a", 1), Piece("transfer", 1, cells=2), Piece("checks", 1, cells=0)], Clock())
    found = []
    for piece in plan.pieces:
        plan.begin(piece.label, 1)
        found.append(plan.cell())
        plan.finish(piece.label)
        found.append(plan.cell())
    assert found == ["cell 1 of 3", "cell 2 of 3", "cell 2 of 3", "", "", ""]
    assert Schedule([Piece("a", 1), Piece("checks", 1, cells=0)], Clock()).cell() == ""


def test_measured_kinds_replace_the_guess() -> None:
    plan, clock = schedule(1, 1, 1, 1)
    for label, seconds in (("p0", 1), ("p1", 10)):
        plan.begin(label, 1)
        clock.now += seconds
        plan.finish(label)
    assert plan.remaining() == pytest.approx(1 + 10)  # p2 is of the kind of p0, p3 of that of p1
    assert plan.share() == pytest.approx(0.5)


def test_pieces_from_a_journal_take_no_time() -> None:
    plan, clock = schedule(1, 1, 1)
    plan.finish("p0")
    plan.finish("p0")  # not in the plan any more
    assert plan.remaining() is None
    plan.begin("p1", 1)
    clock.now += 4
    plan.finish("p1")
    assert plan.remaining() == pytest.approx(4)
    plan.finish("p2")
    assert (plan.remaining(), plan.share()) == (0, 1)


def test_the_same_label_twice_is_two_pieces() -> None:
    clock = Clock()
    plan = Schedule([Piece("a", 1), Piece("a", 1)], clock)
    for left in (1, 0):
        plan.begin("a", 1)
        clock.now += 1
        plan.finish("a")
        assert len(plan.pending) == left


def test_parts_of_a_piece_and_other_work() -> None:
    plan, clock = schedule(1, 1)
    plan.begin("training the defense", 100)
    plan.advance(50)
    assert plan.remaining() is None
    plan.begin("p0, first check", 10)
    clock.now += 1
    plan.begin("p0, second check", 10)
    clock.now += 1
    plan.finish("p0")
    assert plan.rates["kind0"].seconds == 2


def test_the_share_never_falls_and_stays_below_1() -> None:
    draws = random.Random(0)
    for _ in range(50):
        plan, clock = schedule(*(draws.uniform(0, 5) for _ in range(6)))
        shares = [plan.share()]
        for number in range(6):
            total = draws.randint(1, 5)
            plan.begin(f"p{number}", total)
            for _ in range(draws.randint(0, total)):
                clock.now += draws.expovariate(1)
                plan.advance(1)
                shares.append(plan.share())
            plan.finish(f"p{number}")
            shares.append(plan.share())
            assert (shares[-1] == 1) == (number == 5)
        assert shares == sorted(shares)


def test_times() -> None:
    assert [clock_text(s) for s in (0, 59.6, 61, 3600)] == ["0:00", "1:00", "1:01", "1:00:00"]


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(verbose: bool, bar: bool, every: float) -> list[str]:
        monkeypatch.setattr(Screen, "HEARTBEAT", every)
        with Screen(False, verbose, bar) as screen:
            screen.plan([Piece("a", 1), Piece("b", 1)])
            assert screen.schedule is not None
            screen.schedule.clock = lambda: screen.schedule.started  # type: ignore[union-attr]
            screen.begin("a", 2)
            screen.advance(1)
            screen.end("a: done")
            screen.finish("a")
            screen.fail("b: failed: no")
            screen.finish("b")
        return capsys.readouterr().err.splitlines()

    assert shown(False, True, 1e9) == ["b: failed: no"]
    assert shown(True, True, 1e9) == ["a: done", "b: failed: no"]
    assert shown(False, False, 0) == ["b: failed: no"]
    often = shown(False, True, 0)
    assert len(often) > 3
    with Screen(False, verbose=False) as screen:  # a run without a plan
        screen.begin("training", 4)
        screen.advance(1)
        screen.advance(2)
        screen.end("trained")
    assert capsys.readouterr().err.splitlines() == ["training: 1 of 4", "training: 3 of 4"]
    assert "about 0:00 left: a" in often[2]
