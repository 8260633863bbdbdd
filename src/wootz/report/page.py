"""The page itself: findings in, HTML out."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from wootz.records import SCHEMA
from wootz.report import plots
from wootz.report.matrix import matrix
from wootz.report.pictures import pictures
from wootz.report.read import Findings
from wootz.report.scale import SATURATION, style
from wootz.report.words import chief, commands, figures, lead, warnings

_SCALE_STEP = 20


def environment() -> Environment:
    """Return what fills the templates."""
    return Environment(
        loader=PackageLoader("wootz", "report"),
        autoescape=True,  # always: suspects are named by whoever made them
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(findings: Findings) -> str:
    """Return the page as HTML."""
    return environment().get_template("report.html.j2").render(_context(findings))


def legend_of_bits() -> list[tuple[int, str]]:
    """Return the steps of the color scale: bits, and their colors."""
    return [(bits, style(bits)) for bits in range(0, int(SATURATION) + 1, _SCALE_STEP)]


def _context(findings: Findings) -> dict[str, Any]:
    cells = findings.cells
    table = matrix(cells)
    robust = chief(cells).robust
    eps = None if robust is None else robust.eps
    lines = plots.lines_of(findings.curves, cells, eps)
    return {
        "schema": SCHEMA,
        "source": findings.source,
        "title": ", ".join(dict.fromkeys(cell.data for cell in cells)),
        "lead": lead(cells),
        "warnings": warnings(cells),
        "figures": figures(findings),
        "matrix": table,
        "marks": table.marks,
        "tested": any(cell.verdict is not None or cell.evidence for cell in cells),
        "steps": legend_of_bits(),
        "breakpoint": 780 + 115 * len(table.marks),
        "lines": lines,
        "robustness": plots.robustness(lines, eps) if lines else None,
        "training": plots.training(findings.training) if findings.training else None,
        "pictures": pictures(findings.triggers),
        "commands": commands(findings),
        "seeds": sorted({cell.seed for cell in cells}),
    }
