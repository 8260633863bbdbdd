"""Evidence matrices: suspects by marks for one owner, and the heat map of a grid, thefts by defences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wootz.records import INDEPENDENT, EvidenceRecord, Result
from wootz.report.formats import Decimal, css_colors, decimal, p_from_bits, percent
from wootz.report.summary import DataSetSummary, GridSummary, ResultGroup, RowKey, row_label
from wootz.report.text import GRID_KINDS, SUSPECT_KINDS, describe_robust, kind_of


class Score(NamedTuple):
    """Evidence as an entry of the matrix: its texts, its CSS colors, and its tooltip."""

    bits: str
    p: Decimal
    style: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectRow:
    """The texts of one suspect's row; None is what is not known.

    Attributes:
        name: The name of the suspect.
        facts: How the suspect was made, and at what cost.
        clean: Clean accuracy.
        robust: Robust accuracy.
        attack: How robust accuracy was measured, unless the whole matrix says it.
        flags: Why robust accuracy may be too high.
        scores: Evidence by mark, in the order of the matrix.
        total: Evidence of all marks together.
        verdict: The outcome of the verification.
        queries: The number of queries of the test.
        access: What the verifier saw of the suspect.
        notes: Remarks of the verification.
    """

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


class SuspectGroup(NamedTuple):
    """The rows of all suspects of one kind."""

    kind: str
    title: str
    meaning: str
    rows: tuple[SuspectRow, ...]


class Matrix(NamedTuple):
    """The marks in the order of the columns, the attack that all robust accuracies share (or None), and the rows."""

    marks: tuple[str, ...]
    attack: str | None
    groups: tuple[SuspectGroup, ...]


class HeatTile(NamedTuple):
    """The evidence of one row under one defence; `mark` holds reference signs: some seeds differ, some failed."""

    bits: str
    style: str
    strong: bool
    mark: str
    title: str


class HeatRow(NamedTuple):
    """A row of tiles; None was not tested, text is the errors of what failed."""

    name: str
    tiles: tuple[HeatTile | str | None, ...]


class HeatBlock(NamedTuple):
    """The rows of one kind."""

    kind: str
    title: str
    rows: tuple[HeatRow, ...]


class HeatMap(NamedTuple):
    """The evidence on one data set, all marks together; columns are the defences that have marks."""

    data: str
    columns: tuple[str, ...]
    blocks: tuple[HeatBlock, ...]


def evidence_matrix(results: Sequence[Result]) -> Matrix:
    """Return one row per suspect and one column per mark, grouped by kind."""
    marks = tuple(dict.fromkeys(item.mark for result in results for item in result.evidence))
    attacks = {describe_robust(result.robust) for result in results if result.robust is not None}
    shared = attacks.pop() if len(attacks) == 1 else None
    name_data = len({result.data for result in results}) > 1
    groups = []
    for kind, (title, meaning) in SUSPECT_KINDS.items():
        rows = tuple(_suspect_row(result, marks, shared, name_data) for result in results if kind_of(result) == kind)
        if rows:
            groups.append(SuspectGroup(kind, title, meaning, rows))
    return Matrix(marks, shared, tuple(groups))


def heat_map(summary: GridSummary, data: DataSetSummary) -> HeatMap | None:
    """Return the heat map of a data set, one row per theft and one column per defence; None if nothing was tested."""
    tested = {defence for (_, defence), group in data.groups.items() if group.total_bits is not None}
    defences = [defence for defence in data.defences if defence in tested]
    names = tuple(summary.names[defence] for defence in defences)
    blocks = []
    for kind, (title, _) in GRID_KINDS.items():
        rows = tuple(
            HeatRow(
                row_label(row, data.kinds),
                tuple(
                    _heat_tile(row, data.groups.get((row, defence)), name)
                    for defence, name in zip(defences, names, strict=True)
                ),
            )
            for row, row_kind in data.kinds.items()
            if row_kind == kind
        )
        if rows:
            blocks.append(HeatBlock(kind, title, rows))
    return HeatMap(data.name, names, tuple(blocks)) if defences else None


def _suspect_row(result: Result, marks: tuple[str, ...], shared: str | None, name_data: bool) -> SuspectRow:
    scores = {item.mark: _mark_score(item) for item in result.evidence}
    attack = None if result.robust is None else describe_robust(result.robust)
    return SuspectRow(
        name=result.suspect,
        facts=_facts(result, name_data),
        clean=None if result.clean is None else percent(result.clean),
        robust=None if result.robust is None else percent(result.robust.accuracy),
        attack=None if attack == shared else attack,
        flags=() if result.robust is None else result.robust.flags,
        scores=tuple(scores.get(mark) for mark in marks),
        total=_total_score(result),
        verdict=result.verdict,
        queries=f"{sum(item.queries for item in result.evidence):,}" if result.evidence else None,
        access=result.access if result.evidence else None,
        notes=result.notes,
    )


def _mark_score(item: EvidenceRecord) -> Score:
    title = f"{item.mark}: {item.bits:.2f} bits, p = {item.p}, statistic {item.statistic:.4g}, {item.queries:,} queries"
    return Score(f"{item.bits:,.1f}", decimal(item.p), css_colors(item.bits), title)


def _total_score(result: Result) -> Score | None:
    if result.bits is None:
        return None
    p = p_from_bits(result.bits)
    title = f"all marks: {result.bits:.2f} bits, p = {p}"
    return Score(f"{result.bits:,.1f}", decimal(p), css_colors(result.bits), title)


def _facts(result: Result, name_data: bool) -> tuple[str, ...]:
    """Return how a suspect was made, and at what cost."""
    facts = [result.data] if name_data else []
    facts += [result.theft] if result.theft else []
    facts += [f"{result.queries:,} queries to steal"] if result.queries is not None else []
    facts += [f"agrees {percent(result.agreement)}"] if result.agreement is not None else []
    return (*facts, f"seed\u00a0{result.seed}")


def _heat_tile(row: RowKey, group: ResultGroup | None, defence: str) -> HeatTile | str | None:
    if group is None:
        return None
    if not group.results:
        return "; ".join(dict.fromkeys(result.error or "" for result in group.failed))
    total = group.total_bits
    if total is None:
        return None
    independent = row.theft == INDEPENDENT
    bits = total.max if independent else total.mean
    seeds_differ = not independent and 0 < total.reaching < total.n
    statistic = "highest of" if independent else "mean of"
    title = (
        f"{row.theft} against {defence}: {statistic} {total.n}, {bits:.1f} bits (p = {p_from_bits(bits)}), "
        f"{total.min:.1f} to {total.max:.1f}; {total.reaching} of {total.n} reach the bar of {group.threshold:g}"
    )
    mark = "\u2020" if seeds_differ else ""
    mark += "*" if group.failed else ""
    title += f"; {len(group.failed)} failed" if group.failed else ""
    return HeatTile(f"{bits:,.0f}", css_colors(bits), bits >= group.threshold, mark, title)
