"""Options that several commands share, and how they speak: progress on a terminal, JSON on request."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import rich.progress
import typer
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wootz.errors import ConfigError
from wootz.types import Progress

_LINE_SECONDS = 30

console = Console(stderr=True)
"""Everything for people goes here; standard output is for results."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder to look up data sets in first.")]
RunData = Annotated[
    str | None, typer.Option("--data", help="The run's data set, if it is no longer where it was: a name or a path.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Set a setting: key=value (repeatable).")]
Size = Annotated[
    int | None,
    typer.Option(
        "--size", help="Resize the shorter side of every image to N and crop the middle N x N (default: as is)."
    ),
]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read, instead of refusing them.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random except keys.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an unfinished call.")]
Count = Annotated[int, typer.Option("-n", min=1, help="Number of test images for robust accuracy.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Network: small-cnn, cw-cnn, paper-cnn, preact-resnet18, small-resnet, or your own: file.py:factory, "
        "package.module:factory, timm:NAME, hf:FOLDER; its settings: --set model.KEY=VALUE.",
    ),
]
SUSPECT = "Run folder, .safetensors (model.json beside it) or .onnx file, or URL such as http://host/v2/models/NAME."
AccessOption = Annotated[
    str, typer.Option("--access", help="Access to the suspect: label, scores, or weights (files only).")
]
Budget = Annotated[
    int | None,
    typer.Option("--budget", min=0, help="Queries per mark; 0 is all (default: all for a file, 500 for an endpoint)."),
]
NumTests = Annotated[
    int,
    typer.Option(
        "--num-tests",
        min=1,
        help="Suspects and keys tested; log2 of it is subtracted from the bits (multiple testing).",
    ),
]
Early = Annotated[
    bool | None,
    typer.Option(
        "--early/--all", help="Query triggers one by one and stop at the threshold (default for a URL), or query all."
    ),
]
Calibrate = Annotated[
    int,
    typer.Option(
        "--calibrate",
        min=0,
        help="Number of ordinary images used to detect pixel range, layout and class order (0 = off).",
    ),
]
BoundaryQueries = Annotated[
    int,
    typer.Option(
        "--boundary-queries", min=0, help="With --access label: queries per mark to search decision boundaries (20000)."
    ),
]
EndpointOptions = Annotated[
    list[str] | None,
    typer.Option("--endpoint-option", help="Setting of the HTTP client: key=value, such as api=template (repeatable)."),
]
TorchZip = Annotated[
    bool, typer.Option("--allow-torch-zip", help="Also read files of torch.save (weights only, dense tensors).")
]
Architecture = Annotated[
    str,
    typer.Option(
        "--architecture",
        help="Network whose weights the suspect's file holds, by the name that --model takes; its code is run.",
    ),
]
WmEps = Annotated[str | None, typer.Option("--wm-eps", help="Trigger budget, larger than eps.")]
Tsa = Annotated[
    str | None,
    typer.Option("--tsa", help="URL of an RFC 3161 authority that timestamps the registration before keys are drawn."),
]
TsaPolicy = Annotated[str, typer.Option("--tsa-policy", help="Policy of that authority: a dotted object identifier.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Precision = Annotated[
    str,
    typer.Option("--precision", help="Precision of training: auto, bf16 or 32; measurements are always in 32 bits."),
]


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give a `Progress` that draws one bar per task on a terminal, with time left; elsewhere it prints plain lines."""
    if not console.is_terminal:
        yield _plain_progress()
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
            name = re.split(r" \((?:loss|bits)", what)[0]
            if name not in tasks:
                for other in tasks.values():
                    bars.update(other, visible=False)
                tasks[name] = bars.add_task(what, total=1.0)
            bars.update(tasks[name], completed=done, description=what)

        yield progress


def _plain_progress() -> Progress:
    """Return a `Progress` that prints a line at most every half minute."""
    printed = time.monotonic()

    def progress(what: str, done: float) -> None:
        nonlocal printed
        if time.monotonic() - printed >= _LINE_SECONDS:
            printed = time.monotonic()
            console.print(f"{what}: {done:.0%}", markup=False, highlight=False, soft_wrap=True)

    return progress


def print_json(value: Any) -> None:
    """Print one JSON value on standard output."""
    typer.echo(json.dumps(value))


def parse_eps(name: str, text: str | None) -> float | None:
    """Return a budget given as a number or a fraction such as 8/255."""
    if text is None:
        return None
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"--{name} {text}: must be a number such as 0.25 or 8/255") from None


def check_policy(text: str) -> str:
    """Return the policy of a time-stamp authority as it is, after a check of its form."""
    if text and not re.fullmatch(r"[0-2](\.\d+)+", text):
        raise ConfigError(f"--tsa-policy {text}: must be a dotted object identifier such as 1.3.6.1.4.1.13762.3")
    return text


def execution(device: str, precision: str = "auto") -> Any:
    """Return the Execution for `--device` and `--precision`."""
    from wootz.config import from_mapping
    from wootz.training import Execution

    return from_mapping(Execution, {"device": device, "precision": precision}, "--device, --precision")
