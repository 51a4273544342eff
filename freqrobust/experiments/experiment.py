"""What a published experiment is: a plugin that trains and measures, and says which trends it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from freqrobust.core.errors import PluginError
from freqrobust.plugins.plugin import Plugin
from freqrobust.plugins.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from freqrobust.experiments.bench import Bench
    from freqrobust.results.findings import Findings


class Experiment(Plugin):
    """A published experiment. Subclasses implement :meth:`run`; the docstring's first line says what it shows."""

    #: the paper, with its table or figure: "Wang et al. 2020, table 1"
    source: ClassVar[str] = ""
    command: ClassVar[str | None] = "reproduce"

    def run(self, bench: Bench) -> Findings:
        """Train and measure at ``bench.scale``. The caller fills in name, data, environment and seconds."""
        raise PluginError(f"{type(self).__name__} does not implement run()")

    def draw(self, findings: Findings) -> Figure | None:
        """A picture of the findings; by default the curves, a panel for each title, or else the measured values."""
        from freqrobust.experiments.pictures import draw_curves, draw_measured

        return draw_curves(findings.curves) or draw_measured(findings.measured)


experiments = Registry("experiment", "freqrobust.experiments", Experiment, "run")
