"""`wootz steal`."""

from __future__ import annotations

from typing import Annotated

import typer

from wootz.cli.attack import AttackName, AttackOut, run_attack
from wootz.cli.options import (
    Count,
    DataDir,
    Device,
    EndpointOptions,
    Json,
    Precision,
    Resume,
    Seed,
    Settings,
    execution,
)


def command(
    run: Annotated[str | None, typer.Argument(help="Run folder, or URL such as http://host/v2/models/NAME.")] = None,
    attack: AttackName = None,
    out: AttackOut = None,
    access: Annotated[
        str | None, typer.Option("--access", help="Answers that the target shows: label, scores, top-K, rounded-D.")
    ] = None,
    budget: Annotated[int | None, typer.Option("--budget", min=1, help="Query budget of the attack.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Data set of a URL's model, if its metadata do not name it, or of a run, if it was moved."
        ),
    ] = None,
    client: EndpointOptions = None,
    served: Annotated[
        bool,
        typer.Option("--through-guard", help="Query a run folder through its guard; the guard's log goes into --out."),
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
    """Extract a model through its answers."""
    run_attack(
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
        as_json=as_json,
    )
