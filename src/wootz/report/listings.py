"""Tables of single cells: those that failed, and as many others as a page can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from wootz.records import Result
from wootz.report.formats import percent
from wootz.report.survey import Survey, defence_of, place_name, place_of
from wootz.report.tables import Column, Entry, Row, Table

LISTED = 300
"""Cells that are listed one by one; of more, it is said how many stand in the file."""

Entries: TypeAlias = Callable[[Result], tuple[Entry, ...]]

_FIGURES = ("seed", "clean", "robust", "bits")

_DIGEST = 12
"""Letters of a digest that are shown."""


def failures(found: Survey) -> Table | None:
    """Return the cells that failed with their errors, None where none did."""
    rest = "report.csv names the errors of every group."
    names = ("data", "defence", "theft", "seed", "error")
    return _listing(found, f"Failed cells: {len(found.failed):,}", found.failed, names, _failure, rest)


def measured(found: Survey) -> Table | None:
    """Return the cells that were measured, None where none was."""
    cells = [cell for cell in found.cells if cell.error is None]
    names = ("data", "defence", "theft", "seed", "clean", "robust", "bits", "verdict", "notes", "digest")
    return _listing(found, f"Measured cells: {len(cells):,}", cells, names, _figures, "")


def _listing(
    found: Survey, title: str, cells: Sequence[Result], names: Sequence[str], entries: Entries, rest: str
) -> Table | None:
    rows = tuple(Row("", (cell.suspect,), (*_where(found, cell), *entries(cell))) for cell in cells[:LISTED])
    more = len(cells) - len(rows)
    notes = (f"{more:,} more stand in cells.jsonl. {rest}".strip(),) if more else ()
    header = tuple(Column(name, words=name not in _FIGURES) for name in names)
    return Table(title=title, stub=("suspect",), header=header, rows=rows, notes=notes) if rows else None


def _where(found: Survey, cell: Result) -> tuple[Entry, ...]:
    places = next(data.kinds for data in found.data if data.name == cell.axes["data"])
    return (cell.axes["data"], found.names[defence_of(cell)], place_name(place_of(cell), places), str(cell.seed))


def _failure(cell: Result) -> tuple[Entry, ...]:
    return (cell.error,)


def _figures(cell: Result) -> tuple[Entry, ...]:
    flags = () if cell.robust is None else tuple(f"flag: {flag}" for flag in cell.robust.flags)
    return (
        None if cell.clean is None else percent(cell.clean),
        None if cell.robust is None else percent(cell.robust.accuracy),
        None if cell.bits is None else f"{cell.bits:,.1f}",
        cell.verdict,
        "; ".join((*cell.notes, *flags)) or None,
        None if cell.digest is None else cell.digest.removeprefix("sha256:")[:_DIGEST],
    )
