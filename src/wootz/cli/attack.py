"""What `wootz steal` and `wootz remove` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wootz.cli.options import progress_bar
from wootz.cli.show import show_attacks, show_cell
from wootz.errors import ConfigError

AttackName = Annotated[str | None, typer.Option("--attack", help="Name of the attack; `list` lists all.")]
AttackOut = Annotated[Path | None, typer.Option("--out", help="Run folder to make.")]

_TARGETS = {"steal": "a run folder or URL", "remove": "a run folder"}


def run_attack(
    family: Literal["steal", "remove"],
    target: str | Path | None,
    attack: str | None,
    out: Path | None,
    *,
    as_json: bool,
    **settings: Any,
) -> None:
    """List the attacks of a family, or run one and print its cell.

    Args:
        family: see `attack_run`.
        target: the model to attack.
        attack: the name of the attack; `list` lists all.
        out: the attacker's run folder.
        as_json: print JSON.
        settings: the other arguments of `attack_run`.

    Raises:
        ConfigError: the target, the attack or the folder is missing.
    """
    from wootz.workflows.attack import FAMILIES, attack_run

    if attack == "list":
        show_attacks(FAMILIES[family].attacks, as_json=as_json)
        return
    if attack is None or target is None or out is None:
        raise ConfigError(f"{family}: needs {_TARGETS[family]}, --attack NAME (--attack list lists all) and --out DIR")
    with progress_bar() as progress:
        cell = attack_run(family, target, attack, out, progress=progress, **settings)
    show_cell(cell, as_json=as_json)
