"""How records look in Python and in notebooks."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar


class Presented:
    """A record with a one-line ``repr``, a short text and a table in notebooks.

    The functions that make them are in modules that import the records. They are named here and imported when something
    is shown, so that the code that measures does not depend on the code that shows its results.
    """

    #: the module with the functions ``line``, ``text`` and ``fragment`` of this kind of record
    presenter: ClassVar[str]

    def __repr__(self) -> str:
        return str(presentation(self.presenter, "line")(self))

    def __str__(self) -> str:
        return str(presentation(self.presenter, "text")(self))

    def _repr_html_(self) -> str:
        """The table that notebooks show: HTML with everything escaped, without scripts, for light and dark pages."""
        return str(presentation(self.presenter, "fragment")(self))


def presentation(module: str, name: str) -> Any:
    """A function that presents a record, by the name of its module in ``freqrobust.results``."""
    return getattr(import_module(f"freqrobust.results.{module}"), name)
