"""`wootz remove`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import Count, DataDir, Device, Json, Precision, Resume, Seed, Settings, execution, progress_bar
from wootz.cli.show import show_attacks, show_cell
from wootz.errors import ConfigError


def command(
    run: Annotated[Path | None, typer.Argument(help="Run folder of the model.")] = None,
    attack: Annotated[str | None, typer.Option("--attack", help="Name of the attack; `list` lists all.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder to make.")] = None,
    count: Count = 2000,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    resume: Resume = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Try to remove the watermarks of a model."""
    from wootz.attacks.removal import ATTACKS
    from wootz.workflows.attack import attack_run

    if attack == "list":
        show_attacks(ATTACKS, as_json=as_json)
        return
    if attack is None or run is None or out is None:
        raise ConfigError("remove: needs a run folder, --attack NAME (--attack list lists all) and --out DIR")
    with progress_bar() as progress:
        cell = attack_run(
            "remove",
            run,
            attack,
            out,
            settings=settings or (),
            count=count,
            seed=seed,
            resume=resume,
            data_dir=data_dir,
            execution=execution(device, precision),
            progress=progress,
        )
    show_cell(cell, as_json=as_json)
