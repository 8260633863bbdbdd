"""`wootz demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import DataDir, Device, Json, Precision, Seed, console, execution, print_json, progress_bar


def command(
    data: Annotated[str, typer.Option("--data", help="Data set.")] = "mnist-5k",
    out: Annotated[Path, typer.Option("--out", help="Folder of the demo.")] = Path("runs/demo"),
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    data_dir: DataDir = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Set a setting of the training: key=value (repeatable).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Protect a classifier, attack it, verify every suspect, and write a report."""
    from wootz.report import write_report
    from wootz.workflows.demo import demo

    with progress_bar() as progress:
        summary = demo(
            data,
            out,
            seed=seed,
            settings=settings or (),
            data_dir=data_dir,
            execution=execution(device, precision),
            progress=progress,
        )
        page = write_report(out)
    if as_json:
        print_json(summary)
        return
    from wootz.cli.show import show_matrix
    from wootz.records import from_json

    cells = [from_json(cell) for cell in summary["cells"]]
    show_matrix(cells)
    for note in cells[0].notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(f"report: {page}   summary: {out / 'summary.json'}   {summary['seconds']:g} s", soft_wrap=True)
