"""Text of others on a terminal: no control characters, one line, not too long, and whole where it is asked for."""

from __future__ import annotations

import logging

import pytest

from freqrobust.core.errors import SpecError
from freqrobust.core.progress import Screen
from freqrobust.core.text import LOG, DebugOutput, one_line, print_traceback, reason_of, several_lines, shortened

EVIL = "\x1b[2Jwiped\rhidden\u202egnp.exe\x9b31m\x07"
FORBIDDEN = set("\x1b\r\u202e\x9b\x07")


@pytest.mark.parametrize("make", [one_line, shortened, several_lines])
def test_nothing_controls_the_terminal(make) -> None:
    assert not FORBIDDEN & set(make(EVIL))
    assert "wiped" in make(EVIL)


def test_long_texts_say_that_there_is_more() -> None:
    text = shortened("word " * 2000)
    assert len(text) == 300
    assert text.endswith("... (whole text with --debug)")
    assert shortened("word " * 10) == " ".join(["word"] * 10)


def test_reasons_name_the_error_unless_it_is_ours() -> None:
    assert reason_of("pgd", ValueError("a\nb")) == "pgd: ValueError: a b"
    assert reason_of("pgd", SpecError("what would work")) == "what would work"
    assert len(reason_of("pgd", RuntimeError("x" * 6000))) == 300


def test_the_whole_error_is_logged_for_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    level = LOG.level
    with DebugOutput():
        reason_of("pgd", RuntimeError("x" * 6000 + EVIL))
    err = capsys.readouterr().err
    assert "x" * 6000 in err
    assert "Traceback" not in err.splitlines()[0]
    assert not FORBIDDEN & set(err)
    assert LOG.level == level
    assert not any(isinstance(handler, DebugOutput) for handler in LOG.handlers)
    reason_of("pgd", RuntimeError("again"))
    assert capsys.readouterr().err == ""
    assert isinstance(LOG, logging.Logger)


def test_tracebacks_keep_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_traceback(RuntimeError(f"first\n  second{EVIL}"))
    err = capsys.readouterr().err
    assert "RuntimeError: first\n  second" in err
    assert not FORBIDDEN & set(err)


def test_the_screen_prints_harmless_lines(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet=False)
    with screen:
        screen.begin(EVIL, 3)
        screen.say(f"{EVIL}\nsecond")
        screen.end(EVIL)
    err = capsys.readouterr().err
    assert not FORBIDDEN & set(err)
    assert len(err.splitlines()) == 2
