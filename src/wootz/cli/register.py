"""`wootz register`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import Json
from wootz.cli.show import show_facts


def command(
    run: Annotated[Path, typer.Argument(help="The owner's run folder, with its key.")],
    tsa: Annotated[
        str | None, typer.Option("--tsa", help="Address of an RFC 3161 authority that stamps the guard's log.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign what the run registered before its keys were drawn, and for which model; a claim needs it."""
    from wootz.stages.register import register_run

    show_facts(register_run(run, tsa=tsa), as_json=as_json)
