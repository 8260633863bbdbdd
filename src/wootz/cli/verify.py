"""`wootz verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import (
    SUSPECT,
    AccessOption,
    Architecture,
    BoundaryQueries,
    Budget,
    Calibrate,
    Early,
    EndpointOptions,
    Json,
    NumTests,
    TorchZip,
    progress_bar,
)
from wootz.cli.show import show_cell


def command(
    owner: Annotated[Path, typer.Argument(help="The owner's run folder, with its key.")],
    suspect: Annotated[str, typer.Argument(help=SUSPECT)],
    access: AccessOption = "scores",
    bits: Annotated[float, typer.Option("--bits", min=0, help="Bits of evidence for KEY-DEPENDENT.")] = 40,
    budget: Budget = None,
    num_tests: NumTests = 1,
    early: Early = None,
    calibrate: Calibrate = 0,
    boundary_queries: BoundaryQueries = 0,
    allow_torch_zip: TorchZip = False,
    architecture: Architecture = "",
    client: EndpointOptions = None,
    guard_log: Annotated[
        Path | None, typer.Option("--guard-log", help="The guard's log, if it is not in the run folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evidence per mark, total bits, verdict.

    Exit code 0 KEY-DEPENDENT, 1 NOT SHOWN, 3 INCONCLUSIVE, 4 INVALID CLAIM.
    """
    from wootz.statistics import EXIT_CODES, Outcome
    from wootz.workflows.owner import Owner
    from wootz.workflows.suspects import QueryConfig
    from wootz.workflows.verify import verify_cell

    query = QueryConfig(
        access=access,  # type: ignore[arg-type]
        budget=budget,
        num_tests=num_tests,
        early=early,
        calibrate=calibrate,
        boundary_queries=boundary_queries,
        torch_zip=allow_torch_zip,
        architecture=architecture,
        client=tuple(client or ()),
    )
    with progress_bar() as progress:
        cell = verify_cell(
            Owner.load(owner), suspect, query, threshold_bits=bits, guard_log=guard_log, progress=progress
        )
    show_cell(cell, as_json=as_json)
    raise typer.Exit(EXIT_CODES[Outcome(str(cell.verdict))])
