"""Text of others, made fit to be printed."""

from __future__ import annotations

import unicodedata


def one_line(text: object) -> str:
    """Text of others on one line, without characters that control a terminal, a file or the direction of writing.

    Example:
        >>> one_line("two\\n lines and a \\x1b[31mcolour")
        'two lines and a \\ufffd[31mcolour'
    """
    return "".join(" " if c.isspace() else "\ufffd" if _controls(c) else c for c in " ".join(str(text).split()))


def _controls(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")


def shortened(text: object, length: int = 60) -> str:
    """Text of others on one line, cut where it is longer than a message can bear.

    Example:
        >>> shortened("9" * 5000, 10)
        '9999999999... (5000 characters)'
    """
    line = one_line(text)
    return line if len(line) <= length else f"{line[:length]}... ({len(line)} characters)"
