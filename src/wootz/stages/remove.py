"""Try to remove the marks of a run folder's model, into a run folder of the attacker's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wootz.config import to_mapping, with_settings
from wootz.models import write_model
from wootz.records import Cell, to_json
from wootz.registry import lookup
from wootz.removal import ATTACKS
from wootz.rng import derive
from wootz.stages.run import Clock, agreement, claim_folder, measure, open_run
from wootz.store import write_json
from wootz.training import Execution
from wootz.types import Tell


def remove(
    folder: Path,
    attack: str,
    out: Path,
    *,
    settings: Sequence[str] = (),
    seed: int = 0,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    tell: Tell = lambda *_: None,
) -> Cell:
    """Run a removal attack of `wootz.removal.ATTACKS` and measure what is left.

    Args:
        folder: the run folder whose model the attacker holds; its key is not opened.
        attack: name of the attack.
        out: the attacker's run folder.
        settings: `key=value` changes of the attack's config.
        seed: of the attacker.
        data_dir: where data are looked for first.
        execution: device and precision.
        tell: told what is going on.
    """
    time, row = Clock(), lookup(ATTACKS, attack, "removal attack")
    cfg = with_settings(row.config, settings)
    run = open_run(folder)
    data = run.data(data_dir)
    claim_folder(out)
    tell(f"removing ({attack})", 0.0)
    held = data.train if getattr(cfg, "data", "thief") == "owner" else data.thief
    altered = row.remove(cfg, run.model, held, seed=derive(seed, "remove", attack), execution=execution)
    about = {"kind": "removed", "theft": attack, "data": data.name, "eps": run.eps, "seed": seed}
    write_model(out, altered, run.spec, about | {"attack": to_mapping(cfg)})
    clean, robust = measure(altered, data, eps=run.eps, tell=tell, seed=seed)
    cell = Cell(
        data=data.name, suspect=out.name, kind="removed", theft=attack, clean=clean, robust=robust,
        seconds=time.seconds, seed=seed, agreement=agreement(altered, run.model, data),
    )  # fmt: skip
    write_json(out / "record.json", to_json(cell))
    return cell
