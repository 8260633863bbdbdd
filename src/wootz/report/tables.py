"""One type of table, and the tables of a grid over its seeds: what each defence is worth, and every theft."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple, TypeAlias

from wootz.report.formats import budget
from wootz.report.spread import Spread
from wootz.report.survey import (
    CONTROLS,
    OWNER,
    DataSet,
    Defence,
    Evaluation,
    Group,
    Place,
    Survey,
    place_name,
)

ALL = "all marks"
"""Heads the evidence of all marks together."""


class Value(NamedTuple):
    """A spread as an entry of a table.

    `unit` is percent (of a fraction) or bits; `bar` is what bits are held against; `head` says what stands in
    front, the mean or the most; `usual` is how many values most entries have: another number is shown. `right` is
    right answers on taught and on untaught candidates.
    """

    spread: Spread
    unit: Literal["percent", "bits"] = "percent"
    bar: float | None = None
    head: Literal["mean", "most"] = "mean"
    usual: int | None = None
    right: tuple[Spread, Spread] | None = None


Entry: TypeAlias = Value | str | None
"""A value, text, or nothing known."""


class Column(NamedTuple):
    """A column's name, the group that it stands in ('' for none), and whether it holds words, not figures."""

    name: str
    group: str = ""
    words: bool = False


class Row(NamedTuple):
    """A row: what kind it is of ('' for none), the texts that name it, and its entries."""

    kind: str
    names: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows named by `stub` texts, entries under `header`; what a reader must know stands in `notes`."""

    title: str
    stub: tuple[str, ...]
    header: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def panels(table: Table, width: int) -> tuple[Table, ...]:
    """Cut a wide table into tables of at most `width` columns, groups kept whole; notes stay with the last.

    A row of which nothing is known in a part is left out of it.
    """
    groups = [list(places) for _, places in groupby(range(len(table.header)), lambda i: table.header[i].group)]
    parts: list[list[int]] = []
    for places in groups:
        if parts and len(parts[-1]) + len(places) <= width:
            parts[-1] += places
        else:
            parts.append(places)
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


def _known(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(row for row in rows if any(entry is not None for entry in row.entries))


def defence_table(found: Survey, data: DataSet) -> Table:
    """Return one row a defence: the owner's accuracy and evidence, how many thefts keep it, the highest control."""
    evaluations = tuple(data.evaluations)
    names = ["clean", *(_title(e, data) for e in evaluations), "bits", "stolen", "removed", "control"]
    rows = []
    for defence in data.defences:
        owner, controls = _of_theft(data, defence, OWNER), _of_theft(data, defence, CONTROLS)
        usual = _usual(data)
        entries = (
            *_accuracies(owner, evaluations, usual),
            _bits(owner, usual=usual),
            *(_kept(data, defence, kind) for kind in ("stolen", "removed")),
            _bits(controls, head="most", usual=_usual(data, controls=True)),
        )
        rows.append(Row("", (found.names[defence],), entries))
    kept = "stolen, removed: thefts whose mean evidence reaches the bar, of those tested. control: the highest bits."
    title = f"{data.name}: what each defence is worth"
    header = tuple(Column(name) for name in names)
    return Table(title=title, stub=("defence",), header=header, rows=tuple(rows), notes=(*_notes(data), kept))


def theft_table(found: Survey, data: DataSet) -> Table:
    """Return one row a theft and one group of columns a defence: accuracies, bits a mark, bits in all.

    Defences of which only the owner's model was measured are left out, unless there are no others.
    """
    header: list[Column] = []
    shape: list[tuple[Defence, tuple[Evaluation, ...], tuple[str, ...]]] = []
    tried = {defence for place, defence in data.groups if place.theft != OWNER}
    for defence in (d for d in data.defences if d in tried or not tried):
        groups = [group for (_, other), group in data.groups.items() if other == defence]
        evaluations = tuple(e for e in data.evaluations if any(e in group.robust for group in groups))
        marks = tuple(dict.fromkeys(mark for group in groups for mark in group.bits))
        shape.append((defence, evaluations, marks))
        names = ["clean", *(_title(e, data) for e in evaluations), *(f"{mark}, bits" for mark in marks)]
        names += [f"{ALL}, bits"] if len(marks) > 1 else []
        header += [Column(name, found.names[defence]) for name in names]
    rows = []
    for place, kind in data.kinds.items():
        entries: list[Entry] = []
        for defence, evaluations, marks in shape:
            entries += _theft_entries(data, place, data.groups.get((place, defence)), evaluations, marks)
        rows.append(Row(kind, (place_name(place, data.kinds),), tuple(entries)))
    title = f"{data.name}: every theft"
    notes = (*_notes(data), *_right_note(data))
    return Table(title=title, stub=("theft",), header=tuple(header), rows=tuple(rows), notes=notes)


def measurements(found: Survey) -> Table:
    """Return one row a group with everything that is known of it, for machines."""
    axes = ("data", *dict.fromkeys(axis for defence in found.names for axis, _ in defence), "theft", "access")
    evaluations = tuple(dict.fromkeys(e for data in found.data for e in data.evaluations))
    groups = [(data, key, group) for data in found.data for key, group in data.groups.items()]
    marks = tuple(dict.fromkeys(mark for _, _, group in groups for mark in group.bits))
    baselines = tuple(mark for mark in marks if any(mark in group.right for _, _, group in groups))
    header = ["cells", "seeds", "failed", "bar", "reaching", "clean"]
    header += [f"robust {e.attack} {e.norm} {budget(e.eps)}" for e in evaluations]
    header += [f"bits {mark}" for mark in marks] + ["bits"]
    header += [f"{which} {mark}" for mark in baselines for which in ("taught", "untaught")] + ["errors"]
    rows = []
    for data, (place, defence), group in groups:
        values = {"data": data.name, **dict(defence), "theft": place.theft, "access": place.access}
        seeds = {cell.seed for cell in group.cells}
        right = [side for mark in baselines for side in group.right.get(mark, (None, None))]
        spreads = [group.clean, *(group.robust.get(e) for e in evaluations)]
        spreads += [*(group.bits.get(mark) for mark in marks), group.total, *right]
        reaching = "" if group.total is None else str(group.total.reaching)
        counts = (str(len(group.cells)), str(len(seeds)), str(len(group.failed)), f"{group.bar:g}", reaching)
        errors = " / ".join(dict.fromkeys(cell.error or "" for cell in group.failed))
        names = (*(values.get(axis, "") for axis in axes), data.kinds[place])
        rows.append(Row("", names, (*counts, *(s and Value(s) for s in spreads), errors)))
    columns = tuple(Column(name) for name in header)
    return Table(title="measurements", stub=(*axes, "kind"), header=columns, rows=tuple(rows))


def _theft_entries(
    data: DataSet, place: Place, group: Group | None, evaluations: Sequence[Evaluation], marks: Sequence[str]
) -> list[Entry]:
    width = 1 + len(evaluations) + len(marks) + (len(marks) > 1)
    if group is None:
        return [None] * width
    if not group.cells:
        return ["failed"] * width
    control = place.theft == CONTROLS
    usual = _usual(data, controls=control)
    head: Literal["mean", "most"] = "most" if control else "mean"
    entries = _accuracies(group, evaluations, usual)
    for mark in marks:
        found = group.bits.get(mark)
        right = group.right.get(mark)
        entries.append(found and Value(found, "bits", bar=group.bar, head=head, usual=usual, right=right))
    return [*entries, _bits(group, head=head, usual=usual)] if len(marks) > 1 else entries


def _accuracies(group: Group | None, evaluations: Sequence[Evaluation], usual: int) -> list[Entry]:
    if group is None:
        return [None] * (1 + len(evaluations))
    if not group.cells:
        return ["failed"] * (1 + len(evaluations))
    found = [group.clean, *(group.robust.get(e) for e in evaluations)]
    return [s and Value(s, usual=usual) for s in found]


def _bits(group: Group | None, *, usual: int, head: Literal["mean", "most"] = "mean") -> Entry:
    if group is None or group.total is None:
        return "failed" if group is not None and not group.cells else None
    return Value(group.total, "bits", bar=group.bar, head=head, usual=usual)


def _of_theft(data: DataSet, defence: Defence, theft: str) -> Group | None:
    """Return a defence's group of a theft; of several accesses the first."""
    found = (data.groups.get((place, defence)) for place in data.kinds if place.theft == theft)
    return next((group for group in found if group is not None), None)


def kept(data: DataSet, defence: Defence, kind: str) -> tuple[int, int]:
    """Return how many thefts of a kind leave mean evidence at the bar or above it, and how many were tested."""
    groups = [data.groups.get((place, defence)) for place, other in data.kinds.items() if other == kind]
    tested = [(g.total.mean, g.bar) for g in groups if g is not None and g.total is not None]
    return sum(mean >= bar for mean, bar in tested), len(tested)


def _kept(data: DataSet, defence: Defence, kind: str) -> Entry:
    shown, tested = kept(data, defence, kind)
    return f"{shown} of {tested}" if tested else None


def _usual(data: DataSet, *, controls: bool = False) -> int:
    """Return how many cells most groups have, those of controls apart."""
    chosen = (group for (place, _), group in data.groups.items() if (place.theft == CONTROLS) == controls)
    counts = Counter(len(group.cells) for group in chosen if group.cells)
    return max(counts, key=lambda count: (counts[count], count), default=0)


def _title(evaluation: Evaluation, data: DataSet) -> str:
    """Return an evaluation's name, with its budget where the data set has several."""
    several = len({(e.eps, e.norm) for e in data.evaluations}) > 1
    return f"{evaluation.attack}, eps {budget(evaluation.eps)}" if several else evaluation.attack


def _notes(data: DataSet) -> tuple[str, ...]:
    count, controls = _usual(data), _usual(data, controls=True)
    seeds = len({cell.seed for group in data.groups.values() for cell in group.cells})
    bars = sorted({group.bar for group in data.groups.values() if group.total is not None})
    over = f"{seeds} seed" + "s" * (seeds != 1) + f" of {data.runs} runs" * (data.runs > 1)
    notes = [f"Mean (least to most) over {over}, {count} to an entry unless n says otherwise. Accuracies in percent."]
    notes += [f"{e.attack}: {e.norm}, eps {budget(e.eps)}, n {_counts(n)}." for e, n in data.evaluations.items()]
    if bars:
        bar = " or ".join(f"{value:g}" for value in bars)
        notes.append(f"Bold: the mean reaches the bar of {bar} bits. \u2020: some seeds do, and some do not.")
    if controls:
        notes.append(f"Independent models are the controls: {controls} to an entry; of their bits the highest.")
    return tuple(notes)


def _counts(counts: Sequence[int]) -> str:
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _right_note(data: DataSet) -> tuple[str, ...]:
    if not any(group.right for group in data.groups.values()):
        return ()
    return (
        "[a : b]: percent of right answers on a baseline's candidates that were taught, and on those that were not. "
        "The first is what others print as watermark accuracy; only its excess over the second is evidence.",
    )
