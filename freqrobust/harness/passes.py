"""How many passes an attack takes for a sample that it does not succeed on."""

from __future__ import annotations

from typing import NamedTuple

from freqrobust.plugins.base import Attack


class Passes(NamedTuple):
    """Passes per sample.

    Attributes:
        forwards: forward passes.
        backwards: backward passes.
    """

    forwards: float
    backwards: float = 0.0

    @property
    def work(self) -> float:
        """In forward passes; a backward pass counts as two."""
        return self.forwards + 2 * self.backwards


#: For an ensemble that does not list its parts: those of the standard version of AutoAttack, with 9 target classes and 100
#: steps for each attack that takes gradients, and with 5,000 queries.
_ENSEMBLE = Passes(7810.0, 1910.0)


#: Share of its steps that an attack with ``early_stopping`` usually makes on a robust sample.
_STOPPED = 0.3


def passes(attack: Attack, maximize: bool = False, typical: bool = False) -> Passes:
    """Passes of an attack per sample that stays robust, of a model that is not random.

    They follow from the fields ``steps`` or ``queries``, ``restarts`` and ``targets`` where it has them, and from the
    attacks that an ensemble consists of. One step is assumed where there are none of these. There are no runs towards
    target classes with ``maximize``, when the highest loss is wanted of every sample. An attack that may end a run early
    (``early_stopping``) does so with ``typical``.
    """
    parts = getattr(attack, "parts", None)
    if callable(parts):
        try:
            found = [passes(part, maximize, typical) for part in parts().values()]
        except Exception:  # only an estimate
            return _ENSEMBLE
        return Passes(sum(one.forwards for one in found), sum(one.backwards for one in found))
    if type(attack).__name__ == "AutoAttack":
        return _ENSEMBLE
    count = _count(attack, "steps") or _count(attack, "queries") or 1
    runs = (_count(attack, "restarts") or 1) + (0 if maximize else _count(attack, "targets") or 0)
    if typical and not maximize and getattr(attack, "early_stopping", False) is True:
        count = max(1, round(_STOPPED * count))
    differentiated = attack.needs_gradient and attack.kind == "adversarial"
    return Passes(float(runs * count) + 1, float(runs * count) if differentiated else 0.0)


def steps_of(plugin: object) -> int:
    """The field ``steps`` of a plugin, 0 where it has none."""
    return _count(plugin, "steps") or 0


def _count(attack: object, name: str) -> int | None:
    value = getattr(attack, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
