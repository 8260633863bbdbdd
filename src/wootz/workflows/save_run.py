"""Write what the library's `protect` returns as a run folder, so that every command knows it."""

from __future__ import annotations

from pathlib import Path

from wootz.errors import ConfigError
from wootz.keys import write_keys
from wootz.models import ModelSpec, write_model
from wootz.watermarks import Protected
from wootz.workflows.run import prepare_run_folder
from wootz.workflows.verify import PANEL_MEMBERS


def save_run(
    made: Protected,
    out: Path,
    spec: ModelSpec,
    panel: tuple[ModelSpec, ModelSpec],
    *,
    data: str,
    eps: float,
    seed: int,
    set_aside: float = 1.0,
) -> None:
    """Write model, key and panel.

    Args:
        made: what `protect` returned; its panel must have two members, an adversarially trained and a plain one.
        out: the run folder to make.
        spec: how its model is built.
        panel: how the panel's members are built.
        data: name of the data set.
        eps: the training budget.
        seed: of training.
        set_aside: how the data set was divided, see `wootz.data.split_dataset`.
    """
    if len(made.panel) != len(PANEL_MEMBERS):
        raise ConfigError(f"panel: {len(made.panel)} models; a run folder keeps {len(PANEL_MEMBERS)}")
    prepare_run_folder(out)
    about = {"data": data, "set_aside": set_aside, "eps": eps, "seed": seed}
    for name, member, kind in zip(PANEL_MEMBERS, made.panel, panel, strict=True):
        write_model(out / "panel" / name, member, kind, about | {"kind": "independent"})
    write_keys(out, made.owner_keys)
    write_model(out, made.model, spec, about | {"kind": "protected"})
