"""`wootz remove`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.attack import AttackName, AttackOut, run_attack
from wootz.cli.options import Count, DataDir, Device, Json, Precision, Resume, RunData, Seed, Settings, execution


def command(
    run: Annotated[Path | None, typer.Argument(help="Run folder of the model.")] = None,
    attack: AttackName = None,
    out: AttackOut = None,
    count: Count = 2000,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    resume: Resume = False,
    data: RunData = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Try to remove the watermarks of a model."""
    run_attack(
        "remove",
        run,
        attack,
        out,
        settings=settings or (),
        count=count,
        seed=seed,
        resume=resume,
        data=data,
        data_dir=data_dir,
        execution=execution(device, precision),
        as_json=as_json,
    )
