"""Reporters: plugins that show a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from freqrobust.core.errors import PluginError
from freqrobust.plugins.plugin import Plugin
from freqrobust.plugins.registry import Registry

if TYPE_CHECKING:
    from typing import IO

    from freqrobust.results.report import Report


class Reporter(Plugin):
    """Something that shows a report. Subclasses implement :meth:`render`, and :meth:`render_many` where they can."""

    #: modules that rendering imports, each with what to install for it; looked for before a long run
    requires: ClassVar[Mapping[str, str]] = {}

    def render(self, report: Report, target: IO[str]) -> None:
        """Write ``report`` to the open text file ``target``."""
        raise PluginError(f"{type(self).__name__} does not implement render()")

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        """Write several reports, by name, as one: a comparison of all that they measured."""
        raise PluginError(f"{type(self).__name__} shows one report at a time")


class Publisher(Reporter):
    """A reporter whose target is a place of its own instead of a file: a directory, or a project of a tracker.

    Subclasses implement :meth:`publish`, and :meth:`render` and :meth:`render_many` for standard output.
    """

    #: what a target is, for messages
    place: ClassVar[str] = "PLACE"

    def check_target(self, target: str) -> None:
        """Raise early if nothing could be published to ``target`` at the end.

        Raises:
            FreqRobustError: the target is wrong, or cannot be reached.
        """

    def publish(self, reports: Mapping[str, Report], target: str) -> str:
        """Publish reports, by name; where they are afterwards, for the user."""
        raise PluginError(f"{type(self).__name__} does not implement publish()")


reports = Registry("report", "freqrobust.reports", Reporter, "render")
