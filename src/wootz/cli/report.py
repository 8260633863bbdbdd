"""`wootz report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import Json, print_json


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of a demo, a run, or a grid.")],
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page from the records in a folder."""
    from wootz.report import write_report

    page = write_report(folder)
    if as_json:
        print_json({"report": str(page)})
    else:
        typer.echo(page)
