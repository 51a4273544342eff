"""How far a batch under attack is, from the passes that are counted anyway: attacks need not report anything."""

from __future__ import annotations

import math
import time

from freqrobust.core.progress import Progress, within

#: Share of the expected passes from which on the rest is only approached: an attack may take more than was expected.
_CERTAIN = 0.9


class Pace:
    """Reports progress inside of batches, a few times a second.

    What is left of a batch is estimated as its remaining passes, with as many images as the last pass had: so samples
    that leave early bring the end nearer. The estimate never reaches the whole batch, which only its end does.

    Args:
        progress: is told.
    """

    #: seconds between two reports
    INTERVAL = 0.1

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.expected = 1.0
        self.size = 0
        self.taken = self.made = self.shown = 0.0
        self.reported = time.monotonic()

    def begin(self, size: int) -> None:
        """A batch of that many samples begins."""
        self.size = size
        self.taken = self.made = self.shown = 0.0

    def end(self) -> None:
        """The batch is finished, or will be repeated."""
        self.size = 0

    def passed(self, images: int, differentiated: bool) -> None:
        """Count a pass of some images; a forward pass that is differentiated counts as three.

        It only counts, so that nothing waits for the device.
        """
        if self.size:
            weight = 3.0 if differentiated else 1.0
            self.made += weight * images
            self.taken += weight * max(1.0, images / self.size)
        now = time.monotonic()
        if now - self.reported < self.INTERVAL:
            return
        self.reported = now
        if self.size:
            left = self._left() * min(images, self.size)
            self.shown = max(self.shown, self.size * self.made / (self.made + left))
        within(self.progress, self.shown if self.size else 0.0)

    def _left(self) -> float:
        """Passes per sample that are still expected; always more than 0."""
        certain, rest = _CERTAIN * self.expected, (1 - _CERTAIN) * self.expected
        if self.taken <= certain:
            return self.expected - self.taken
        return max(rest * math.exp(-(self.taken - certain) / rest), 1e-6)
