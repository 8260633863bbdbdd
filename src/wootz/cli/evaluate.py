"""`wootz evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import Count, DataDir, Device, Json, RunData, Seed, execution, parse_eps, progress_bar
from wootz.cli.show import show_attacks, show_cell
from wootz.errors import ConfigError


def command(
    run: Annotated[Path | None, typer.Argument(help="Run folder.")] = None,
    attack: Annotated[
        str,
        typer.Option(
            "--attack",
            help="pgd (40 steps x 2), pgd-50x10, ensemble (worst case of several), autoattack (the reference), "
            "pgd-25 (the founding paper's), ibp (certified: a lower bound), or one attack alone; `list` lists all.",
        ),
    ] = "pgd",
    count: Count = 2000,
    eps: Annotated[
        str | None, typer.Option("--eps", help="Budget in pixels of [0, 1], e.g. 0.25 or 8/255 (default: the run's).")
    ] = None,
    norm: Annotated[str, typer.Option("--norm", help="Linf or L2.")] = "Linf",
    seed: Seed = 0,
    device: Device = "auto",
    data: RunData = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Clean and robust accuracy on test images, with reliability flags."""
    from wootz import checks
    from wootz.attacks.evasion import ATTACKS
    from wootz.workflows.evaluate import evaluate_run

    if attack == "list":
        show_attacks(ATTACKS, as_json=as_json)
        return
    if run is None:
        raise ConfigError("evaluate: needs a run folder")
    checks.one_of(("Linf", "L2"), norm=norm)
    with progress_bar() as progress:
        cell = evaluate_run(
            run,
            attack=attack,
            count=count,
            eps=parse_eps("eps", eps),
            norm=norm,  # type: ignore[arg-type]
            seed=seed,
            data=data,
            data_dir=data_dir,
            execution=execution(device),
            progress=progress,
        )
    show_cell(cell, as_json=as_json)
