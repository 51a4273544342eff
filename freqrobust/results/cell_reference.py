"""References to cells, worst cases and sweeps, of a report or of a run that is still to come.

A name is ``[DEFENSE/]WHAT[@oblivious]``::

    WHAT     clean | ATTACK | worst[-NORM[-EPS]] | sweep[-ATTACK]
    ATTACK   pgd | pgd:eps=8/255 (these parameters; the others may be anything) | a whole spec
    DEFENSE  smooth | smooth:rho=0.5 | undefended (or none) | * (every defense)

It stands for all that it fits: ``pgd`` for each eps of a sweep. Without a defense it is the undefended model where
that is measured, else every defense.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import fraction
from freqrobust.core.text import near_miss
from freqrobust.numerics.threat import Threat
from freqrobust.plugins.specs import UNDEFENDED, UNDEFENDED_NAMES, list_items, parse_params

if TYPE_CHECKING:
    from freqrobust.results.cells import Cell, WorstCase

OBLIVIOUS = "@oblivious"
#: Names in an error message, at most.
LISTED = 16


@dataclass(frozen=True)
class CellReference:
    """What a name such as ``smooth/pgd`` stands for: a cell, a worst case or a sweep.

    Attributes:
        attack: its name; of a sweep, that of its attack; empty for a worst case.
        given: of a sweep, the parameters that its cells share.
        threat: norm and eps; of a sweep the norm, and an eps of zero.
    """

    what: Literal["cell", "worst", "sweep"]
    defense: str
    defense_spec: str
    attack: str = ""
    attack_spec: str = ""
    defense_params: dict[str, Any] = field(default_factory=dict, hash=False)
    attack_params: dict[str, Any] = field(default_factory=dict, hash=False)
    given: str = ""
    threat: Threat | None = None
    knowledge: str = "adaptive"
    model: int = 0

    @property
    def key(self) -> str:
        """What makes it the same in two reports: model, defense, attack, all parameters, knowledge, threat."""
        params = [self.defense_params, self.attack_params if self.what == "cell" else self.given]
        threat = [self.threat.norm, f"{self.threat.eps:.9g}"] if self.threat is not None else None
        what = [self.what, self.model, self.defense, self.attack, self.knowledge]
        return json.dumps([*what, threat, _rounded(params)], sort_keys=True, default=str)

    @property
    def label(self) -> str:
        """The cell's name without its defense."""
        mark = OBLIVIOUS if self.knowledge == "oblivious" else ""
        if self.what == "worst":
            assert self.threat is not None
            return f"worst-{self.threat.norm}-{self.threat.eps_text}"
        if self.what == "sweep":
            return f"sweep-{self.attack}{':' if self.given else ''}{self.given}{mark}"
        return f"{self.attack_spec}{mark}"

    @property
    def name(self) -> str:
        """``defense / cell``."""
        return f"{self.defense_spec} / {self.label}"


def _rounded(value: Any) -> Any:
    """Floats to nine digits: 8/255 computed twice may differ in the last bit."""
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def reference_to_cell(cell: Cell) -> CellReference:
    """The reference to a cell."""
    threat = Threat(cell.threat.norm, cell.threat.eps) if cell.threat is not None else None
    return CellReference(
        "cell",
        cell.defense,
        cell.defense_spec,
        cell.attack,
        cell.attack_spec,
        cell.defense_params,
        cell.attack_params,
        threat=threat,
        knowledge=cell.knowledge,
        model=cell.model,
    )


def reference_to_worst_case(row: WorstCase) -> CellReference:
    """The reference to a worst case."""
    threat = Threat(row.threat.norm, row.threat.eps)
    return CellReference(
        "worst", row.defense, row.defense_spec, defense_params=row.defense_params, threat=threat, model=row.model
    )


class HasCells(Protocol):
    """What holds cells and worst cases: a report."""

    @property
    def cells(self) -> Sequence[Cell]: ...

    @property
    def worst_case(self) -> Sequence[WorstCase]: ...


def references_in(report: HasCells) -> list[CellReference]:
    """The references to all cells, worst cases and sweeps of a report, failed ones too."""
    references = [reference for reference, _ in referenced(report)]
    return [*references, *sweep_references(references)]


def referenced(report: HasCells) -> list[tuple[CellReference, Cell | WorstCase]]:
    """Every cell and worst case of a report, failed ones too, with its reference."""
    cells: list[tuple[CellReference, Cell | WorstCase]] = [(reference_to_cell(cell), cell) for cell in report.cells]
    return cells + [(reference_to_worst_case(row), row) for row in report.worst_case]


def sweep_references(cells: Iterable[CellReference]) -> list[CellReference]:
    """A reference for each group of cells that differ only in eps."""
    groups: dict[str, list[CellReference]] = {}
    for cell in cells:
        if cell.what == "cell" and cell.threat is not None:
            groups.setdefault(reference_to_sweep(cell).key, []).append(cell)
    return [reference_to_sweep(group[0]) for group in groups.values() if len({c.threat for c in group}) > 1]


def reference_to_sweep(cell: CellReference) -> CellReference:
    """The sweep that a cell with a threat would belong to."""
    assert cell.threat is not None
    given = sorted(pair for pair in _given(cell.attack, cell.attack_spec) if pair[0] != "eps")
    return CellReference(
        "sweep",
        cell.defense,
        cell.defense_spec,
        cell.attack,
        defense_params=cell.defense_params,
        given=",".join("=".join(pair) for pair in given),
        threat=Threat(cell.threat.norm, 0.0),
        knowledge=cell.knowledge,
        model=cell.model,
    )


def _given(name: str, spec: str) -> list[tuple[str, str]]:
    return parse_params(spec.removeprefix(name).removeprefix(":"), spec)


def find(text: str, references: Sequence[CellReference], kind: str) -> list[CellReference]:
    """The references that a name stands for, in their order.

    Args:
        kind: what the name was given as, for the message.

    Raises:
        SpecError: none; the message has the nearest names.
    """
    name = text.strip()
    knowledge = "oblivious" if name.endswith(OBLIVIOUS) else "adaptive"
    name = name.removesuffix(OBLIVIOUS)
    known = [r for r in references if r.knowledge == knowledge]
    specs = {r.defense_spec for r in known}
    default = UNDEFENDED if UNDEFENDED in specs else "*"
    splits = [(default, name), *((name[:i], name[i + 1 :]) for i, char in enumerate(name) if char == "/")]
    for defense, what in splits:
        matching = [r for r in known if _is_defense(defense, r) and _is_what(what.strip(), r)]
        if matching:
            return matching
    raise SpecError(f"{kind} {text!r} names no cell{_hint(name, known)}")


def pick(report: HasCells, text: str, model: int = 0) -> Cell | WorstCase:
    """The one cell or worst case of a report that a name stands for.

    A name that is the spec of one of several that it fits stands for that one.

    Args:
        report: where it is looked for.
        text: the name.
        model: the position of the model.

    Raises:
        SpecError: none or several, or the name is not text.
    """
    if not isinstance(text, str):
        raise SpecError(f"a reference should be text such as 'pgd' or 'smooth/worst', but got {type(text).__name__}")
    pairs = [(reference, measured) for reference, measured in referenced(report) if reference.model == model]
    if not pairs:
        raise SpecError(f"the report has no cells of a model at position {model}")
    name = re.sub(rf"^({'|'.join(UNDEFENDED_NAMES)})\s*/", f"{UNDEFENDED}/", text.strip())
    matching = find(name, [reference for reference, _ in pairs], "reference")
    exact = [r for r in matching if name in (r.label, f"{r.defense_spec}/{r.label}")]
    matching = exact or matching
    if len(matching) != 1:
        listed = ", ".join(reference.name for reference in matching[:LISTED])
        more = ", ..." if len(matching) > LISTED else ""
        raise SpecError(f"{text!r} names {len(matching)} cells, name one of them: {listed}{more}")
    return next(measured for reference, measured in pairs if reference is matching[0])


def _hint(name: str, known: list[CellReference]) -> str:
    plain = list(dict.fromkeys(r.label for r in known))
    written = list(plain)
    for reference in known:
        word = reference.attack if reference.what == "cell" else reference.what
        written += [word, f"{reference.defense}/{word}", f"{reference.defense}/{reference.label}"]
    listed = ", ".join(plain[:LISTED]) + (", ..." if len(plain) > LISTED else "")
    defenses = ", ".join(dict.fromkeys(r.defense_spec for r in known))
    return f"{near_miss(name, written)} (cells: {listed}; defenses: {defenses})"


def _is_defense(text: str, reference: CellReference) -> bool:
    if text.strip() in UNDEFENDED_NAMES:
        return reference.defense == UNDEFENDED
    return text == "*" or _fits(text.strip(), reference.defense, reference.defense_spec, reference.defense_params)


def _is_what(text: str, reference: CellReference) -> bool:
    head, _, rest = text.partition("-")
    if reference.what == "worst":
        assert reference.threat is not None
        norm, _, eps = rest.partition("-")
        return head == "worst" and norm in ("", reference.threat.norm) and (not eps or _same(eps, reference.threat.eps))
    if reference.what == "sweep":
        spec = reference.label.removeprefix("sweep-").removesuffix(OBLIVIOUS)
        return head == "sweep" and rest in ("", reference.attack, spec)
    return _fits(text, reference.attack, reference.attack_spec, reference.attack_params)


def _fits(text: str, name: str, spec: str, params: dict[str, Any]) -> bool:
    """Whether a text is the name, the spec, or the name with some of the parameters."""
    if text in (name, spec):
        return True
    if not text.startswith(f"{name}:"):
        return False
    try:
        wanted = _given(name, text)
    except SpecError:
        return False
    return all(
        key in params and any(_same(item, params[key]) for item in list_items(value) or [value])
        for key, value in wanted
    )


def _same(text: str, value: Any) -> bool:
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if isinstance(value, int | float):
        try:
            return abs(float(fraction(text)) - value) <= 1e-9 * max(1.0, abs(value))
        except (TypeError, ValueError):
            return False
    return text == str(value)
