"""Options that several commands share, and how they speak: progress on a terminal, JSON on request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import rich.progress
import typer
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wootz.logs import quiet
from wootz.types import Progress

console = Console(stderr=True)
"""Everything for people goes here; standard output is for results."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder that data sets are looked for in first.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change a setting: key=value. May be repeated.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random but keys.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue what an earlier call left unfinished.")]
Count = Annotated[int, typer.Option("-n", min=1, help="Test images that robust accuracy is measured on.")]
SUSPECT = "Run folder, .safetensors (model.json beside it) or .onnx file, or URL such as http://host/v2/models/NAME."
AccessOption = Annotated[
    str, typer.Option("--access", help="What is seen of the suspect: label, scores, or weights (files only).")
]
Budget = Annotated[
    int | None,
    typer.Option("--budget", min=0, help="Queries per mark; 0 is all. Default: all of a file, 500 of an endpoint."),
]
Tries = Annotated[
    int, typer.Option("--tries", min=1, help="Suspects and keys that were tried; log2 of it is taken off the bits.")
]
Early = Annotated[
    bool | None,
    typer.Option("--early/--all", help="Ask triggers one by one and stop at the bar (default at a URL), or ask all."),
]
Calibrate = Annotated[
    int, typer.Option("--calibrate", min=0, help="Ordinary images on which to find range, layout and class order.")
]
Walks = Annotated[
    int,
    typer.Option("--walks", min=0, help="With --access label: queries that each mark may spend on walks (20000)."),
]
ClientSettings = Annotated[
    list[str] | None,
    typer.Option("--client", help="How an endpoint is asked: key=value, such as api=template. Repeatable."),
]
TorchZip = Annotated[
    bool, typer.Option("--allow-torch-zip", help="Also read files of torch.save (weights only, dense tensors).")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Precision = Annotated[
    str, typer.Option("--precision", help="Of training: auto, bf16 or 32 bits; what is measured is always 32.")
]


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give a `Progress` that draws one bar per task on a terminal, with time left, and is quiet in a pipe."""
    quiet()
    if not console.is_terminal:
        yield lambda *_: None
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: float) -> None:
            name = what.split(" (loss")[0]
            if name not in tasks:
                for other in tasks.values():
                    bars.update(other, visible=False)
                tasks[name] = bars.add_task(what, total=1.0)
            bars.update(tasks[name], completed=done, description=what)

        yield progress


def print_json(value: Any) -> None:
    """Print one JSON value on standard output."""
    typer.echo(json.dumps(value))


def execution(device: str, precision: str = "auto") -> Any:
    """Return the Execution for `--device` and `--precision`."""
    from wootz.config import from_mapping
    from wootz.training import Execution

    return from_mapping(Execution, {"device": device, "precision": precision}, "--device, --precision")
