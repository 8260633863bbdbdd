"""`wootz serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import DataDir, Device, Json, RunData, console, execution, print_json


def command(
    run: Annotated[Path, typer.Argument(help="Run folder; the model is served under its name.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = 8080,
    guard: Annotated[
        bool, typer.Option("--guard", help="Watermark uncertain answers with the run's guard key.")
    ] = False,
    access: Annotated[str, typer.Option("--access", help="Content of answers: scores, or top-1 label.")] = "scores",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File of the bearer token that clients must send; or set WOOTZ_TOKEN."),
    ] = None,
    log: Annotated[Path | None, typer.Option("--log", help="Write every query and answer to this file.")] = None,
    max_bytes: Annotated[int, typer.Option("--max-bytes", min=1, help="Maximum size of a request's body.")] = 16
    * 2**20,
    max_images: Annotated[
        int, typer.Option("--max-images", min=1, help="Maximum number of images per request.")
    ] = 1024,
    max_connections: Annotated[
        int, typer.Option("--max-connections", min=2, help="Maximum number of open connections.")
    ] = 1024,
    max_per_address: Annotated[
        int, typer.Option("--max-per-address", min=1, help="Maximum number of open connections per client address.")
    ] = 256,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Maximum number of images per batch.")] = 256,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="PyTorch threads per batch.")] = None,
    device: Device = "auto",
    data: RunData = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Serve a model over HTTP by the Open Inference Protocol v2, until Ctrl-C or SIGTERM."""
    from wootz.serving import ServingLimits, read_token
    from wootz.workflows.serving import serve_run

    def show_url(url: str) -> None:
        if as_json:
            print_json({"url": url})
        else:
            console.print(f"serving {url}; Ctrl-C ends it", markup=False, highlight=False, soft_wrap=True)

    serve_run(
        run,
        host=host,
        port=port,
        guard=guard,
        access=access,  # type: ignore[arg-type]
        token=read_token(token_file),
        log=log,
        limits=ServingLimits(
            max_bytes=max_bytes,
            max_images=max_images,
            connections=max_connections,
            connections_per_address=max_per_address,
            batch=batch,
        ),
        device=execution(device).accelerator,
        data=data,
        data_dir=data_dir,
        threads=threads,
        show_url=show_url,
    )
