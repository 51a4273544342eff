"""Text that is shown to people: one line, without control characters; near misses of names."""

from __future__ import annotations

import difflib
import logging
import shutil
import sys
import textwrap
import traceback
import unicodedata
from collections.abc import Iterable
from pathlib import PurePath
from typing import IO

from freqrobust.core.errors import FreqRobustError

#: Longest reason for a failed cell, and what a longer one ends in.
LONGEST = 300
REST = "... (whole text with --debug)"
#: Where errors are logged with their tracebacks, at the level DEBUG.
LOG = logging.getLogger("freqrobust")


def one_line(text: object) -> str:
    """Text of others on one line, without characters that control a terminal, a file or the direction of writing.

    Example:
        >>> one_line("two\\n lines and a \\x1b[31mcolour")
        'two lines and a \\ufffd[31mcolour'
    """
    return "".join(" " if c.isspace() else "\ufffd" if _controls(c) else c for c in " ".join(str(text).split()))


def shortened(text: object, longest: int = LONGEST) -> str:
    """:func:`one_line` of at most so many characters; a longer one says that there is more.

    Example:
        >>> shortened("a" * 100, 40)
        'aaaaaaaaaaa... (whole text with --debug)'
    """
    line = one_line(text)
    return line if len(line) <= longest else f"{line[: longest - len(REST)]}{REST}"


def brief(spec: str) -> str:
    """The last part of a path; whatever else is given stays as it is.

    Example:
        >>> brief("/data/cifar10/test.npz"), brief("timm:org/name")
        ('test.npz', 'timm:org/name')
    """
    return PurePath(spec).name or spec if "/" in spec and ":" not in spec else spec


def several_lines(text: str) -> str:
    """Text of others with its lines and their indentation kept, and made harmless as :func:`one_line` does."""
    return "".join(c if c in "\n " else " " if c.isspace() else "\ufffd" if _controls(c) else c for c in text)


def describe_error(error: BaseException) -> str:
    """Type and message of any error, on one line; of an error of freqrobust the message alone."""
    try:
        text = one_line(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # an error of a user can fail to describe itself
        text = ""
    if isinstance(error, FreqRobustError):
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def reason_of(name: str, error: BaseException) -> str:
    """Why something failed, in one line that is not too long; the whole is logged with its traceback."""
    LOG.debug("%s failed", name, exc_info=error)
    text = describe_error(error)
    return shortened(text if isinstance(error, FreqRobustError) else f"{name}: {text}")


def print_line(text: object = "", target: IO[str] | None = None) -> None:
    """A line of text, by default on standard output; on a terminal it is broken between words where it does not fit."""
    target = target if target is not None else sys.stdout
    line = one_line(text)
    if target.isatty():
        width = shutil.get_terminal_size().columns
        line = "\n".join(textwrap.wrap(line, width, break_on_hyphens=False)) or line
    print(line, file=target, flush=True)


def print_error(message: object, longest: int | None = None) -> None:
    """``freqrobust: `` and a message as one line on standard error."""
    line = one_line(message) if longest is None else shortened(message, longest)
    print_line(f"freqrobust: {line}", sys.stderr)


def print_traceback(error: BaseException) -> None:
    """A traceback on standard error, made harmless."""
    print(several_lines("".join(traceback.format_exception(error))), end="", file=sys.stderr)


class DebugOutput(logging.Handler):
    """Shows what is logged, whole, on standard error as it is at that moment: a progress bar may have replaced it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(several_lines(self.format(record)), file=sys.stderr)

    def __enter__(self) -> DebugOutput:
        self.before = LOG.level
        LOG.setLevel(logging.DEBUG)
        LOG.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        LOG.removeHandler(self)
        LOG.setLevel(self.before)


def _controls(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")


def excerpt(text: object, length: int = 60) -> str:
    """Text of others on one line, cut where it is longer than a message can bear.

    Example:
        >>> excerpt("9" * 5000, 10)
        '9999999999... (5000 characters)'
    """
    line = one_line(text)
    return line if len(line) <= length else f"{line[:length]}... ({len(line)} characters)"


def near_miss(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when something known is close, whatever its case, else an empty string."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(names), n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]!r}?" if close else ""
