"""Steal the model of a run folder through its answers, into a run folder of the thief's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wootz.config import to_mapping, with_settings
from wootz.models import MODELS, ModelSpec, build, other_architecture, write_model
from wootz.records import Cell, to_json
from wootz.registry import lookup
from wootz.rng import derive
from wootz.stages.run import Clock, agreement, claim_folder, measure, open_run
from wootz.stealing import ATTACKS, Ledger
from wootz.store import write_json
from wootz.training import Execution
from wootz.types import Tell
from wootz.verify import predictor


def steal(
    folder: Path,
    attack: str,
    out: Path,
    *,
    settings: Sequence[str] = (),
    budget: int | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    tell: Tell = lambda *_: None,
) -> Cell:
    """Run a stealing attack of `wootz.stealing.ATTACKS` and measure what the thief got.

    Args:
        folder: the victim's run folder; the attack sees its answers alone.
        attack: name of the attack.
        out: the thief's run folder.
        settings: `key=value` changes of the attack's config.
        budget: queries the thief may spend; None means as many as the attack wants.
        seed: of the thief.
        data_dir: where data are looked for first.
        execution: device and precision.
        tell: told what is going on.
    """
    time, row = Clock(), lookup(ATTACKS, attack, "stealing attack")
    cfg = with_settings(row.config, settings)
    run = open_run(folder)
    data = run.data(data_dir)
    spec = _thief_spec(cfg.model, run.spec)
    claim_folder(out)
    tell(f"stealing ({attack})", 0.0)
    victim = Ledger(predictor(run.model), access=row.access, budget=budget)
    queries = data.train if cfg.data == "owner" else data.thief
    fresh = build(spec, derive(seed, "thief", attack))
    stolen = row.steal(cfg, victim, queries, fresh, seed=derive(seed, "steal", attack), execution=execution)
    about = {"kind": "stolen", "theft": attack, "data": data.name, "eps": run.eps, "seed": seed}
    write_model(out, stolen, spec, about | {"attack": to_mapping(cfg), "queries": victim.queries})
    clean, robust = measure(stolen, data, eps=run.eps, tell=tell, seed=seed)
    cell = Cell(
        data=data.name, suspect=out.name, kind="stolen", theft=attack, access=row.access, clean=clean, robust=robust,
        seconds=time.seconds, seed=seed, queries=victim.queries, agreement=agreement(stolen, run.model, data),
        notes=(f"asked about {len(queries):,} images of the {cfg.data}'s share",),
    )  # fmt: skip
    write_json(out / "record.json", to_json(cell))
    return cell


def _thief_spec(model: str, victim: ModelSpec) -> ModelSpec:
    if model == "same":
        return victim
    name = other_architecture(victim.architecture) if model == "other" else model
    lookup(MODELS, name, "model")
    return replace(victim, architecture=name, settings={})
