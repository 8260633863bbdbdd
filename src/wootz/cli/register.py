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
        str | None, typer.Option("--tsa", help="Address of an RFC 3161 authority that stamps model and guard log.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign what the run registered before its keys were drawn, with the model that they are in; a claim needs it.

    A key is registered with one model. Each call with --tsa also seals the guard's log as it is.
    """
    from wootz.workflows.register import register_run

    show_facts(register_run(run, tsa=tsa), as_json=as_json)
