"""`wootz claim`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import (
    SUSPECT,
    AccessOption,
    Budget,
    Calibrate,
    ClientSettings,
    Json,
    TorchZip,
    Tries,
    Walks,
    progress_bar,
)
from wootz.cli.show import show_cell


def command(
    owner: Annotated[Path, typer.Argument(help="The owner's run folder, registered.")],
    suspect: Annotated[str, typer.Argument(help=SUSPECT)],
    out: Annotated[Path, typer.Option("--out", help="Certificate to write (.json); its images stand beside it.")],
    access: AccessOption = "scores",
    budget: Budget = None,
    tries: Tries = 1,
    calibrate: Calibrate = 0,
    boundary_queries: Walks = 0,
    allow_torch_zip: TorchZip = False,
    client: ClientSettings = None,
    as_json: Json = False,
) -> None:
    """Open one part of the key against a suspect, and write a signed claim that a judge can re-check.

    The part that was opened is burnt: no other suspect is claimed with it. Exit codes as of `wootz verify`.
    """
    from wootz.statistics import EXIT_CODES, Outcome
    from wootz.workflows.claim import claim_suspect
    from wootz.workflows.suspects import QueryConfig

    query = QueryConfig(
        access=access,  # type: ignore[arg-type]
        budget=budget,
        tries=tries,
        calibrate=calibrate,
        boundary_queries=boundary_queries,
        torch_zip=allow_torch_zip,
        client=tuple(client or ()),
    )
    with progress_bar() as progress:
        cell = claim_suspect(owner, suspect, out, query, progress=progress)
    show_cell(cell, as_json=as_json)
    raise typer.Exit(EXIT_CODES[Outcome(str(cell.verdict))])
