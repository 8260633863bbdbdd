"""Cells and tables, printed for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wootz.cli.options import print_json
from wootz.records import Before, Result, to_json

_OUT = Console()


def show_cell(cell: Result, *, as_json: bool) -> None:
    """Print a cell: as JSON, or in a few plain lines."""
    if as_json:
        print_json(to_json(cell))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _lines(cell):
        table.add_row(f"[dim]{name}[/dim]", value)
    _OUT.print(table)
    for note in cell.notes:
        _OUT.print(f"note: {_one_line(note)}", markup=False)


def show_mapping(values: Mapping[str, Any], *, as_json: bool) -> None:
    """Print named values: as JSON, or one per line."""
    if as_json:
        print_json(values)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in values.items():
        text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value)
        table.add_row(f"[dim]{name}[/dim]", text)
    _OUT.print(table)


def show_attacks(attacks: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a table of attacks: name, source, access, cost."""
    rows = [
        {"name": name, "source": row.source, "access": row.access, "cost": row.cost} for name, row in attacks.items()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("attack", "source", "access", "cost", box=None)
    for row in rows:
        table.add_row(*row.values())
    _OUT.print(table)


def _lines(cell: Result) -> list[tuple[str, str]]:
    theft = f", {cell.theft}" if cell.theft else ""
    lines = [("suspect", escape(_one_line(f"{cell.suspect} ({cell.kind}{theft}), {cell.data}")))]
    if cell.clean is not None:
        lines.append(("clean accuracy", f"{cell.clean:.2%}"))
    if cell.robust is not None:
        robust = cell.robust
        flags = f"; flags: {', '.join(robust.flags)}" if robust.flags else ""
        norm = "" if robust.norm == "Linf" else f" {robust.norm}"
        lines.append(
            (
                "certified accuracy" if robust.attack == "ibp" else "robust accuracy",
                f"{robust.accuracy:.2%} ({robust.attack}, eps {robust.eps:g}{norm}, {robust.n} images{flags})",
            )
        )
        if robust.queries is not None:
            per_image = f"mean {robust.queries.mean:,.1f}, median {robust.queries.median:,g}"
            lines.append(("queries per attacked image", per_image))
        if len(robust.fallen) > 1:
            lines.append(("first success by", ", ".join(f"{name} {count}" for name, count in robust.fallen.items())))
    if cell.before is not None:
        lines.append(("before marking", _before(cell.before)))
    if cell.queries is not None:
        lines.append(("queries", f"{cell.queries:,}"))
    if cell.agreement is not None:
        lines.append(("agreement with the target", f"{cell.agreement:.2%}"))
    if cell.price is not None:
        lost = "" if cell.price.robust is None else f", {100 * cell.price.robust:.1f} points of robust accuracy"
        lines.append(("lost against the target", f"{100 * cell.price.clean:.1f} points of clean{lost}"))
    for item in cell.evidence:
        lines.append((escape(_one_line(item.mark)), f"{item.bits:.1f} bits (p = {item.p}, {item.queries:,} queries)"))
    if cell.bits is not None:
        lines.append(("all marks together", f"{cell.bits:.1f} bits"))
    if cell.verdict is not None:
        lines.append(("verdict", f"[bold]{cell.verdict}[/bold]"))
    lines.append(("seconds", f"{cell.seconds:g}"))
    return lines


def _before(before: Before) -> str:
    clean = [] if before.clean is None else [f"clean {before.clean:.2%}"]
    robust = [] if before.robust is None else [f"robust {before.robust.accuracy:.2%}"]
    bits = [] if before.bits is None else [f"{before.bits:.1f} bits"]
    return ", ".join([*clean, *robust, *bits, f"{before.steps} steps"])


def _one_line(text: str) -> str:
    """Return untrusted text as one line, without control characters."""
    return "".join(one if one.isprintable() else "?" for one in " ".join(text.split()))


def show_matrix(cells: list[Result]) -> None:
    """Print the evidence matrix in bits: one row per suspect, one column per mark."""
    marks = list(dict.fromkeys(item.mark for cell in cells for item in cell.evidence))
    table = Table(box=None, caption="marks: evidence in bits", caption_justify="left")
    for name in ("suspect", "clean", "robust", *marks, "all", "verdict"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("suspect", "verdict") else "right")
    for cell in cells:
        found = {item.mark: f"{item.bits:.0f}" for item in cell.evidence}
        table.add_row(
            cell.suspect,
            "" if cell.clean is None else f"{cell.clean:.1%}",
            "" if cell.robust is None else f"{cell.robust.accuracy:.1%}",
            *[found.get(mark, "") for mark in marks],
            "" if cell.bits is None else f"{cell.bits:.0f}",
            cell.verdict or "",
        )
    _OUT.print(table)
