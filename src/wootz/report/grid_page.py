"""The report of a grid: its page, and its tables for papers and machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wootz.records import SCHEMA, Result
from wootz.report.bench import Bench
from wootz.report.grid_words import alerts, figures, size, verdict
from wootz.report.heatmap import heat_map
from wootz.report.listings import failures, measured
from wootz.report.page import environment, legend_of_bits
from wootz.report.plots import COLORS, MARKERS, Stroke
from wootz.report.renderers import plain_markdown, to_csv, to_html, to_latex, to_markdown
from wootz.report.survey import DataSet, Survey, survey
from wootz.report.tables import Table, defence_table, measurements, panels, theft_table
from wootz.report.trade import trade


def render_grid(runs: Sequence[Sequence[Result]], bench: Bench) -> dict[str, str]:
    """Return the report of a grid of one or more runs: ending of the file -> its text."""
    found = survey(*runs)
    tables = [table for data in found.data for table in (defence_table(found, data), theft_table(found, data))]
    failed = failures(found)
    tables += [failed] if failed is not None else []
    return {
        "html": environment().get_template("grid.html.j2").render(_context(found, bench, failed)),
        "md": _markdown(found, bench, tables),
        "csv": to_csv(measurements(found)),
        "tex": "\n".join(["% Needs \\usepackage{booktabs}.\n", *map(to_latex, tables)]),
    }


def title_of(found: Survey, bench: Bench) -> str:
    """Return what the grid is called: its name, or its data sets."""
    return bench.name or ", ".join(data.name for data in found.data)


def _markdown(found: Survey, bench: Bench, tables: list[Table]) -> str:
    words = [f"# {plain_markdown(title_of(found, bench))}", f"{size(found)}.", plain_markdown(verdict(found))]
    words += [f"**{plain_markdown(alert)}**" for alert in alerts(found)]
    return "\n".join([*(f"{line}\n" for line in words), *map(to_markdown, tables)])


def _context(found: Survey, bench: Bench, failed: Table | None) -> dict[str, Any]:
    marks = dict.fromkeys(mark for data in found.data for group in data.groups.values() for mark in group.bits)
    cells = measured(found)
    kinds = {kind for data in found.data for kind in data.kinds.values()}
    return {
        "schema": SCHEMA,
        "title": title_of(found, bench),
        "lead": verdict(found),
        "size": size(found),
        "warnings": alerts(found),
        "figures": figures(found, bench),
        "tested": bool(marks),
        "marks": tuple(marks),
        "steps": legend_of_bits(),
        "breakpoint": 0,  # its tables scroll; none becomes cards
        "data": [_part(found, data) for data in found.data],
        "strokes": [(kind, Stroke(COLORS[kind], MARKERS[kind] or "x", None)) for kind in COLORS if kind in kinds],
        "failed": None if failed is None else to_html(failed),
        "num_failed": f"{len(found.failed):,}",
        "cells": None if cells is None else (cells.title, to_html(cells)),
        "bench": bench,
        "commands": (bench.command or "wootz bench GRID.toml --out DIR", "wootz report DIR"),
        "seeds": sorted({cell.seed for cell in found.cells}),
    }


def _part(found: Survey, data: DataSet) -> dict[str, Any]:
    """Return everything that the page shows of one data set."""
    thefts = theft_table(found, data)
    defences = defence_table(found, data)
    parts = panels(thefts, 1)
    widest = max(parts, key=lambda part: len(part.header))  # the first that has all there is to show
    return {
        "name": data.name,
        "heat": heat_map(found, data),
        "trade": trade(found, data),
        "evaluation": next((evaluation.attack for evaluation in data.evaluations), None),
        "defences": to_html(defences),
        "thefts": [(part.header[0].group, to_html(_bare(part)), part is widest) for part in parts],
        "notes": " ".join(thefts.notes),
    }


def _bare(part: Table) -> Table:
    """Return a part whose group and notes stand elsewhere on the page."""
    return replace(part, header=tuple(column._replace(group="") for column in part.header), notes=())
