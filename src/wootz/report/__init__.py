"""One self-contained HTML page from the records in a folder: no scripts, nothing loaded from elsewhere.

`read` checks what is there. Of a demo or a run, `matrix`, `words`, `plots` and `pictures` make what is shown and
`page` fills the template. Of a grid, `survey` puts the cells in order, `tables`, `listings`, `heatmap` and `trade`
make what is shown, `renderers` write tables, and `grid_page` puts all together. The same records give the same bytes.
`sinks` hand a grid's cells to experiment trackers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wootz.report.bench import read_bench
from wootz.report.grid_page import render_grid
from wootz.report.page import render
from wootz.report.read import read_findings, read_runs
from wootz.report.sinks import send
from wootz.store import write_bytes

__all__ = ["send", "write_report", "write_reports"]


def write_report(folder: Path) -> Path:
    """Write the report of `folder` (a demo, a grid or a run) and return the path of its page, `report.html`.

    Raises:
        StoreError: the folder holds no records, one of its files is broken, or the page can not be written.
    """
    return write_reports(folder)["html"]


def write_reports(folder: Path, beside: Sequence[Path] = ()) -> dict[str, Path]:
    """Write `report.html`, and of a grid `report.md`, `report.csv` and `report.tex` too; return ending -> path.

    Args:
        folder: of the records, and where the report goes.
        beside: folders of other runs of the same grid, whose cells count, too.

    Raises:
        StoreError: as `write_report`; or of two runs one is of no grid, or their cells stand on other axes.
    """
    if beside:
        texts = render_grid(read_runs([folder, *beside]), replace(read_bench(folder), seconds=None, work=None))
    else:
        findings = read_findings(folder)
        grid = findings.source == "grid" and bool(findings.cells[0].axes)  # a plain list of cells has none
        texts = render_grid([findings.cells], read_bench(folder)) if grid else {"html": render(findings)}
    paths = {ending: folder / f"report.{ending}" for ending in texts}
    for ending, path in paths.items():
        write_bytes(path, texts[ending].encode())
    return paths
