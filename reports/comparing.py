"""What the reports that compare have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from freqrobust.results.reporter import Reporter

if TYPE_CHECKING:
    from freqrobust.results.leaderboard import Board
    from freqrobust.results.report import Report


class Comparing(Reporter):
    """A report that shows several results together, as a leaderboard."""

    rank_by: str | None = Field(
        None,
        description="what a leaderboard ranks by: clean, lfc or a threat such as Linf 8/255 "
        "(default: the worst case at the largest eps)",
    )

    def board(self, reports: Mapping[str, Report]) -> Board:
        """The leaderboard of these reports."""
        from freqrobust.results.leaderboard import board

        return board(reports, self.rank_by)
