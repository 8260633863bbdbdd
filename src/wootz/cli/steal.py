"""`wootz steal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import (
    ClientSettings,
    Count,
    DataDir,
    Device,
    Json,
    Precision,
    Resume,
    Seed,
    Settings,
    execution,
    progress_bar,
)
from wootz.cli.show import show_attacks, show_cell
from wootz.errors import ConfigError


def command(
    run: Annotated[
        str | None, typer.Argument(help="The victim's run folder, or URL such as http://host/v2/models/NAME.")
    ] = None,
    attack: Annotated[str, typer.Option("--attack", help="Name of the attack; `list` lists them.")] = "list",
    out: Annotated[Path | None, typer.Option("--out", help="The thief's run folder to make.")] = None,
    access: Annotated[
        str | None, typer.Option("--access", help="What the victim shows: label, scores, top-K, rounded-D.")
    ] = None,
    budget: Annotated[int | None, typer.Option("--budget", min=1, help="Queries the thief may spend.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data set that a URL's model knows, if it does not say.")
    ] = None,
    client: ClientSettings = None,
    served: Annotated[
        bool, typer.Option("--served", help="Ask a run folder through its guard; the guard's log comes into --out.")
    ] = False,
    count: Count = 2000,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    resume: Resume = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Steal a model through its answers."""
    from wootz.attacks.extraction import ATTACKS
    from wootz.workflows.attack import attack_run

    if attack == "list":
        show_attacks(ATTACKS, as_json=as_json)
        return
    if run is None or out is None:
        raise ConfigError("steal: needs the victim's run folder and --out for the thief's")
    with progress_bar() as progress:
        cell = attack_run(
            "steal",
            run,
            attack,
            out,
            settings=settings or (),
            access=access,
            budget=budget,
            count=count,
            seed=seed,
            resume=resume,
            data=data,
            client=client or (),
            served=served,
            data_dir=data_dir,
            execution=execution(device, precision),
            progress=progress,
        )
    show_cell(cell, as_json=as_json)
