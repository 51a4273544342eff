"""Docstrings as the site shows them: roles of Sphinx become code, and ``Example:`` is a section of examples."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension


class Docstrings(Extension):
    """Loaded by mkdocstrings (``extensions`` in mkdocs.yml)."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = re.sub(r" *# doctest: \+\w+$", "", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`", r"`\1`", text)
