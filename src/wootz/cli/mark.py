"""`wootz mark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import (
    Count,
    DataDir,
    Device,
    Json,
    Seed,
    Settings,
    Size,
    SkipUnreadable,
    TorchZip,
    Tsa,
    TsaPolicy,
    WmEps,
    check_policy,
    execution,
    parse_eps,
    progress_bar,
)
from wootz.cli.show import show_cell


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="Run folder, or a network: a built-in name, file.py:factory, package.module:factory, timm:NAME, "
            "hf:FOLDER."
        ),
    ],
    data: Annotated[str, typer.Option("--data", help="Images like those that it was trained on: a name or a path.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    init: Annotated[
        Path | None, typer.Option("--init", help="Weights of the network: safetensors, or torch.save if allowed.")
    ] = None,
    allow_torch_zip: TorchZip = False,
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Use the labels of the images, or the model's own answers.")
    ] = True,
    eps: Annotated[
        str | None,
        typer.Option("--eps", help="Keep the answers within this budget, too (a robust model), e.g. 8/255."),
    ] = None,
    wm_eps: WmEps = None,
    marks: Annotated[
        str | None,
        typer.Option(
            "--marks",
            help="Comma-separated marks (default: triggers,runner-up,guard; without runner-up for over 100 classes).",
        ),
    ] = None,
    bits: Annotated[float, typer.Option("--bits", min=1, help="Bits in the model itself at which it stops.")] = 240,
    tsa: Tsa = None,
    tsa_policy: TsaPolicy = "",
    count: Count = 2000,
    size: Size = None,
    skip_unreadable: SkipUnreadable = False,
    seed: Seed = 0,
    device: Device = "auto",
    settings: Settings = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write marks into a model that exists, so that it becomes a run like any other."""
    from wootz.workflows.mark import mark_run, marking_config, open_original

    original = open_original(
        model,
        data,
        out,
        init=init,
        torch_zip=allow_torch_zip,
        labelled=labels,
        settings=settings or (),
        size=size,
        skip_unreadable=skip_unreadable,
        data_dir=data_dir,
    )
    cfg = marking_config(
        original,
        eps=parse_eps("eps", eps),
        wm_eps=parse_eps("wm-eps", wm_eps),
        marks=None if marks is None else [mark for mark in marks.split(",") if mark],
        bits=bits,
        seed=seed,
        settings=settings or (),
    )
    with progress_bar() as progress:
        cell = mark_run(
            cfg,
            original,
            out,
            execution=execution(device),
            tsa=tsa,
            tsa_policy=check_policy(tsa_policy),
            count=count,
            progress=progress,
        )
    show_cell(cell, as_json=as_json)
