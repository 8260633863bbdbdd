"""The cells of a grid in order: data sets, defences, thefts, and one group of cells for each, over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from wootz.records import EvidenceRecord, Result, RobustRecord
from wootz.report.bench import AXES
from wootz.report.spread import Spread, spread

OWNER, CONTROLS, UNMARKED = "none", "independent", "none"
BAR = 40.0

HEADINGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "protected": ("Owner", "the owner's model, before anybody touched it"),
        "stolen": ("Stolen", "rebuilt from the owner's answers"),
        "removed": ("Removal tried", "the owner's weights, changed to lose the marks"),
        "independent": ("Independent", "made without the key: the controls"),
        "unknown": ("Unknown", "of unknown making"),
    }
)
"""Kinds in the order of a grid's tables, with a heading and what it means; an owner need not have marks here."""

Defence: TypeAlias = tuple[tuple[str, str], ...]
"""Axis and name of everything that makes the owner's model, but its data: (loss, mark, model, any others)."""


class Place(NamedTuple):
    """A row: what was done to the owner's model, and what its maker or its tester was shown."""

    theft: str
    access: str


class Evaluation(NamedTuple):
    """What a robust accuracy was measured with."""

    attack: str
    eps: float
    norm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All cells of one place under one defence: those that were measured, and those that failed.

    `right` holds, for baseline marks, right answers on taught and on untaught candidates: fractions, never one
    without the other. `total` is the evidence of all marks together.
    """

    cells: tuple[Result, ...]
    failed: tuple[Result, ...]
    bar: float
    clean: Spread | None
    robust: Mapping[Evaluation, Spread]
    bits: Mapping[str, Spread]
    right: Mapping[str, tuple[Spread, Spread]]
    total: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """One data set's part of a grid, of how many runs; `kinds` says what each place is (a key of HEADINGS)."""

    name: str
    runs: int
    defences: tuple[Defence, ...]
    kinds: Mapping[Place, str]
    evaluations: Mapping[Evaluation, tuple[int, ...]]
    groups: Mapping[tuple[Place, Defence], Group]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A grid in order; `names` are the defences as people read them."""

    cells: tuple[Result, ...]
    data: tuple[DataSet, ...]
    names: Mapping[Defence, str]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The cells that failed."""
        return tuple(cell for cell in self.cells if cell.error is not None)


def survey(*runs: Sequence[Result]) -> Survey:
    """Put the cells of one grid in order, whose runs count side by side.

    Of several records of one cell in a run (a failed one, run again) the last counts.
    """
    chosen = [tuple({_identity(cell): cell for cell in cells}.values()) for cells in runs]
    cells = tuple(chain.from_iterable(chosen))
    by_data: dict[str, list[Result]] = {}
    for cell in cells:
        by_data.setdefault(cell.axes["data"], []).append(cell)
    data = tuple(
        _data_set(name, members, runs=sum(any(cell.axes["data"] == name for cell in run) for run in chosen))
        for name, members in by_data.items()
    )
    return Survey(cells=cells, data=data, names=_names(dict.fromkeys(map(defence_of, cells))))


def defence_of(cell: Result) -> Defence:
    """Return the part of a cell's axes that makes the owner's model, its data apart."""
    first = ("loss", "mark", "model")
    others = sorted(set(cell.axes) - set(AXES))
    return tuple((axis, cell.axes[axis]) for axis in (*first, *others))


def place_of(cell: Result) -> Place:
    """Return the row that a cell belongs to."""
    return Place(cell.axes["theft"], cell.axes["access"])


def is_control(cell: Result) -> bool:
    """Return whether a cell is an independent model that was tested with this owner's key."""
    return cell.axes["theft"] == CONTROLS


def place_name(place: Place, places: Iterable[Place]) -> str:
    """Return a place as people read it, with its access where the theft has several."""
    name = {OWNER: "the owner's model", CONTROLS: "independent models"}.get(place.theft, place.theft)
    several = len({other.access for other in places if other.theft == place.theft}) > 1
    return f"{name} ({place.access})" if several else name


def evaluation_of(record: RobustRecord) -> Evaluation:
    """Return what a robust accuracy was measured with."""
    return Evaluation(record.attack, record.eps, record.norm)


def bar_of(cells: Iterable[Result]) -> float:
    """Return the highest bar that cells were held to, 40 bits where they do not say."""
    return max((cell.bar if cell.bar is not None else BAR for cell in cells), default=BAR)


def reaches(cell: Result) -> bool:
    """Return whether a cell's evidence, all marks together, reaches its bar."""
    return cell.bits is not None and cell.bits >= bar_of([cell])


def _identity(cell: Result) -> tuple[object, ...]:
    # Suspects stay apart even where their configs do not: several controls may stand at one point of the grid.
    axes = tuple(sorted(cell.axes.items()))
    return (cell.digest, axes, cell.seed, cell.suspect) if cell.digest is not None else (id(cell),)


def _names(defences: Iterable[Defence]) -> dict[Defence, str]:
    """Name defences by loss and mark, and by whatever else varies among them."""
    found = list(defences)
    several = {axis for axis, _ in found[0] if len({dict(defence).get(axis) for defence in found}) > 1}
    names = {}
    for defence in found:
        axes = dict(defence)
        mark = "unmarked" if axes["mark"] == UNMARKED else axes["mark"]
        rest = [f"{axis} {name}" for axis, name in defence if axis not in ("loss", "mark") and axis in several]
        names[defence] = ", ".join([f"{axes['loss']} + {mark}", *rest])
    return names


def _data_set(name: str, cells: Sequence[Result], runs: int) -> DataSet:
    members: dict[tuple[Place, Defence], list[Result]] = {}
    kinds: dict[Place, str] = {}
    evaluations: dict[Evaluation, set[int]] = {}
    for cell in cells:
        place = place_of(cell)
        members.setdefault((place, defence_of(cell)), []).append(cell)
        if kinds.get(place, CONTROLS) == CONTROLS:  # thefts from an unmarked owner carry no key: they name no kind
            kinds[place] = _kind(cell)
        for record in records_of(cell):
            evaluations.setdefault(evaluation_of(record), set()).add(record.n)
    order = list(HEADINGS)
    return DataSet(
        name=name,
        runs=runs,
        defences=tuple(dict.fromkeys(defence for _, defence in members)),
        kinds=dict(sorted(kinds.items(), key=lambda item: order.index(item[1]))),
        evaluations={evaluation: tuple(sorted(counts)) for evaluation, counts in evaluations.items()},
        groups={key: _group(found) for key, found in members.items()},
    )


def records_of(cell: Result) -> tuple[RobustRecord, ...]:
    """Return all robust accuracies of a cell, the chief one first."""
    return (*([] if cell.robust is None else [cell.robust]), *cell.also)


def _kind(cell: Result) -> str:
    known = {OWNER: "protected", CONTROLS: "independent"}.get(cell.axes["theft"], cell.kind)
    return known if known in HEADINGS else "unknown"


def _group(cells: Sequence[Result]) -> Group:
    done = tuple(cell for cell in cells if cell.error is None)
    bar = bar_of(done)
    robust: dict[Evaluation, list[float]] = {}
    evidence: dict[str, list[EvidenceRecord]] = {}
    for cell in done:
        for record in {evaluation_of(record): record for record in reversed(records_of(cell))}.values():
            robust.setdefault(evaluation_of(record), []).append(record.accuracy)
        for item in cell.evidence:
            evidence.setdefault(item.mark, []).append(item)
    right = {mark: _right(items) for mark, items in evidence.items()}
    return Group(
        cells=done,
        failed=tuple(cell for cell in cells if cell.error is not None),
        bar=bar,
        clean=spread([cell.clean for cell in done if cell.clean is not None]),
        robust={key: found for key, values in robust.items() if (found := spread(values))},
        bits={mark: found for mark, items in evidence.items() if (found := spread([i.bits for i in items], bar))},
        right={mark: pair for mark, pair in right.items() if pair is not None},
        total=spread([cell.bits for cell in done if cell.bits is not None], bar),
    )


def _right(items: Sequence[EvidenceRecord]) -> tuple[Spread, Spread] | None:
    """Return right answers on taught and on untaught candidates, where every test counted both."""
    taught, untaught = ([_fraction(item.details.get(name)) for item in items] for name in ("accuracy", "control"))
    first, second = (spread([value for value in values if value is not None]) for values in (taught, untaught))
    if first is None or second is None or not first.n == second.n == len(items):
        return None
    return first, second


def _fraction(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None
