"""`wootz register`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import Json
from wootz.cli.show import show_mapping


def command(
    run: Annotated[Path, typer.Argument(help="The owner's run folder, with its key.")],
    tsa: Annotated[
        str | None, typer.Option("--tsa", help="URL of an RFC 3161 authority that timestamps model and guard log.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign the registration of a run together with its model; a claim needs this.

    A key is registered with one model. Each call with --tsa also timestamps the guard's log.
    """
    from wootz.workflows.register import register_run

    show_mapping(register_run(run, tsa=tsa), as_json=as_json)
