"""Pages and reports: results in, HTML, Markdown, CSV and LaTeX out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from wootz.records import SCHEMA, Result
from wootz.report.formats import SATURATION_BITS, css_colors
from wootz.report.images import trigger_images
from wootz.report.matrix import evidence_matrix, heat_map
from wootz.report.plots import (
    COLORS,
    MARKERS,
    Stroke,
    robustness_lines,
    robustness_plot,
    tradeoff_plot,
    training_plot,
)
from wootz.report.read import Findings, GridMetadata
from wootz.report.renderers import plain_markdown, to_csv, to_html, to_latex, to_markdown
from wootz.report.summary import DataSetSummary, GridSummary, summarize
from wootz.report.tables import (
    Table,
    defence_table,
    failed_results,
    measured_results,
    measurements,
    split_columns,
    theft_table,
)
from wootz.report.text import (
    KIND_LEGEND,
    alerts,
    commands,
    evidence_texts,
    figures,
    grid_alerts,
    grid_commands,
    grid_figures,
    grid_lead,
    grid_size,
    lead,
    main_result,
)
from wootz.types import KINDS, THRESHOLD_BITS, Outcome

_SCALE_STEP = 20
"""Bits between two steps of the color scale."""


def render_page(findings: Findings) -> str:
    """Return the page of a demo, a run, or a list of results without axes, as HTML."""
    results = findings.results
    matrix = evidence_matrix(results)
    robust = main_result(results).robust
    eps = None if robust is None else robust.eps
    lines = robustness_lines(findings.curves, results, eps)
    context = {
        "source": findings.source,
        "title": ", ".join(dict.fromkeys(result.data for result in results)),
        "lead": lead(results),
        "alerts": alerts(results),
        "figures": figures(findings),
        "matrix": matrix,
        "evidence": evidence_texts(results),
        "tested": any(result.verdict is not None or result.evidence for result in results),
        "breakpoint": 780 + 115 * len(matrix.marks),
        "lines": lines,
        "robustness": robustness_plot(lines, eps) if lines else None,
        "training": training_plot(findings.training) if findings.training else None,
        "triggers": trigger_images(findings.triggers),
        "commands": commands(findings),
        "seeds": sorted({result.seed for result in results}),
    }
    return _render("report.html.j2", context)


def render_grid(runs: Sequence[Sequence[Result]], metadata: GridMetadata) -> dict[str, str]:
    """Return the report of a grid of one or more runs: ending of the file -> its text."""
    summary = summarize(*runs)
    tables = [table for data in summary.data for table in (defence_table(summary, data), theft_table(summary, data))]
    failed = failed_results(summary)
    tables += [failed] if failed is not None else []
    return {
        "html": _render("grid.html.j2", _grid_context(summary, metadata, failed)),
        "md": _markdown(summary, metadata, tables),
        "csv": to_csv(measurements(summary)),
        "tex": "\n".join(["% Needs \\usepackage{booktabs}.\n", *map(to_latex, tables)]),
    }


def _render(template: str, context: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("wootz", "report"),
        autoescape=True,  # names in records are not trusted
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "schema": SCHEMA,
        "kinds": KINDS,
        "Outcome": Outcome,
        "threshold_bits": THRESHOLD_BITS,
        "scale_steps": [(bits, css_colors(bits)) for bits in range(0, int(SATURATION_BITS) + 1, _SCALE_STEP)],
    }
    return environment.get_template(template).render(context)


def _title(summary: GridSummary, metadata: GridMetadata) -> str:
    return metadata.name or ", ".join(data.name for data in summary.data)


def _markdown(summary: GridSummary, metadata: GridMetadata, tables: list[Table]) -> str:
    head = [f"# {plain_markdown(_title(summary, metadata))}", f"{grid_size(summary)}."]
    head += [plain_markdown(grid_lead(summary)), *(f"**{plain_markdown(alert)}**" for alert in grid_alerts(summary))]
    return "\n".join([*(f"{line}\n" for line in head), *map(to_markdown, tables)])


def _grid_context(summary: GridSummary, metadata: GridMetadata, failed: Table | None) -> dict[str, Any]:
    evidence = evidence_texts(summary.results)
    measured = measured_results(summary)
    kinds = {kind for data in summary.data for kind in data.kinds.values()}
    return {
        "title": _title(summary, metadata),
        "lead": grid_lead(summary),
        "size": grid_size(summary),
        "alerts": grid_alerts(summary),
        "figures": grid_figures(summary, metadata),
        "tested": any(group.bits for data in summary.data for group in data.groups.values()),
        "evidence": evidence,
        "breakpoint": 0,  # its tables scroll; none becomes cards
        "data": [_data_context(summary, data) for data in summary.data],
        "strokes": [
            (KIND_LEGEND[kind], Stroke(COLORS[kind], MARKERS[kind] or "x", None)) for kind in KINDS if kind in kinds
        ],
        "failed": None if failed is None else (failed.title, to_html(failed)),
        "measured": None if measured is None else (measured.title, to_html(measured)),
        "metadata": metadata,
        "commands": grid_commands(metadata),
        "seeds": sorted({result.seed for result in summary.results}),
    }


def _data_context(summary: GridSummary, data: DataSetSummary) -> dict[str, Any]:
    """Return everything that the page shows of one data set."""
    thefts = theft_table(summary, data)
    parts = split_columns(thefts, 1)
    widest = max(parts, key=lambda part: len(part.header))  # the first of them is shown open
    return {
        "name": data.name,
        "heat_map": heat_map(summary, data),
        "tradeoff": tradeoff_plot(summary, data),
        "evaluation": next((evaluation.attack for evaluation in data.evaluations), None),
        "defences": to_html(defence_table(summary, data)),
        "thefts": [(part.header[0].group, to_html(_without_group(part)), part is widest) for part in parts],
        "notes": " ".join(thefts.notes),
    }


def _without_group(part: Table) -> Table:
    """Return a part without its group and notes, which the page shows elsewhere."""
    return replace(part, header=tuple(column._replace(group="") for column in part.header), notes=())
