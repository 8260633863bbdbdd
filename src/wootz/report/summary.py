"""Results of a grid, grouped: data sets, defences, thefts, and statistics over the seeds of each group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from wootz.records import AXES, INDEPENDENT, OWNER_MODEL, UNMARKED, EvidenceRecord, Result, RobustRecord
from wootz.types import KINDS, THRESHOLD_BITS, Kind

Defence: TypeAlias = tuple[tuple[str, str], ...]
"""Axis and name of everything that decides the owner's model except its data: (loss, mark, model, any others)."""


class Stats(NamedTuple):
    """Mean, minimum and maximum of `n` values, `reaching` of which reach a threshold (0 without a threshold)."""

    mean: float
    min: float
    max: float
    n: int
    reaching: int = 0


def stats(values: Sequence[float], threshold: float | None = None) -> Stats | None:
    """Return the statistics of values, or None if there are none; the mean does not depend on their order."""
    if not values:
        return None
    reaching = 0 if threshold is None else sum(value >= threshold for value in values)
    return Stats(math.fsum(values) / len(values), min(values), max(values), len(values), reaching)


class RowKey(NamedTuple):
    """A row of a table: the attack on the owner's model, and what the verifier saw of the suspect."""

    theft: str
    access: str


class Evaluation(NamedTuple):
    """How a robust accuracy was measured."""

    attack: str
    eps: float
    norm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultGroup:
    """All results of one row under one defence.

    Attributes:
        results: Results with figures.
        failed: Results with an error.
        threshold: The highest bits that any of them required.
        clean: Clean accuracy, as a fraction.
        robust: Robust accuracy by evaluation, as fractions.
        bits: Bits of evidence by mark.
        baseline_accuracy: By baseline mark, the fraction of keyed answers on candidates that were used in training and
            on those that were not; a mark without both is left out.
        total_bits: Bits of all marks together.
    """

    results: tuple[Result, ...]
    failed: tuple[Result, ...]
    threshold: float
    clean: Stats | None
    robust: Mapping[Evaluation, Stats]
    bits: Mapping[str, Stats]
    baseline_accuracy: Mapping[str, tuple[Stats, Stats]]
    total_bits: Stats | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetSummary:
    """The results on one data set.

    Attributes:
        name: The name of the data set.
        runs: The number of runs of the grid that have results on it.
        defences: The defences, in the order of the results.
        kinds: What the suspects of each row are, by row, in the order of the tables.
        evaluations: The numbers of test images, by evaluation.
        groups: The groups, by row and defence.
    """

    name: str
    runs: int
    defences: tuple[Defence, ...]
    kinds: Mapping[RowKey, Kind]
    evaluations: Mapping[Evaluation, tuple[int, ...]]
    groups: Mapping[tuple[RowKey, Defence], ResultGroup]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSummary:
    """The results of a grid.

    Attributes:
        results: All results; a repeated one counts once per run.
        data: The results by data set.
        names: The names of the defences, for people.
    """

    results: tuple[Result, ...]
    data: tuple[DataSetSummary, ...]
    names: Mapping[Defence, str]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results that have an error instead of figures."""
        return tuple(result for result in self.results if result.error is not None)


def summarize(*runs: Sequence[Result]) -> GridSummary:
    """Group the results of one or more runs of a grid.

    If a run has several results of one cell (a failed one that was computed again), the last counts.
    """
    latest = [tuple({_identity(result): result for result in results}.values()) for results in runs]
    results = tuple(chain.from_iterable(latest))
    by_data: dict[str, list[Result]] = {}
    for result in results:
        by_data.setdefault(result.axes["data"], []).append(result)
    data = tuple(
        _data_set(name, members, runs=sum(any(result.axes["data"] == name for result in run) for run in latest))
        for name, members in by_data.items()
    )
    return GridSummary(results=results, data=data, names=_defence_names(dict.fromkeys(map(defence_of, results))))


def defence_of(result: Result) -> Defence:
    """Return the part of a result's axes that decides the owner's model, except its data."""
    others = sorted(set(result.axes) - set(AXES))
    return tuple((axis, result.axes[axis]) for axis in ("loss", "mark", "model", *others))


def row_key(result: Result) -> RowKey:
    """Return the row that a result belongs to."""
    return RowKey(result.axes["theft"], result.axes["access"])


def row_label(row: RowKey, rows: Iterable[RowKey]) -> str:
    """Return the name of a row for people, with its access if the theft occurs with several in `rows`."""
    name = {OWNER_MODEL: "the owner's model", INDEPENDENT: "independent models"}.get(row.theft, row.theft)
    several = len({other.access for other in rows if other.theft == row.theft}) > 1
    return f"{name} ({row.access})" if several else name


def is_independent(result: Result) -> bool:
    """Whether a result is of an independent model that was tested with the owner's key."""
    return result.axes["theft"] == INDEPENDENT


def evaluation_of(record: RobustRecord) -> Evaluation:
    """Return how a robust accuracy was measured."""
    return Evaluation(record.attack, record.eps, record.norm)


def robust_records(result: Result) -> tuple[RobustRecord, ...]:
    """Return all robust accuracies of a result, the main one first."""
    return (*([] if result.robust is None else [result.robust]), *result.also)


def reaches_threshold(result: Result) -> bool:
    """Whether the bits of all marks together reach the bits that the result required."""
    return result.bits is not None and result.bits >= _threshold([result])


def count_surviving(data: DataSetSummary, defence: Defence, kind: Kind) -> tuple[int, int]:
    """Return how many rows of a kind have a mean of bits that reaches the threshold, and how many were tested."""
    groups = [data.groups.get((row, defence)) for row, row_kind in data.kinds.items() if row_kind == kind]
    tested = [(g.total_bits.mean, g.threshold) for g in groups if g is not None and g.total_bits is not None]
    return sum(mean >= threshold for mean, threshold in tested), len(tested)


def _threshold(results: Iterable[Result]) -> float:
    """Return the highest bits that results required; results that do not say required the default."""
    return max((r.bar if r.bar is not None else THRESHOLD_BITS for r in results), default=THRESHOLD_BITS)


def _identity(result: Result) -> tuple[object, ...]:
    # The suspect is part of it: several independent models may share a digest and all axes.
    axes = tuple(sorted(result.axes.items()))
    return (result.digest, axes, result.seed, result.suspect) if result.digest is not None else (id(result),)


def _defence_names(defences: Iterable[Defence]) -> dict[Defence, str]:
    """Name defences by loss and mark, and by every other axis along which they differ."""
    defences = list(defences)
    varying = {axis for axis, _ in defences[0] if len({dict(defence).get(axis) for defence in defences}) > 1}
    names = {}
    for defence in defences:
        axes = dict(defence)
        mark = "unmarked" if axes["mark"] == UNMARKED else axes["mark"]
        rest = [f"{axis} {name}" for axis, name in defence if axis not in ("loss", "mark") and axis in varying]
        names[defence] = ", ".join([f"{axes['loss']} + {mark}", *rest])
    return names


def _data_set(name: str, results: Sequence[Result], runs: int) -> DataSetSummary:
    members: dict[tuple[RowKey, Defence], list[Result]] = {}
    kinds: dict[RowKey, Kind] = {}
    evaluations: dict[Evaluation, set[int]] = {}
    for result in results:
        row = row_key(result)
        members.setdefault((row, defence_of(result)), []).append(result)
        if kinds.get(row, "independent") == "independent":  # suspects of unmarked owners are independent of any key
            kinds[row] = _row_kind(result)
        for record in robust_records(result):
            evaluations.setdefault(evaluation_of(record), set()).add(record.n)
    return DataSetSummary(
        name=name,
        runs=runs,
        defences=tuple(dict.fromkeys(defence for _, defence in members)),
        kinds=dict(sorted(kinds.items(), key=lambda item: KINDS.index(item[1]))),
        evaluations={evaluation: tuple(sorted(counts)) for evaluation, counts in evaluations.items()},
        groups={key: _group(group) for key, group in members.items()},
    )


def _row_kind(result: Result) -> Kind:
    by_theft: dict[str, Kind] = {OWNER_MODEL: "protected", INDEPENDENT: "independent"}
    return by_theft.get(result.axes["theft"], result.kind if result.kind in KINDS else "unknown")


def _group(results: Sequence[Result]) -> ResultGroup:
    measured = tuple(result for result in results if result.error is None)
    threshold = _threshold(measured)
    robust: dict[Evaluation, list[float]] = {}
    evidence: dict[str, list[EvidenceRecord]] = {}
    for result in measured:
        for record in {evaluation_of(record): record for record in reversed(robust_records(result))}.values():
            robust.setdefault(evaluation_of(record), []).append(record.accuracy)
        for item in result.evidence:
            evidence.setdefault(item.mark, []).append(item)
    accuracies = {mark: _baseline_accuracy(items) for mark, items in evidence.items()}
    return ResultGroup(
        results=measured,
        failed=tuple(result for result in results if result.error is not None),
        threshold=threshold,
        clean=stats([result.clean for result in measured if result.clean is not None]),
        robust={key: known for key, values in robust.items() if (known := stats(values))},
        bits={
            mark: known
            for mark, items in evidence.items()
            if (known := stats([item.bits for item in items], threshold))
        },
        baseline_accuracy={mark: pair for mark, pair in accuracies.items() if pair is not None},
        total_bits=stats([result.bits for result in measured if result.bits is not None], threshold),
    )


def _baseline_accuracy(items: Sequence[EvidenceRecord]) -> tuple[Stats, Stats] | None:
    """Return keyed answers on used and on unused candidates, as fractions, if every test counted both."""
    used, unused = ([_fraction(item.details.get(name)) for item in items] for name in ("accuracy", "control"))
    first, second = (stats([value for value in values if value is not None]) for values in (used, unused))
    if first is None or second is None or not first.n == second.n == len(items):
        return None
    return first, second


def _fraction(value: Any) -> float | None:
    finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if finite else None
