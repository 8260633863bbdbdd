"""`wootz export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import Json
from wootz.cli.show import show_mapping


def command(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option("--out", help="ONNX file to write.")],
    as_json: Json = False,
) -> None:
    """Write the model as one ONNX file, including normalization, and check it against the model."""
    from wootz.workflows.export import export_run

    show_mapping(export_run(run, out), as_json=as_json)
