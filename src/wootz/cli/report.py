"""`wootz report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import Json, print_json
from wootz.errors import ConfigError

Sinks = Annotated[
    list[str] | None,
    typer.Option("--sink", help="Also send a grid's cells to tensorboard=LOGDIR or mlflow=URI (repeatable)."),
]


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of a demo, a run, or a grid.")],
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", help="Folder of another run of the same grid, to merge its cells (repeatable)."),
    ] = None,
    sink: Sinks = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page from the records in a folder, and for a grid its tables."""
    from wootz.report import send, write_reports

    targets = [_target(text) for text in sink or ()]
    paths = write_reports(folder, merge or ())
    sent = {name: send(folder, name, target) for name, target in targets}
    if as_json:
        more = {"files": [str(path) for path in paths.values()]} | ({"sent": sent} if sent else {})
        print_json({"report": str(paths["html"])} | more)
        return
    for path in paths.values():
        typer.echo(path)


def _target(text: str) -> tuple[str, str]:
    name, equals, target = text.partition("=")
    if not equals or not target:
        raise ConfigError(f"--sink {text}: must be tensorboard=LOGDIR or mlflow=URI")
    return name, target
