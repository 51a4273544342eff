"""A command in a pseudo-terminal, and the little of a terminal that is needed to see what it leaves on the screen."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from support.waiting import PATIENCE

_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


@dataclass
class Screen:
    """The lines of a terminal of endless height; characters with their colours.

    Attributes:
        columns: its width.
        rows: of each line the characters, each with the codes that colour it.
        wrapped: how many lines were longer than the terminal is wide.
        unknown: what it was sent and does not know.
    """

    columns: int
    rows: list[list[tuple[str, str]]] = field(default_factory=lambda: [[]])
    row: int = 0
    column: int = 0
    style: str = ""
    wrapped: int = 0
    unknown: list[str] = field(default_factory=list)

    def feed(self, text: str) -> None:
        """Show what a program wrote."""
        position = 0
        while position < len(text):
            found = _SEQUENCE.match(text, position)
            if found is not None:
                self._control(found[1], found[2])
                position = found.end()
                continue
            self._put(text[position])
            position += 1

    def _put(self, character: str) -> None:
        if character == "\n":
            self._down()
        elif character == "\r":
            self.column = 0
        elif not character.isprintable():
            self.unknown.append(repr(character))
        else:
            if self.column == self.columns:
                self.wrapped += 1
                self._down()
                self.column = 0
            line = self.rows[self.row]
            line += [(" ", "")] * (self.column + 1 - len(line))
            line[self.column] = (character, self.style)
            self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([])

    def _control(self, parameters: str, letter: str) -> None:
        if letter == "m":
            self.style = "" if parameters in ("", "0") else f"{self.style}\x1b[{parameters}m"
        elif letter == "A":
            self.row = max(0, self.row - int(parameters or 1))
        elif letter == "K" and parameters == "2":
            self.rows[self.row] = []
        elif (parameters, letter) not in (("?25", "l"), ("?25", "h")):
            self.unknown.append(f"{parameters}{letter}")

    @property
    def lines(self) -> list[str]:
        """What is to be seen, without the empty lines at the end."""
        texts = ["".join(character for character, _ in row).rstrip() for row in self.rows]
        while texts and not texts[-1]:
            texts.pop()
        return texts

    def ansi(self) -> str:
        """The same with its colours."""
        shown = self.rows[: len(self.lines)]
        return "\n".join(
            "".join(
                f"{style}{''.join(character for character, _ in cells)}\x1b[0m"
                for style, cells in itertools.groupby(row, key=lambda cell: cell[1])
            )
            for row in shown
        )


@dataclass
class Session:
    """How a command ended in a terminal.

    Attributes:
        code: its exit code.
        screen: what it left there.
        first: seconds until the first character.
        text: all that it wrote.
        frames: the lines of the screen whenever the cursor goes back to the beginning of a line, and at the end.
    """

    code: int
    screen: Screen
    first: float
    text: str
    frames: list[list[str]]


def run(
    arguments: Sequence[str], columns: int = 80, environment: Mapping[str, str] | None = None, timeout: float = PATIENCE
) -> Session:
    """Run a program in a terminal of that width, and wait for its end.

    Raises:
        TimeoutError: it takes longer.
    """
    own, other = _opened(columns)
    start = time.perf_counter()
    process = subprocess.Popen(
        list(arguments),
        stdin=other,
        stdout=other,
        stderr=other,
        env={**_environment(), "OMP_NUM_THREADS": "1", **(environment or {})},
    )
    os.close(other)
    try:
        screen, frames, first, text = _shown(own, columns, start, timeout)
    finally:
        if process.poll() is None and time.perf_counter() - start > timeout:
            process.kill()
        os.close(own)
    return Session(process.wait(timeout=timeout), screen, first, text, frames)


def freqrobust(arguments: Sequence[str], columns: int = 80, timeout: float = PATIENCE) -> Session:
    """Run the command in a copy of this process, in which torch is imported already, in a terminal of that width."""
    from freqrobust.cli.main import main

    own, other = _opened(columns)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a copy of a process with several threads, of which it uses none
        child = os.fork()
    if child == 0:
        code = 70
        try:
            for number in (0, 1, 2):
                os.dup2(other, number)
            kept = _environment()
            os.environ.clear()
            os.environ.update(kept)
            sys.stdin, sys.stdout, sys.stderr = (open(n, mode) for n, mode in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115
            try:
                main(list(arguments))
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(other)
    try:
        screen, frames, first, text = _shown(own, columns, start, timeout)
    finally:
        os.close(own)
    _, status = os.waitpid(child, 0)
    return Session(os.waitstatus_to_exitcode(status), screen, first, text, frames)


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    return {**kept, "TERM": "xterm-256color"}


def _opened(columns: int) -> tuple[int, int]:
    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    return own, other


def written(own: int, timeout: float = PATIENCE) -> Iterator[bytes]:
    """What comes through a terminal until its other end is closed.

    Raises:
        TimeoutError: that takes longer.
    """
    until = time.monotonic() + timeout
    while True:
        if not select.select([own], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError(f"still running after {timeout:g} s")
        try:
            portion = os.read(own, 65536)
        except OSError:  # Linux says so where the other end is closed
            return
        if not portion:
            return
        yield portion


def _shown(own: int, columns: int, start: float, timeout: float) -> tuple[Screen, list[list[str]], float, str]:
    """What comes through a terminal until it is closed: the screen, its states, the seconds until the first, the text."""
    first, received = 0.0, b""
    for portion in written(own, timeout - (time.perf_counter() - start)):
        first = first or time.perf_counter() - start
        received += portion
    text = received.decode("utf-8", "ignore")
    screen, frames = Screen(columns), []
    for part in re.split("(?=\r)", text):  # not as it was read, which depends on which process was the faster one
        screen.feed(part)
        frames.append(screen.lines)
    return screen, frames, first, text
