"""`wootz verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import AccessOption, Budget, Json, Tries, access_of, progress
from wootz.cli.show import show_cell


def command(
    owner: Annotated[Path, typer.Argument(help="The owner's run folder, with its key.")],
    suspect: Annotated[Path, typer.Argument(help="Run folder, or .safetensors file with its model.json beside it.")],
    access: AccessOption = "scores",
    bits: Annotated[float, typer.Option("--bits", min=0, help="Bits of evidence that make KEY-DEPENDENT.")] = 40,
    budget: Budget = None,
    tries: Tries = 1,
    early: Annotated[
        bool, typer.Option("--early", help="Ask triggers one at a time, decoys between, and stop at the bar.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Evidence per mark, total bits, verdict.

    Exit code 0 KEY-DEPENDENT, 1 NOT SHOWN, 3 INCONCLUSIVE, 4 INVALID CLAIM.
    """
    from wootz.stages.verify import verify_suspect
    from wootz.verify import EXIT_CODES

    with progress() as tell:
        cell = verify_suspect(
            owner, suspect, access=access_of(access), bar=bits, budget=budget, tries=tries, early=early, tell=tell
        )
    show_cell(cell, as_json=as_json)
    raise typer.Exit(EXIT_CODES[cell.verdict])  # type: ignore[index]
