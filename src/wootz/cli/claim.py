"""`wootz claim`."""

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
    EndpointOptions,
    Json,
    NumTests,
    TorchZip,
    progress_bar,
)
from wootz.cli.show import show_cell


def command(
    owner: Annotated[Path, typer.Argument(help="The owner's run folder, registered.")],
    suspect: Annotated[str, typer.Argument(help=SUSPECT)],
    out: Annotated[Path, typer.Option("--out", help="Certificate to write (.json); its images stand beside it.")],
    access: AccessOption = "scores",
    budget: Budget = None,
    num_tests: NumTests = 1,
    calibrate: Calibrate = 0,
    boundary_queries: BoundaryQueries = 0,
    yes: Annotated[
        bool, typer.Option("--yes", help="Claim even where the whole key gives fewer bits than the claim needs.")
    ] = False,
    allow_torch_zip: TorchZip = False,
    architecture: Architecture = "",
    client: EndpointOptions = None,
    as_json: Json = False,
) -> None:
    """Reveal one part of the key against a suspect, and write a signed claim that a judge can re-check.

    A claim needs 40 bits, or 80 if the keys have no time token. For a suspect in a file the whole key is tested first.

    The revealed part is used against no other suspect. Exit codes are those of `wootz verify`.
    """
    from wootz.statistics import EXIT_CODES
    from wootz.workflows.claim import check_certificate_path, claim_suspect
    from wootz.workflows.owner import Owner
    from wootz.workflows.suspects import QueryConfig

    check_certificate_path(out)
    query = QueryConfig(
        access=access,  # type: ignore[arg-type]
        budget=budget,
        num_tests=num_tests,
        calibrate=calibrate,
        boundary_queries=boundary_queries,
        torch_zip=allow_torch_zip,
        architecture=architecture,
        client=tuple(client or ()),
    )
    with progress_bar() as progress:
        claim = claim_suspect(Owner.load(owner), suspect, query, transcripts=out.parent, force=yes, progress=progress)
        claim.save(out)
    show_cell(claim.cell, as_json=as_json)
    raise typer.Exit(EXIT_CODES[claim.verdict.outcome])
