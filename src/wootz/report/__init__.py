"""One self-contained HTML page from the records in a folder: no scripts, nothing loaded from elsewhere.

`read` checks what is there, `matrix`, `words`, `plots` and `pictures` turn it into what is shown, `page` fills
the template. The same records give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from wootz.report.page import render
from wootz.report.read import read_findings
from wootz.store import write_bytes

__all__ = ["write_report"]


def write_report(folder: Path) -> Path:
    """Write `report.html` from the records in `folder` (a demo, a grid or a run) and return its path.

    Raises:
        StoreError: the folder holds no records, one of its files is broken, or the page can not be written.
    """
    page = folder / "report.html"
    write_bytes(page, render(read_findings(folder)).encode())
    return page
