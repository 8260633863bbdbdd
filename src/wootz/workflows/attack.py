"""Steal the model of a run folder, or try to remove its marks, into a run folder of the attacker's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from torch import nn

from wootz.attacks import extraction, removal
from wootz.attacks.context import AttackContext, AttackDataConfig
from wootz.attacks.extraction import BudgetedOracle, ExtractionConfig
from wootz.config import to_mapping, with_settings, with_values
from wootz.data import Dataset, Split, load_other
from wootz.errors import ConfigError, StoreError
from wootz.models import MODELS, ModelSpec, build, other_architecture, write_model
from wootz.records import AccuracyDrop, Cell, from_json, to_json
from wootz.registry import lookup
from wootz.rng import derive
from wootz.store import read_json, write_json
from wootz.training import Execution
from wootz.types import Attack, Progress
from wootz.workflows.extraction_target import ExtractionTarget, open_target
from wootz.workflows.run import TEST_IMAGES, Timer, agreement, measure, prepare_run_folder
from wootz.workflows.suspects import Where, is_endpoint


class Family(NamedTuple):
    """A family of attacks: its table, its verb for people, and what it makes."""

    attacks: Mapping[str, Attack]
    verb: str
    kind: Literal["stolen", "removed"]


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "steal": Family(extraction.ATTACKS, "stealing", "stolen"),
        "remove": Family(removal.ATTACKS, "removal", "removed"),
    }
)


TRANSCRIPT = "transcript.jsonl"
GUARD_LOG = "guard.jsonl"


def attack_run(
    family: Literal["steal", "remove"],
    where: Where,
    attack: str,
    out: Path,
    *,
    settings: Sequence[str] | Mapping[str, Any] = (),
    access: str | None = None,
    budget: int | None = None,
    count: int = TEST_IMAGES,
    seed: int = 0,
    resume: bool = False,
    data: str | None = None,
    client: Sequence[str] = (),
    served: bool = False,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    progress: Progress = lambda *_: None,
) -> Cell:
    """Run one attack against a victim and measure what came out.

    Args:
        family: `steal`: the attack queries the model through a `BudgetedOracle` (its weights where the attack's access
            says so); `remove`: it holds the model. The key is opened by neither.
        where: the victim's run folder; for a theft by answers also the URL of an endpoint.
        attack: name of the attack in its family's table.
        out: the attacker's run folder.
        settings: changes of the attack's config, as `key=value` or as plain values by name.
        access: what the victim's service shows (`label`, `scores`, `top-K`, `rounded-D`); None means what the attack
            asks for.
        budget: queries the thief may spend; None means as many as the attack wants.
        count: test images that robust accuracy is measured on.
        seed: of the attacker.
        resume: go on from what an earlier call left in `out`; queries that it asked stay counted.
        data: name of the data set, where an endpoint does not say it.
        client: `key=value` settings of the client that asks an endpoint, see `wootz.suspects.endpoints.Client`.
        served: a thief of a run folder asks through the run's guard, as if it were served; which answers were changed
            is logged in `out`, a file of the owner's that no attack reads.
        data_dir: where data are looked for first.
        execution: device and precision.
        progress: told what is going on.

    Raises:
        ConfigError: no such attack or setting, or `out` holds a model already; `served` where nothing is served so.
        BudgetError: the attack needs more queries, or sees less, than it is allowed.
    """
    time, kin = Timer(), FAMILIES[family]
    row = lookup(kin.attacks, attack, f"{kin.verb} attack")
    if isinstance(settings, Mapping):
        cfg = with_values(row.config, settings, attack)
    else:
        cfg = with_settings(row.config, settings)
    if "weights" in (access, row.access) and access not in (None, row.access):
        raise ConfigError(f"access = {access!r}: the attack {attack!r} works with {row.access}")
    if served and (is_endpoint(where) or "weights" in (access, row.access)):
        raise ConfigError(f"served: {attack!r} on {where} is no theft by answers from a run folder; leave it out")
    attempt = _begin(out, where, resume=resume, served=served)
    with open_target(
        where,
        access=access or row.access,
        data=data,
        data_dir=data_dir,
        transcript=attempt / TRANSCRIPT,
        client=client,
        guard=attempt / GUARD_LOG if served else None,
    ) as victim:
        spec, known = _spec(cfg, victim.spec), victim.data
        held = _held(cfg, known, data_dir)
        context = AttackContext(
            data=held,
            new_model=partial(_new_model, spec, seed),
            eps=victim.eps,
            seed=derive(seed, family, attack),
            execution=execution or Execution(),
            folder=attempt,
            progress=progress,
        )
        target, oracle = _target(victim, row, access, budget, attempt)
        made = row.run(cfg, target, context)
    about = {"kind": kin.kind, "theft": attack, "data": known.name, "set_aside": known.set_aside, "eps": victim.eps}
    about |= {"seed": seed, "attack": to_mapping(cfg)} | ({"queries": oracle.queries} if oracle else {})
    about |= {"served": True} if served else {}
    write_model(out, made, spec, about)
    clean, robust = measure(made, known, eps=victim.eps, count=count, progress=progress, seed=seed, execution=execution)
    cell = Cell(
        data=known.name,
        suspect=out.name,
        kind=kin.kind,
        theft=attack,
        access=oracle.access if oracle else None,
        clean=clean,
        robust=robust,
        seconds=time.seconds,
        seed=seed,
        queries=oracle.queries if oracle else None,
        agreement=agreement(made, victim.model, known) if victim.model else None,
        notes=(*_notes(cfg, held), *victim.notes()),
    )
    cell = replace(cell, price=_price(victim.record, cell) if victim.record else None)
    write_json(out / "record.json", to_json(cell))
    _settle(out, attempt)
    return cell


def _begin(out: Path, where: Where, *, resume: bool, served: bool) -> Path:
    """Return the folder of the attempt, a fresh one unless the attack goes on."""
    if not is_endpoint(where) and not Path(where).is_dir():
        raise StoreError(f"{where}: is not a run folder (there is no such folder)")
    prepare_run_folder(out)
    attempt = out / "attempt"
    if not resume:
        shutil.rmtree(attempt, ignore_errors=True)
    if (attempt / "queries.log").is_file() and (attempt / GUARD_LOG).is_file() != served:
        raise ConfigError(f"{out}: was begun {'without' if served else 'with'} a guard in between; resume it so")
    attempt.mkdir(exist_ok=True)
    return attempt


def _target(
    victim: ExtractionTarget, row: Attack, access: str | None, budget: int | None, attempt: Path
) -> tuple[nn.Module | BudgetedOracle, BudgetedOracle | None]:
    if row.access == "weights":
        assert victim.model is not None
        return victim.model, None
    oracle = BudgetedOracle(
        victim.predict,
        access=access or row.access,
        num_classes=len(victim.spec.classes),
        budget=budget,
        log=attempt / "queries.log",
    )
    return oracle, oracle


def _held(cfg: Any, data: Dataset, data_dir: Path | None) -> Split:
    """Return the images that the attacker has."""
    if not isinstance(cfg, AttackDataConfig):
        return data.thief
    shares = {
        "thief": lambda: data.thief,
        "owner": lambda: data.train,
        "other": lambda: load_other(data, data_dir).train,
    }
    held = shares[cfg.data]()
    if cfg.images is not None and cfg.images > len(held):
        raise ConfigError(f"images = {cfg.images}: the {cfg.data} share holds {len(held)}")
    return held.subset(slice(cfg.images))


def _new_model(spec: ModelSpec, seed: int, name: str) -> nn.Module:
    return build(spec, derive(seed, "fresh", name))


def _spec(cfg: Any, victim: ModelSpec) -> ModelSpec:
    """Return the attacker's architecture: the victim's, unless a thief's settings say otherwise."""
    if not isinstance(cfg, ExtractionConfig) or cfg.model == "same":
        return victim
    name = other_architecture(victim.architecture) if cfg.model == "other" else cfg.model
    lookup(MODELS, name, "model")
    return replace(victim, architecture=name, settings={})


def _notes(cfg: Any, held: Split) -> tuple[str, ...]:
    if not isinstance(cfg, AttackDataConfig):
        return ()
    return (
        f"worked with {len(held):,} images of the {cfg.data}'s share"
        if cfg.data != "other"
        else f"worked with {len(held):,} images of another data set",
    )


def _price(folder: Path, cell: Cell) -> AccuracyDrop | None:
    """Return what the attack cost against the victim's own record, where that was measured in the same way."""
    record = folder / "record.json"
    if not record.is_file():
        return None
    victim = from_json(read_json(record))
    if victim.clean is None or victim.robust is None or cell.clean is None or cell.robust is None:
        return None
    alike = all(getattr(victim.robust, name) == getattr(cell.robust, name) for name in ("attack", "eps", "n"))
    robust = round(victim.robust.accuracy - cell.robust.accuracy, 4) if alike else None
    return AccuracyDrop(clean=round(victim.clean - cell.clean, 4), robust=robust)


def _settle(out: Path, attempt: Path) -> None:
    """Keep the log of queries, the transcript and the guard's log; checkpoints of a finished attempt go."""
    for log in (attempt / "queries.log", attempt / TRANSCRIPT, attempt / GUARD_LOG):
        if log.is_file():
            log.replace(out / log.name)
    shutil.rmtree(attempt, ignore_errors=True)
