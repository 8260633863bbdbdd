"""`wootz protect`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from wootz.cli.options import (
    Count,
    DataDir,
    Device,
    Json,
    Model,
    Precision,
    Resume,
    Seed,
    Settings,
    Size,
    SkipUnreadable,
    Tsa,
    TsaPolicy,
    WmEps,
    check_policy,
    execution,
    parse_eps,
    progress_bar,
)
from wootz.cli.show import show_cell
from wootz.errors import ConfigError


def command(
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Data set: a name, an .npz or .tar file, a folder of class folders.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="fast, paper or strong.")] = "fast",
    model: Model = None,
    eps: Annotated[
        str | None, typer.Option("--eps", help="Training budget in pixels of [0, 1], e.g. 0.25 or 8/255.")
    ] = None,
    wm_eps: WmEps = None,
    marks: Annotated[str, typer.Option("--marks", help="Comma-separated marks, or none.")] = "triggers,runner-up,guard",
    tsa: Tsa = None,
    tsa_policy: TsaPolicy = "",
    count: Count = 2000,
    size: Size = None,
    skip_unreadable: SkipUnreadable = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    resume: Resume = False,
    settings: Settings = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Train a robust watermarked model; with --marks none, an independent one."""
    from wootz import data as datasets
    from wootz.workflows.owner import read_config
    from wootz.workflows.protect import protect_run
    from wootz.workflows.protection import change
    from wootz.workflows.protection import preset as preset_config

    if data is None:
        if not resume:
            raise ConfigError("--data: missing; name a data set (wootz data list shows them)")
        cfg = read_config(out)
    else:
        loaded = datasets.load(data, data_dir, size=size, skip_unreadable=skip_unreadable)
        cfg = preset_config(
            preset,
            data=loaded.name,
            eps=parse_eps("eps", eps),
            wm_eps=parse_eps("wm-eps", wm_eps),
            seed=seed,
            count=len(loaded.train),
        )
        cfg = replace(cfg, size=size, skip_unreadable=skip_unreadable)
        chosen = "" if marks == "none" else marks
        cfg = change(cfg, [f"marks={chosen}", *([f"model={model}"] if model else []), *(settings or [])])
    with progress_bar() as progress:
        cell = protect_run(
            cfg,
            out,
            data_dir=data_dir,
            execution=execution(device, precision),
            resume=resume,
            tsa=tsa,
            tsa_policy=check_policy(tsa_policy),
            count=count,
            progress=progress,
        )
    show_cell(cell, as_json=as_json)
