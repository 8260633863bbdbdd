"""`wootz bench`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wootz.cli.options import DataDir, Device, Json, Precision, console, execution, print_json, progress_bar
from wootz.errors import ConfigError

if TYPE_CHECKING:
    from wootz.bench import GridStatus


def command(
    grid: Annotated[
        Path | None, typer.Argument(help="Grid file (TOML); optional with --resume, which reads the copy in --out.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the grid.")] = None,
    executor: Annotated[
        str, typer.Option("--executor", help="local: processes here; ray: the cluster in RAY_ADDRESS, or Ray here.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Number of parallel jobs (default: number of cores).")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads per job.")] = 1,
    max_restarts: Annotated[
        int, typer.Option("--max-restarts", min=0, help="Maximum number of restarts of a job whose worker crashes.")
    ] = 4,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the grid whose copy is in --out.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--select", help="Compute only these cells: AXIS=NAME,NAME (repeatable; all must match)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List cached and missing cells without computing anything.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Compute failed cells again.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compute the missing cells of a grid, and write its report.

    Cells and models of earlier calls are reused. A cell that fails is kept with its error; the exit code is 0 all the
    same.
    """
    from wootz.bench import EXECUTORS, GRID_COPY, WorkerConfig, grid_status, read_grid, run_grid, write_metadata
    from wootz.registry import lookup
    from wootz.report import write_reports

    if out is None:
        raise ConfigError("bench: needs --out for the grid's folder")
    source = grid or (out / GRID_COPY if resume else None)
    if source is None:
        raise ConfigError("bench: needs a grid file, or --resume and the --out of an earlier call")
    factory, plan = lookup(EXECUTORS, executor, "executor"), read_grid(source)
    if dry_run:
        _show(grid_status(plan, out, select=only or (), data_dir=data_dir), as_json=as_json)
        return
    config = WorkerConfig(workers=workers or os.cpu_count() or 1, threads=threads, max_restarts=max_restarts)
    with progress_bar() as progress:
        done = run_grid(
            plan,
            out,
            executor=factory,
            workers=config,
            select=only or (),
            retry=retry,
            data_dir=data_dir,
            execution=execution(device, precision),
            progress=progress,
        )
    if done.computed or done.models:
        words = " ".join(["wootz", *map(shlex.quote, sys.argv[1:])])
        write_metadata(out, name=plan.name, command=words, seconds=done.seconds, job_seconds=done.job_seconds)
    page = write_reports(out)["html"]
    failed = len(done.failed)
    if as_json:
        facts = {"schema": 1, "cells": len(done.results), "computed": done.computed, "models": done.models}
        print_json(facts | {"failed": failed, "seconds": done.seconds, "work": done.job_seconds, "report": str(page)})
        return
    if failed:
        console.print(f"{failed} cells failed, each with its error in {out / 'cells.jsonl'}", markup=False)
    typer.echo(f"{len(done.results)} cells, {done.computed} computed now: {page}")


def _show(status: GridStatus, *, as_json: bool) -> None:
    if as_json:
        facts = {"cells": status.cells, "there": status.cached, "failed": status.failed, "models": status.models}
        print_json({"schema": 1, **facts})
        return
    failed = f" ({status.failed} failed)" if status.failed else ""
    typer.echo(f"{status.cells} cells, {status.cached} cached{failed}; {status.models} models to train for the others")
