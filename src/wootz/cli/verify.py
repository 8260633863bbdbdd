"""`wootz verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import Json, progress
from wootz.cli.show import show_cell


def command(
    owner: Annotated[Path, typer.Argument(help="The owner's run folder, with its key.")],
    suspect: Annotated[Path, typer.Argument(help="Run folder, or .safetensors file with its model.json beside it.")],
    access: Annotated[str, typer.Option("--access", help="What the suspect shows: scores, or top-1 label.")] = "scores",
    bits: Annotated[float, typer.Option("--bits", min=0, help="Bits of evidence that make KEY-DEPENDENT.")] = 40,
    budget: Annotated[int | None, typer.Option("--budget", min=1, help="Queries a mark may spend at most.")] = None,
    as_json: Json = False,
) -> None:
    """Evidence per mark, total bits, verdict.

    Exit code 0 KEY-DEPENDENT, 1 NOT SHOWN, 3 INCONCLUSIVE, 4 INVALID CLAIM.
    """
    from wootz import checks
    from wootz.stages.verify import verify_suspect
    from wootz.verify import EXIT_CODES

    checks.one_of(("scores", "label"), access=access)
    with progress() as tell:
        cell = verify_suspect(owner, suspect, access=access, bar=bits, budget=budget, tell=tell)  # type: ignore[arg-type]
    show_cell(cell, as_json=as_json)
    raise typer.Exit(EXIT_CODES[cell.verdict])  # type: ignore[index]
