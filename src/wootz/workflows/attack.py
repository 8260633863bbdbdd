"""Model extraction and watermark removal, on a model in memory or from run folder to run folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from torch import nn

from wootz.attacks import extraction, removal
from wootz.attacks.context import AttackContext, AttackDataConfig
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction import BudgetedOracle, ExtractionConfig
from wootz.config import differences, to_mapping, with_settings, with_values
from wootz.data import Dataset, Split, load, load_other
from wootz.errors import ConfigError, StoreError
from wootz.models import MODELS, ModelSpec, build, other_architecture, reinitialized, write_model
from wootz.records import AccuracyDrop, Result, from_json, to_json
from wootz.registry import lookup
from wootz.rng import derive
from wootz.store import lock_folder, move_file, read_json, write_json
from wootz.suspects.files import predictor
from wootz.training import Execution
from wootz.types import Attack, Predict, Progress
from wootz.workflows.evaluate import TEST_IMAGES, measure
from wootz.workflows.extraction_target import open_target
from wootz.workflows.inputs import DataLike, as_split
from wootz.workflows.protection import defaults_for
from wootz.workflows.run import Timer, agreement, data_metadata, prepare_run_folder
from wootz.workflows.suspects import QueryConfig, SuspectLike, Where, identify, is_endpoint, open_suspect_model


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


CUSTOMARY_EPS = defaults_for("").eps
"""Budget for data without a customary one, in pixels of [0, 1]."""

TRANSCRIPT = "transcript.jsonl"
QUERY_LOG = "queries.log"
ATTEMPT = "attempt.json"
GUARD_LOG = "guard.jsonl"
RECORD = "record.json"
_ATTEMPT = "attempt"
_LOGS = (QUERY_LOG, TRANSCRIPT, GUARD_LOG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """What an attack made.

    Attributes:
        model: the extracted or altered model, in eval mode.
        attack: name of the attack.
        queries: queries that the attack spent; None where it had the weights.
    """

    model: nn.Module = field(repr=False)
    attack: str
    queries: int | None


def extract(
    target: SuspectLike,
    attack: str = "retrain-soft",
    *,
    data: DataLike,
    model: nn.Module | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    access: str | None = None,
    query_budget: int | None = None,
    eps: float = CUSTOMARY_EPS,
    seed: int = 0,
    execution: Execution | None = None,
    folder: str | Path | None = None,
    progress: Progress = lambda *_: None,
) -> Attacked:
    """Extract a copy of a model through its answers.

    Args:
        target: a module or callable, the path of a run folder or model file, or the URL of an endpoint.
        attack: a name of `wootz.attacks.extraction.ATTACKS`.
        data: the attacker's images, see `as_split`; of a wootz data set, the share that is set aside for attackers. The
            labels are used by few attacks; most learn the target's answers.
        model: the attacker's network; None takes that of a target module, initialized anew.
        settings: changes of the attack's config, as `key=value` texts or by name.
        access: what the target shows: `label`, `scores`, `top-K` or `rounded-D`; None takes what the attack asks for.
        query_budget: queries that may be spent; None is as many as the attack wants.
        eps: budget of attacks that train adversarially, in pixels of [0, 1].
        seed: of the attack.
        execution: device and precision.
        folder: where a long attack keeps its checkpoints and its log of queries.
        progress: called with the name of the step and the fraction done.

    Raises:
        ConfigError: no such attack or setting, or no network to train.
        BudgetError: the attack needs more queries, or other answers, than it is allowed.
    """
    row, folder = lookup(FAMILIES["steal"].attacks, attack, "extraction attack"), _path(folder)
    held = _attack_data(data)
    query = QueryConfig(access="label" if (access or row.access) == "label" else "scores", isolated=False)
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(TemporaryDirectory()))
        opened = stack.enter_context(open_suspect_model(target, query, place))
        victim = target if isinstance(target, nn.Module) else None
        template = model if model is not None else victim
        if template is None:
            raise ConfigError("model: missing; give the network to train")
        if row.access == "weights" and victim is None:
            raise ConfigError(f"{attack}: needs the weights of the target; give a module")
        context = _context(template, held, eps, seed, "steal", attack, execution, folder, progress)
        return _attacked(
            row,
            attack,
            _config(row, attack, settings),
            predict=opened.predict,
            model=victim,
            num_classes=opened.num_classes or _num_classes(template, held),
            access=access,
            query_budget=query_budget,
            log=folder / QUERY_LOG if folder else None,
            context=context,
        )


def remove(
    model: nn.Module,
    attack: str = "finetune",
    *,
    data: DataLike,
    settings: Sequence[str] | Mapping[str, Any] = (),
    eps: float = CUSTOMARY_EPS,
    seed: int = 0,
    execution: Execution | None = None,
    folder: str | Path | None = None,
    progress: Progress = lambda *_: None,
) -> Attacked:
    """Try to remove the marks of a model; `model` itself stays as it is.

    Args:
        model: images in [0, 1] -> logits.
        attack: a name of `wootz.attacks.removal.ATTACKS`.
        data: the attacker's labelled images, see `extract`.
        settings: changes of the attack's config, as `key=value` texts or by name.
        eps: budget of attacks that train adversarially, in pixels of [0, 1].
        seed: of the attack.
        execution: device and precision.
        folder: where a long attack keeps its checkpoints.
        progress: called with the name of the step and the fraction done.

    Raises:
        ConfigError: no such attack or setting.
    """
    row, folder = lookup(FAMILIES["remove"].attacks, attack, "removal attack"), _path(folder)
    context = _context(model, _attack_data(data), eps, seed, "remove", attack, execution, folder, progress)
    return _attacked(
        row,
        attack,
        _config(row, attack, settings),
        predict=predictor(model),
        model=model,
        num_classes=0,
        access=None,
        query_budget=None,
        log=None,
        context=context,
    )


def attack_run(
    family: Literal["steal", "remove"],
    where: Where,
    attack: str,
    out: str | Path,
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
) -> Result:
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
        data: name or path of the data set, where an endpoint does not say it, or a run's was moved.
        client: `key=value` settings of the client that asks an endpoint, see `wootz.suspects.endpoints.Client`.
        served: a thief of a run folder asks through the run's guard, as if it were served; which answers were changed
            is logged in `out`, a file of the owner's that no attack reads.
        data_dir: where data are looked for first.
        execution: device and precision.
        progress: called with the name of the step and the fraction done.

    Raises:
        ConfigError: no such attack or setting, or `out` holds a model already; `served` where nothing is served so.
        BudgetError: the attack needs more queries, or sees less, than it is allowed.
    """
    timer, kin, out = Timer(), FAMILIES[family], Path(out)
    row = lookup(kin.attacks, attack, f"{kin.verb} attack")
    cfg = _config(row, attack, settings)
    if "weights" in (access, row.access) and access not in (None, row.access):
        raise ConfigError(f"access = {access!r}: the attack {attack!r} works with {row.access}")
    if served and (is_endpoint(where) or "weights" in (access, row.access)):
        raise ConfigError(f"served: {attack!r} on {where} is no theft by answers from a run folder; leave it out")
    with lock_folder(out):
        record, attempt = out / RECORD, out / _ATTEMPT
        settled = {"attack": attack, "settings": to_mapping(cfg), "access": access or row.access, "seed": seed}
        settled["through_guard"] = served
        if resume and record.is_file() and attempt.is_dir():  # stopped after the last step but one
            _check_same_attempt(attempt, settled)
            shutil.rmtree(attempt, ignore_errors=True)
            return from_json(read_json(record), str(record))
        _begin_attempt(out, attempt, where, resume=resume)
        _check_same_attempt(attempt, settled)
        with open_target(
            where,
            access=access or row.access,
            data=data,
            data_dir=data_dir,
            transcript=attempt / TRANSCRIPT,
            client=client,
            guard=attempt / GUARD_LOG if served else None,
        ) as victim:
            spec, known = _attacker_spec(cfg, victim.spec), victim.data
            target = str(where) if victim.model is None else identify(victim.model).digest
            _check_same_attempt(attempt, {"target": target, "data": known.digest})
            held = _attacker_images(cfg, known, data_dir)
            context = AttackContext(
                data=held,
                new_model=partial(_new_model, spec, seed),
                eps=victim.eps,
                seed=derive(seed, family, attack),
                execution=execution or Execution(),
                folder=attempt,
                progress=progress,
            )
            attacked = _attacked(
                row,
                attack,
                cfg,
                predict=victim.predict,
                model=victim.model,
                num_classes=len(victim.spec.classes),
                access=access,
                query_budget=budget,
                log=attempt / QUERY_LOG,
                context=context,
            )
        about = {"kind": kin.kind, "theft": attack, **data_metadata(known), "eps": victim.eps}
        about |= {"seed": seed, "attack": to_mapping(cfg)} | (
            {} if attacked.queries is None else {"queries": attacked.queries}
        )
        about |= {"served": True} if served else {}
        write_model(out, attacked.model, spec, about)
        clean, robust = measure(
            attacked.model, known, eps=victim.eps, count=count, progress=progress, seed=seed, execution=execution
        )
        cell = Result(
            data=known.name,
            suspect=out.name,
            kind=kin.kind,
            theft=attack,
            access=None if attacked.queries is None else access or row.access,
            clean=clean,
            robust=robust,
            seconds=timer.seconds,
            seed=seed,
            queries=attacked.queries,
            agreement=agreement(attacked.model, victim.model, known) if victim.model else None,
            notes=(*_notes(cfg, held), *victim.notes()),
        )
        cell = replace(cell, price=_accuracy_drop(victim.record, cell) if victim.record else None)
        _move_logs(attempt, out)
        write_json(record, to_json(cell))  # the attack is finished: what is left of the attempt are checkpoints
        shutil.rmtree(attempt, ignore_errors=True)
        return cell


def _begin_attempt(out: Path, attempt: Path, where: Where, *, resume: bool) -> None:
    """Make the folder of the attempt, a fresh one unless the attack goes on.

    An attack that was stopped after its model was written, before its record was, goes on too: with its checkpoints and
    logs it comes to the same model, and asks nothing again.
    """
    if not is_endpoint(where) and not Path(where).is_dir():
        raise StoreError(f"{where}: is not a run folder (there is no such folder)")
    unfinished = attempt.is_dir() and not (out / RECORD).exists()
    prepare_run_folder(out, resume=resume and unfinished, unfinished=unfinished)
    if not resume:
        shutil.rmtree(attempt, ignore_errors=True)
    attempt.mkdir(exist_ok=True)
    if unfinished:
        _move_logs(out, attempt)


def _check_same_attempt(attempt: Path, now: dict[str, Any]) -> None:
    """Keep what decides the result of an attack in the folder of its attempt.

    Raises:
        ConfigError: the attempt was begun with other values of these names.
    """
    path, now = attempt / ATTEMPT, json.loads(json.dumps(now))
    begun = read_json(path) if path.is_file() else {}
    if not isinstance(begun, dict):
        raise StoreError(f"{path}: is damaged; remove {attempt} to begin anew")
    if others := differences(now | begun, begun | now):  # names that only one of them has are equal in both
        raise ConfigError(
            f"{attempt}: was begun with other settings ({', '.join(others)}); resume it with the same ones"
        )
    write_json(path, begun | now)


def _attacked(
    row: Attack,
    name: str,
    cfg: Any,
    *,
    predict: Predict,
    model: nn.Module | None,
    num_classes: int,
    access: str | None,
    query_budget: int | None,
    log: Path | None,
    context: AttackContext,
) -> Attacked:
    """Run an attack on the weights, or through an oracle that counts its queries."""
    if row.access == "weights":
        assert model is not None
        return Attacked(model=row.run(cfg, model, context), attack=name, queries=None)
    oracle = BudgetedOracle(predict, access=access or row.access, num_classes=num_classes, budget=query_budget, log=log)
    return Attacked(model=row.run(cfg, oracle, context), attack=name, queries=oracle.queries)


def _path(folder: str | Path | None) -> Path | None:
    return None if folder is None else Path(folder)


def _config(row: Attack, attack: str, settings: Sequence[str] | Mapping[str, Any]) -> Any:
    if isinstance(settings, Mapping):
        return with_values(row.config, settings, attack)
    return with_settings(row.config, settings)


def _context(
    template: nn.Module,
    data: Split,
    eps: float,
    seed: int,
    family: str,
    attack: str,
    execution: Execution | None,
    folder: Path | None,
    progress: Progress,
) -> AttackContext:
    return AttackContext(
        data=data,
        new_model=lambda name: reinitialized(template, derive(seed, "fresh", name)),
        eps=eps,
        seed=derive(seed, family, attack),
        execution=execution or Execution(),
        folder=folder,
        progress=progress,
    )


def _attack_data(data: DataLike) -> Split:
    """Return the attacker's images: of a wootz data set, the share that is set aside for attackers."""
    if isinstance(data, Dataset):
        return data.thief
    return load(str(data)).thief if isinstance(data, str | Path) else as_split(data)


def _num_classes(model: nn.Module, data: Split) -> int:
    return predict_logits(model, data.subset(slice(1)).images()).shape[1]


def _attacker_images(cfg: Any, data: Dataset, data_dir: Path | None) -> Split:
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


def _attacker_spec(cfg: Any, victim: ModelSpec) -> ModelSpec:
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


def _accuracy_drop(folder: Path, cell: Result) -> AccuracyDrop | None:
    """Return what the attack cost against the victim's own record, where that was measured in the same way."""
    record = folder / "record.json"
    if not record.is_file():
        return None
    victim = from_json(read_json(record), str(record))
    if victim.clean is None or victim.robust is None or cell.clean is None or cell.robust is None:
        return None
    alike = all(getattr(victim.robust, name) == getattr(cell.robust, name) for name in ("attack", "eps", "n"))
    robust = round(victim.robust.accuracy - cell.robust.accuracy, 4) if alike else None
    return AccuracyDrop(clean=round(victim.clean - cell.clean, 4), robust=robust)


def _move_logs(source: Path, target: Path) -> None:
    """Move the log of queries, the transcript and the guard's log, those that are there."""
    for name in _LOGS:
        if (source / name).is_file():
            move_file(source / name, target / name)
