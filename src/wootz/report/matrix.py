"""The evidence matrix: a row a suspect, a column a mark, grouped by what the suspects are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from wootz.records import EvidenceRecord, Result, RobustRecord
from wootz.report.formats import Decimal, budget, decimal, p_of, percent
from wootz.report.scale import style

KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "protected": ("Protected", "trained with the owner's key"),
        "stolen": ("Stolen", "rebuilt from the protected model's answers"),
        "removed": ("Removal tried", "the protected model's weights, changed to lose the marks"),
        "independent": ("Independent", "trained without the key: the controls"),
        "unknown": ("Unknown", "of unknown making"),
    }
)
"""Kinds in the order of the page, with a heading and what it means."""


class Score(NamedTuple):
    """Evidence as a cell of the matrix."""

    bits: str
    p: Decimal
    style: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One suspect, ready to be shown; None is what is not known."""

    name: str
    facts: tuple[str, ...]
    clean: str | None
    robust: str | None
    attack: str | None
    flags: tuple[str, ...]
    scores: tuple[Score | None, ...]
    total: Score | None
    verdict: str | None
    queries: str | None
    access: str | None
    notes: tuple[str, ...]


class Group(NamedTuple):
    """All suspects of one kind."""

    kind: str
    title: str
    meaning: str
    rows: tuple[Row, ...]


class Matrix(NamedTuple):
    """The columns, the attack that all robust accuracies share (or None), and the rows by kind."""

    marks: tuple[str, ...]
    attack: str | None
    groups: tuple[Group, ...]


def matrix(cells: Sequence[Result]) -> Matrix:
    """Arrange cells as rows, in their own order within each kind."""
    marks = tuple(dict.fromkeys(item.mark for cell in cells for item in cell.evidence))
    attacks = {attack_of(cell.robust) for cell in cells if cell.robust is not None}
    shared = attacks.pop() if len(attacks) == 1 else None
    several = len({cell.data for cell in cells}) > 1
    groups = []
    for kind, (title, meaning) in KINDS.items():
        rows = tuple(_row(cell, marks, shared, several) for cell in cells if kind_of(cell) == kind)
        if rows:
            groups.append(Group(kind, title, meaning, rows))
    return Matrix(marks, shared, tuple(groups))


def kind_of(cell: Result) -> str:
    """Return the cell's kind, `unknown` for one that is none of ours."""
    return cell.kind if cell.kind in KINDS else "unknown"


def attack_of(robust: RobustRecord) -> str:
    """Return what a robust accuracy was measured with."""
    return f"{robust.attack}, eps\u00a0{budget(robust.eps)}, n\u00a0{robust.n:,}"


def _row(cell: Result, marks: tuple[str, ...], shared: str | None, several: bool) -> Row:
    found = {item.mark: _score(item) for item in cell.evidence}
    attack = None if cell.robust is None else attack_of(cell.robust)
    return Row(
        name=cell.suspect,
        facts=_facts(cell, several),
        clean=None if cell.clean is None else percent(cell.clean),
        robust=None if cell.robust is None else percent(cell.robust.accuracy),
        attack=None if attack == shared else attack,
        flags=() if cell.robust is None else cell.robust.flags,
        scores=tuple(found.get(mark) for mark in marks),
        total=_total(cell),
        verdict=cell.verdict,
        queries=f"{sum(item.queries for item in cell.evidence):,}" if cell.evidence else None,
        access=cell.access if cell.evidence else None,
        notes=cell.notes,
    )


def _score(item: EvidenceRecord) -> Score:
    title = f"{item.mark}: {item.bits:.2f} bits, p = {item.p}, statistic {item.statistic:.4g}, {item.queries:,} queries"
    return Score(f"{item.bits:,.1f}", decimal(item.p), style(item.bits), title)


def _total(cell: Result) -> Score | None:
    if cell.bits is None:
        return None
    p = p_of(cell.bits)
    return Score(f"{cell.bits:,.1f}", decimal(p), style(cell.bits), f"all marks: {cell.bits:.2f} bits, p = {p}")


def _facts(cell: Result, several: bool) -> tuple[str, ...]:
    """Return the small print of a suspect: how it was made, and what that took."""
    facts = [cell.data] if several else []
    facts += [cell.theft] if cell.theft else []
    facts += [f"{cell.queries:,} queries to steal"] if cell.queries is not None else []
    facts += [f"agrees {percent(cell.agreement)}"] if cell.agreement is not None else []
    return (*facts, f"seed\u00a0{cell.seed}")
