"""`wootz report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import Json, print_json
from wootz.errors import ConfigError

Sinks = Annotated[
    list[str] | None,
    typer.Option("--sink", help="Send a grid's cells too: tensorboard=LOGDIR or mlflow=URI. May be repeated."),
]


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of a demo, a run, or a grid.")],
    beside: Annotated[
        list[Path] | None,
        typer.Option("--beside", help="Folder of another run of the grid, whose cells count too. May be repeated."),
    ] = None,
    sink: Sinks = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page from the records in a folder, and of a grid its tables."""
    from wootz.report import send, write_reports

    targets = [_target(text) for text in sink or ()]
    paths = write_reports(folder, beside or ())
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
        raise ConfigError(f"--sink {text}: should be tensorboard=LOGDIR or mlflow=URI")
    return name, target
