"""What every check of the full part is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from freqrobust.harness.diagnosis.findings import Finding

if TYPE_CHECKING:
    from freqrobust.harness.diagnosis.examination import Examination


@dataclass(frozen=True)
class FullCheck(ABC):
    """One check.

    Attributes:
        name: as reports show it, different for each check.
        source: the paper that recommends it.
        misclassification_only: it says nothing about other criteria.
        first: other checks use what it measures, so it comes before them where several processes share the checks.
    """

    #: Checks of the same unit use the same attacks, so one process makes all of them.
    unit: ClassVar[str] = ""

    name: str
    source: str
    misclassification_only: bool = field(default=False, kw_only=True)
    first: bool = field(default=False, kw_only=True)

    @abstractmethod
    def run(self, examination: Examination) -> Finding:
        """Run the check.

        Attacks are run through ``examination.attack``, which runs each of them once, resumes it from the journal and
        counts its examples in the worst case.

        Raises:
            NotApplicable: the check cannot be run.
        """

    def passes(self, stochastic: bool) -> float:
        """A guess of the passes for a sample, beside those of the checks that come first; a backward pass counts as two.

        Args:
            stochastic: the defense is random; its draws are not counted here.
        """
        return 0.0
