"""`wootz evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import (
    SUSPECT,
    Architecture,
    Calibrate,
    DataDir,
    Device,
    EndpointOptions,
    Json,
    Seed,
    TorchZip,
    execution,
    parse_eps,
    progress_bar,
)
from wootz.cli.show import show_attacks, show_cell
from wootz.errors import ConfigError


def command(
    model: Annotated[str | None, typer.Argument(help=SUSPECT)] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            "--attack",
            help="pgd (40 steps x 2), pgd-50x10, ensemble (worst case of several), autoattack (the reference), "
            "pgd-25 (the founding paper's), ibp (certified: a lower bound), black-box (queries alone), or one attack "
            "alone; `list` lists all. Default: pgd for a run folder, black-box for a file or URL.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "-n", min=1, help="Number of test images (default: 2000 for a run folder, 500 for a file, 100 for a URL)."
        ),
    ] = None,
    eps: Annotated[
        str | None, typer.Option("--eps", help="Budget in pixels of [0, 1], e.g. 0.25 or 8/255 (default: the run's).")
    ] = None,
    access: Annotated[
        str | None,
        typer.Option(
            "--access",
            help="Attack by queries alone: scores (default for a file or URL) or label. A run folder is then opened "
            "like a suspect's.",
        ),
    ] = None,
    max_queries: Annotated[
        int | None,
        typer.Option(
            "--max-queries", min=1, help="Queries per image that black-box attacks may spend (default for a URL: 1000)."
        ),
    ] = None,
    calibrate: Calibrate = 0,
    client: EndpointOptions = None,
    allow_torch_zip: TorchZip = False,
    architecture: Architecture = "",
    norm: Annotated[str, typer.Option("--norm", help="Linf or L2.")] = "Linf",
    seed: Seed = 0,
    device: Device = "auto",
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data set: of a file or URL, or of a run if it is no longer where it was."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Clean and robust accuracy on test images, with reliability flags.

    A run folder is attacked with its gradients. A file or URL needs --data and --eps, and is attacked by queries alone,
    which are counted; an interrupted evaluation continues when the command is repeated. Exit code 3 if it could not be
    queried.
    """
    from wootz import checks
    from wootz.attacks.evasion import ATTACKS
    from wootz.workflows.evaluate import TEST_IMAGES, evaluate_run, evaluate_suspect
    from wootz.workflows.suspects import QueryConfig, is_endpoint

    if attack == "list":
        show_attacks(ATTACKS, as_json=as_json)
        return
    if model is None:
        raise ConfigError("evaluate: needs a run folder, a file or a URL")
    checks.one_of(("Linf", "L2"), norm=norm)
    is_file = not is_endpoint(model) and (Path(model).is_file() or (not Path(model).exists() and Path(model).suffix))
    by_queries = is_endpoint(model) or is_file or access in ("scores", "label")
    query = QueryConfig(
        access=access or "scores",  # type: ignore[arg-type]
        calibrate=calibrate,
        torch_zip=allow_torch_zip,
        architecture=architecture,
        client=tuple(client or ()),
    )
    if not by_queries and query != QueryConfig(access=query.access):
        raise ConfigError(
            f"{model}: --calibrate, --endpoint-option, --allow-torch-zip and --architecture are for suspects; set "
            "--access scores"
        )
    with progress_bar() as progress:
        if by_queries:
            cell = evaluate_suspect(
                model,
                query,
                attack=attack or "black-box",
                count=count,
                eps=parse_eps("eps", eps),
                norm=norm,  # type: ignore[arg-type]
                seed=seed,
                max_queries=max_queries,
                data=data,
                data_dir=data_dir,
                progress=progress,
            )
        else:
            cell = evaluate_run(
                model,
                attack=attack or "pgd",
                count=count or TEST_IMAGES,
                eps=parse_eps("eps", eps),
                norm=norm,  # type: ignore[arg-type]
                seed=seed,
                max_queries=max_queries,
                data=data,
                data_dir=data_dir,
                execution=execution(device),
                progress=progress,
            )
    show_cell(cell, as_json=as_json)
