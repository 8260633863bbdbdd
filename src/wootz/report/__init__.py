"""Reports: one self-contained HTML page from the records in a folder, without scripts or external resources.

`read` checks the records. For a demo or a run, `matrix`, `plots`, `images` and `text` make the content of the page.
For a grid, `summary` groups the results, `matrix`, `plots` and `tables` make the content, and `renderers` write tables
in four formats. `page` puts everything together; equal records give equal bytes. `sinks` send the results of a grid to
experiment trackers.
"""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wootz.extras import require

require("report")

from wootz.report.page import render_grid, render_page
from wootz.report.read import read_findings, read_grid_metadata, read_runs
from wootz.report.sinks import send
from wootz.store import write_bytes

__all__ = ["send", "write_report", "write_reports"]


def write_report(folder: Path) -> Path:
    """Write the report of a folder (a demo, a grid or a run) and return the path of its page, `report.html`.

    Raises:
        StoreError: The folder holds no records, one of its files is broken, or the page cannot be written.
    """
    return write_reports(folder)["html"]


def write_reports(folder: Path, others: Sequence[Path] = ()) -> dict[str, Path]:
    """Write `report.html`, and for a grid `report.md`, `report.csv` and `report.tex` too; return ending -> path.

    Args:
        folder: The folder of the records, where the report is written.
        others: Folders of further runs of the same grid, whose results count as well.

    Raises:
        StoreError: As `write_report`; or one of several runs holds no grid or a grid with other axes, or two runs
            hold the same results.
    """
    if others:
        metadata = replace(read_grid_metadata(folder), seconds=None, job_seconds=None)
        texts = render_grid(read_runs([folder, *others]), metadata)
    else:
        findings = read_findings(folder)
        if findings.source == "grid" and findings.results[0].axes:
            texts = render_grid([findings.results], read_grid_metadata(folder))
        else:  # a list of results without axes is no grid
            texts = {"html": render_page(findings)}
    paths = {ending: folder / f"report.{ending}" for ending in texts}
    for ending, path in paths.items():
        write_bytes(path, texts[ending].encode())
    return paths
