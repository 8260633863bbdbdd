"""Tables of a grid over its seeds: what each defence achieves, every theft, all measurements, and single results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple, TypeAlias

from wootz.records import INDEPENDENT, OWNER_MODEL, Result
from wootz.report.formats import format_eps, percent
from wootz.report.summary import (
    DataSetSummary,
    Defence,
    Evaluation,
    GridSummary,
    ResultGroup,
    RowKey,
    Stats,
    count_surviving,
    defence_of,
    row_key,
    row_label,
)
from wootz.types import Kind

MAX_LISTED = 300
"""Single results that a table lists; of further ones only the number is given."""

_ALL_MARKS = "all marks"
"""Heads the evidence of all marks together."""

_DIGEST_LETTERS = 12

_NUMERIC = ("seed", "clean", "robust", "bits")
"""Columns of single results that hold numbers."""

Statistic: TypeAlias = Literal["mean", "max"]


class Value(NamedTuple):
    """Statistics as an entry of a table.

    Attributes:
        stats: The statistics.
        unit: `percent` of a fraction, or `bits`.
        threshold: The bits that are required.
        statistic: Which statistic is shown first.
        usual_n: The number of values of most entries; another number is shown.
        baseline_accuracy: The fraction of keyed answers on candidates that were used in training, and on unused ones.
    """

    stats: Stats
    unit: Literal["percent", "bits"] = "percent"
    threshold: float | None = None
    statistic: Statistic = "mean"
    usual_n: int | None = None
    baseline_accuracy: tuple[Stats, Stats] | None = None


Entry: TypeAlias = Value | str | None
"""Statistics, text, or None for what is not known."""


class Column(NamedTuple):
    """The name of a column, the group that it belongs to ('' for none), and whether it holds text, not numbers."""

    name: str
    group: str = ""
    is_text: bool = False


class TableRow(NamedTuple):
    """The kind of a row ('' for none), the texts that name it, and its entries."""

    kind: Kind | Literal[""]
    names: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        title: The title.
        stub: Headings of the columns that name the rows.
        header: The columns of the entries.
        rows: The rows.
        notes: Remarks below the table.
    """

    title: str
    stub: tuple[str, ...]
    header: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()


def split_columns(table: Table, width: int) -> tuple[Table, ...]:
    """Split a wide table into tables of at most `width` columns; groups stay whole, notes go to the last table.

    A row without any known entry in a part is left out of it.
    """
    groups = [list(columns) for _, columns in groupby(range(len(table.header)), lambda i: table.header[i].group)]
    parts: list[list[int]] = []
    for columns in groups:
        if parts and len(parts[-1]) + len(columns) <= width:
            parts[-1] += columns
        else:
            parts.append(columns)
    return tuple(
        Table(
            title=table.title if part is parts[0] else f"{table.title}, continued",
            stub=table.stub,
            header=tuple(table.header[i] for i in part),
            rows=_known(row._replace(entries=tuple(row.entries[i] for i in part)) for row in table.rows),
            notes=table.notes if part is parts[-1] else (),
        )
        for part in parts
    )


def defence_table(summary: GridSummary, data: DataSetSummary) -> Table:
    """Return one row per defence: the owner's accuracy and evidence, surviving thefts, the highest control."""
    evaluations = tuple(data.evaluations)
    names = ["clean", *(_evaluation_name(e, data) for e in evaluations), "bits", "stolen", "removed", "control"]
    rows = []
    for defence in data.defences:
        owner, controls = _group_of(data, defence, OWNER_MODEL), _group_of(data, defence, INDEPENDENT)
        usual_n = _usual_n(data)
        entries = (
            *_accuracies(owner, evaluations, usual_n),
            _total_bits(owner, usual_n=usual_n),
            _surviving(data, defence, "stolen"),
            _surviving(data, defence, "removed"),
            _total_bits(controls, statistic="max", usual_n=_usual_n(data, independent=True)),
        )
        rows.append(TableRow("", (summary.names[defence],), entries))
    note = "stolen, removed: thefts whose mean evidence reaches the bar, of those tested. control: the highest bits."
    title = f"{data.name}: what each defence is worth"
    header = tuple(Column(name) for name in names)
    return Table(title=title, stub=("defence",), header=header, rows=tuple(rows), notes=(*_notes(data), note))


def theft_table(summary: GridSummary, data: DataSetSummary) -> Table:
    """Return one row per theft and one group of columns per defence: accuracies, bits per mark, bits in total.

    Defences of which only the owner's model was measured are left out, unless there are no others.
    """
    header: list[Column] = []
    columns: list[tuple[Defence, tuple[Evaluation, ...], tuple[str, ...]]] = []
    attacked = {defence for row, defence in data.groups if row.theft != OWNER_MODEL}
    for defence in (d for d in data.defences if d in attacked or not attacked):
        groups = [group for (_, other), group in data.groups.items() if other == defence]
        evaluations = tuple(e for e in data.evaluations if any(e in group.robust for group in groups))
        marks = tuple(dict.fromkeys(mark for group in groups for mark in group.bits))
        columns.append((defence, evaluations, marks))
        names = ["clean", *(_evaluation_name(e, data) for e in evaluations), *(f"{mark}, bits" for mark in marks)]
        names += [f"{_ALL_MARKS}, bits"] if len(marks) > 1 else []
        header += [Column(name, summary.names[defence]) for name in names]
    rows = []
    for row, kind in data.kinds.items():
        entries: list[Entry] = []
        for defence, evaluations, marks in columns:
            entries += _theft_entries(data, row, data.groups.get((row, defence)), evaluations, marks)
        rows.append(TableRow(kind, (row_label(row, data.kinds),), tuple(entries)))
    title = f"{data.name}: every theft"
    notes = (*_notes(data), *_baseline_note(data))
    return Table(title=title, stub=("theft",), header=tuple(header), rows=tuple(rows), notes=notes)


def measurements(summary: GridSummary) -> Table:
    """Return one row per group with everything that is known of it, for machines."""
    axes = ("data", *dict.fromkeys(axis for defence in summary.names for axis, _ in defence), "theft", "access")
    evaluations = tuple(dict.fromkeys(e for data in summary.data for e in data.evaluations))
    groups = [(data, key, group) for data in summary.data for key, group in data.groups.items()]
    marks = tuple(dict.fromkeys(mark for _, _, group in groups for mark in group.bits))
    baselines = tuple(mark for mark in marks if any(mark in group.baseline_accuracy for _, _, group in groups))
    header = ["cells", "seeds", "failed", "bar", "reaching", "clean"]
    header += [f"robust {e.attack} {e.norm} {format_eps(e.eps)}" for e in evaluations]
    header += [f"bits {mark}" for mark in marks] + ["bits"]
    header += [f"{which} {mark}" for mark in baselines for which in ("taught", "untaught")] + ["errors"]
    rows = []
    for data, (row, defence), group in groups:
        values = {"data": data.name, **dict(defence), "theft": row.theft, "access": row.access}
        seeds = {result.seed for result in group.results}
        known = [group.clean, *(group.robust.get(e) for e in evaluations)]
        known += [*(group.bits.get(mark) for mark in marks), group.total_bits]
        known += [accuracy for mark in baselines for accuracy in group.baseline_accuracy.get(mark, (None, None))]
        reaching = "" if group.total_bits is None else str(group.total_bits.reaching)
        counts = (str(len(group.results)), str(len(seeds)), str(len(group.failed)), f"{group.threshold:g}", reaching)
        errors = " / ".join(dict.fromkeys(result.error or "" for result in group.failed))
        names = (*(values.get(axis, "") for axis in axes), data.kinds[row])
        rows.append(TableRow("", names, (*counts, *(s and Value(s) for s in known), errors)))
    columns = tuple(Column(name) for name in header)
    return Table(title="measurements", stub=(*axes, "kind"), header=columns, rows=tuple(rows))


def failed_results(summary: GridSummary) -> Table | None:
    """Return the failed results with their errors, one per row; None if none failed."""
    rest = "report.csv names the errors of every group."
    names = ("data", "defence", "theft", "seed", "error")
    title = f"Failed cells: {len(summary.failed):,}"
    return _list_results(summary, title, summary.failed, names, lambda result: (result.error,), rest)


def measured_results(summary: GridSummary) -> Table | None:
    """Return the results with figures, one per row; None if there are none."""
    results = [result for result in summary.results if result.error is None]
    names = ("data", "defence", "theft", "seed", "clean", "robust", "bits", "verdict", "notes", "digest")
    return _list_results(summary, f"Measured cells: {len(results):,}", results, names, _figures, "")


def _known(rows: Iterable[TableRow]) -> tuple[TableRow, ...]:
    return tuple(row for row in rows if any(entry is not None for entry in row.entries))


def _theft_entries(
    data: DataSetSummary,
    row: RowKey,
    group: ResultGroup | None,
    evaluations: Sequence[Evaluation],
    marks: Sequence[str],
) -> list[Entry]:
    width = 1 + len(evaluations) + len(marks) + (len(marks) > 1)
    if group is None:
        return [None] * width
    if not group.results:
        return ["failed"] * width
    independent = row.theft == INDEPENDENT
    usual_n = _usual_n(data, independent=independent)
    statistic: Statistic = "max" if independent else "mean"
    entries = _accuracies(group, evaluations, usual_n)
    for mark in marks:
        bits = group.bits.get(mark)
        entries.append(
            bits
            and Value(
                bits,
                "bits",
                threshold=group.threshold,
                statistic=statistic,
                usual_n=usual_n,
                baseline_accuracy=group.baseline_accuracy.get(mark),
            )
        )
    return [*entries, _total_bits(group, statistic=statistic, usual_n=usual_n)] if len(marks) > 1 else entries


def _accuracies(group: ResultGroup | None, evaluations: Sequence[Evaluation], usual_n: int) -> list[Entry]:
    if group is None:
        return [None] * (1 + len(evaluations))
    if not group.results:
        return ["failed"] * (1 + len(evaluations))
    accuracies = [group.clean, *(group.robust.get(e) for e in evaluations)]
    return [accuracy and Value(accuracy, usual_n=usual_n) for accuracy in accuracies]


def _total_bits(group: ResultGroup | None, *, usual_n: int, statistic: Statistic = "mean") -> Entry:
    if group is None or group.total_bits is None:
        return "failed" if group is not None and not group.results else None
    return Value(group.total_bits, "bits", threshold=group.threshold, statistic=statistic, usual_n=usual_n)


def _group_of(data: DataSetSummary, defence: Defence, theft: str) -> ResultGroup | None:
    """Return the group of a theft under a defence; of several accesses the first."""
    groups = (data.groups.get((row, defence)) for row in data.kinds if row.theft == theft)
    return next((group for group in groups if group is not None), None)


def _surviving(data: DataSetSummary, defence: Defence, kind: Kind) -> Entry:
    surviving, tested = count_surviving(data, defence, kind)
    return f"{surviving} of {tested}" if tested else None


def _usual_n(data: DataSetSummary, *, independent: bool = False) -> int:
    """Return the most frequent number of results per group, of independent models or of all others."""
    groups = (group for (row, _), group in data.groups.items() if (row.theft == INDEPENDENT) == independent)
    counts = Counter(len(group.results) for group in groups if group.results)
    return max(counts, key=lambda count: (counts[count], count), default=0)


def _evaluation_name(evaluation: Evaluation, data: DataSetSummary) -> str:
    """Return the name of an evaluation, with its eps if the data set has several."""
    several = len({(e.eps, e.norm) for e in data.evaluations}) > 1
    return f"{evaluation.attack}, eps {format_eps(evaluation.eps)}" if several else evaluation.attack


def _notes(data: DataSetSummary) -> tuple[str, ...]:
    count, controls = _usual_n(data), _usual_n(data, independent=True)
    seeds = len({result.seed for group in data.groups.values() for result in group.results})
    thresholds = sorted({group.threshold for group in data.groups.values() if group.total_bits is not None})
    over = f"{seeds} seed" + "s" * (seeds != 1) + f" of {data.runs} runs" * (data.runs > 1)
    notes = [f"Mean (least to most) over {over}, {count} to an entry unless n says otherwise. Accuracies in percent."]
    notes += [f"{e.attack}: {e.norm}, eps {format_eps(e.eps)}, n {_counts(n)}." for e, n in data.evaluations.items()]
    if thresholds:
        required = " or ".join(f"{value:g}" for value in thresholds)
        notes.append(f"Bold: the mean reaches the bar of {required} bits. \u2020: some seeds do, and some do not.")
    if controls:
        notes.append(f"Independent models are the controls: {controls} to an entry; of their bits the highest.")
    return tuple(notes)


def _counts(counts: Sequence[int]) -> str:
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _baseline_note(data: DataSetSummary) -> tuple[str, ...]:
    if not any(group.baseline_accuracy for group in data.groups.values()):
        return ()
    return (
        "[a : b]: percent of right answers on a baseline's candidates that were taught, and on those that were not. "
        "The first is what others print as watermark accuracy; only its excess over the second is evidence.",
    )


def _list_results(
    summary: GridSummary,
    title: str,
    results: Sequence[Result],
    names: Sequence[str],
    entries: Callable[[Result], tuple[Entry, ...]],
    rest: str,
) -> Table | None:
    """Return a table of single results: coordinates in the grid, then `entries`; None if there are no results."""
    kinds = {data.name: data.kinds for data in summary.data}
    rows = []
    for result in results[:MAX_LISTED]:
        data = result.axes["data"]
        theft = row_label(row_key(result), kinds[data])
        where = (data, summary.names[defence_of(result)], theft, str(result.seed))
        rows.append(TableRow("", (result.suspect,), (*where, *entries(result))))
    more = len(results) - len(rows)
    notes = (f"{more:,} more stand in cells.jsonl. {rest}".strip(),) if more else ()
    header = tuple(Column(name, is_text=name not in _NUMERIC) for name in names)
    return Table(title=title, stub=("suspect",), header=header, rows=tuple(rows), notes=notes) if rows else None


def _figures(result: Result) -> tuple[Entry, ...]:
    flags = () if result.robust is None else tuple(f"flag: {flag}" for flag in result.robust.flags)
    return (
        None if result.clean is None else percent(result.clean),
        None if result.robust is None else percent(result.robust.accuracy),
        None if result.bits is None else f"{result.bits:,.1f}",
        result.verdict,
        "; ".join((*result.notes, *flags)) or None,
        None if result.digest is None else result.digest.removeprefix("sha256:")[:_DIGEST_LETTERS],
    )
