"""`wootz evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import DataDir, Json, Seed, progress
from wootz.cli.show import show_cell


def command(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    attack: Annotated[str, typer.Option("--attack", help="pgd (40 steps x 2), pgd-50x10, or autoattack.")] = "pgd",
    count: Annotated[int, typer.Option("-n", min=1, help="Test images to attack.")] = 2000,
    eps: Annotated[float | None, typer.Option("--eps", help="Budget; the run's own by default.")] = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Clean and robust accuracy on test images, with reliability flags."""
    from wootz.stages.evaluate import evaluate_run

    with progress() as tell:
        cell = evaluate_run(run, attack=attack, count=count, eps=eps, seed=seed, data_dir=data_dir, tell=tell)
    show_cell(cell, as_json=as_json)
