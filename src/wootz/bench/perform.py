"""What a worker does with a job. Doing a job again finds what was done before: models by folder, cells by nobody."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from wootz.bench.job import Job, JobKind, Outcome
from wootz.bench.shelf import DONE, is_made, model_folder
from wootz.config import from_mapping
from wootz.data import load
from wootz.errors import ConfigError, Error
from wootz.keys import public_hex, signing_key
from wootz.records import Cell, RobustRecord, from_json, to_json
from wootz.store import read_json, write_bytes, write_json
from wootz.training import Execution
from wootz.workflows.attack import GUARD_LOG, attack_run
from wootz.workflows.evaluate import evaluate_run
from wootz.workflows.owner import Owner, make_references
from wootz.workflows.protect import protect_run
from wootz.workflows.protection import Protection
from wootz.workflows.suspects import QueryConfig
from wootz.workflows.verify import verify_cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where and how jobs are done; the same for all jobs of a grid, and no part of their names.

    Attributes:
        folder: holds `models/DIGEST` and what went wrong; every worker must see it under this path.
        data_dir: where data are looked for first.
        execution: device and precision.
        owner: the public key of whoever's grid it is; a worker with another owner's key refuses.
    """

    folder: Path
    data_dir: Path | None
    execution: Execution
    owner: str

    def model(self, digest: str) -> Path:
        """Return the folder of a job that makes a model."""
        return model_folder(self.folder, digest)


def perform(job: Job, shop: Workshop) -> Outcome:
    """Do a job; whatever it raises becomes its outcome, in one line."""
    start = time.monotonic()
    try:
        if shop.owner != public_hex(signing_key()):
            raise ConfigError("this worker has another owner's keys; give all workers the same WOOTZ_OWNER_KEY files")
        cell = _DOING[job.kind](job, shop)
    except Error as error:
        return Outcome(job.digest, None, 0.0, " ".join(str(error).split()))
    except Exception as error:
        write_bytes(shop.folder / "errors" / f"{job.digest}.txt", traceback.format_exc().encode())
        told = " ".join(str(error).split())
        return Outcome(job.digest, None, 0.0, f"{type(error).__name__}: {told} (see errors/{job.digest}.txt)")
    return Outcome(job.digest, cell, round(time.monotonic() - start, 2))


def _panel(job: Job, shop: Workshop) -> None:
    cfg = from_mapping(Protection, job.config["protection"])
    with _making(job.digest, shop) as (place, made):
        if not made:
            make_references(
                cfg,
                load(cfg.data, shop.data_dir, cfg.set_aside),
                place,
                execution=shop.execution,
                progress=lambda *_: None,
            )


def _train(job: Job, shop: Workshop) -> None:
    cfg, measure = from_mapping(Protection, job.config["protection"]), job.config["measure"]
    with _making(job.digest, shop) as (place, made):
        if made:
            return
        if job.config["panel"] and not (place / "panel").exists():
            whole = place / ".panel"
            shutil.rmtree(whole, ignore_errors=True)
            shutil.copytree(shop.model(job.config["panel"]), whole, ignore=shutil.ignore_patterns(DONE))
            whole.rename(place / "panel")
        protect_run(cfg, place, data_dir=shop.data_dir, execution=shop.execution, resume=True, count=measure["images"])
        also = [
            evaluate_run(
                place,
                attack=name,
                count=measure["evaluation_images"],
                seed=cfg.seed,
                data_dir=shop.data_dir,
                execution=shop.execution,
            )
            for name in measure["evaluations"]
        ]
        write_json(place / "also.json", [dataclasses.asdict(cell.robust) for cell in also if cell.robust])


def _attack(job: Job, shop: Workshop) -> None:
    cfg = job.config
    with _making(job.digest, shop) as (place, made):
        if made or (place / "record.json").is_file():
            return
        (place / "model.safetensors").unlink(missing_ok=True)  # written, but never measured: a stop lay between
        attack_run(
            cfg["family"],
            shop.model(cfg["owner"]),
            cfg["attack"],
            place,
            settings=cfg["settings"],
            access=cfg["access"],
            budget=cfg["budget"],
            served=cfg["served"],
            count=cfg["images"],
            seed=cfg["seed"],
            resume=True,
            data_dir=shop.data_dir,
            execution=shop.execution,
        )


def _test(job: Job, shop: Workshop) -> dict[str, Any]:
    cfg, place = job.config, shop.model(job.config["suspect"])
    cell = from_json(read_json(place / "record.json"))
    also = read_json(place / "also.json") if (place / "also.json").is_file() else []
    cell = replace(cell, also=tuple(RobustRecord(**item | {"flags": tuple(item["flags"])}) for item in also))
    if cfg["owner"] is None:
        return to_json(cell)
    owner, log = shop.model(cfg["owner"]), place / GUARD_LOG
    query = QueryConfig(access=cfg["access"], boundary_queries=cfg.get("walks", 0), isolated=False)
    found = verify_cell(
        _owner(owner),
        place,
        query,
        threshold_bits=cfg["bits"],
        guard_log=log if log.is_file() else None,
    )
    return to_json(_joined(cell, found, stranger=cell.kind == "independent"))


def _joined(cell: Cell, found: Cell, *, stranger: bool) -> Cell:
    """Return a suspect's own cell with what its test found; a control was not made for this test alone."""
    return replace(
        cell,
        access=found.access,
        evidence=found.evidence,
        bits=found.bits,
        bar=found.bar,
        verdict=found.verdict,
        seconds=round(found.seconds + (0 if stranger else cell.seconds), 1),
        notes=(*cell.notes, *found.notes),
    )


@contextmanager
def _making(digest: str, shop: Workshop) -> Iterator[tuple[Path, bool]]:
    """Give a model's folder to one worker at a time, say whether it is whole already, and mark it whole at the end."""
    place = shop.model(digest)
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        made = is_made(shop.folder, digest)
        yield place, made
        if not made:
            write_json(place / DONE, {"job": digest})
    finally:
        os.close(descriptor)


_owner = lru_cache(maxsize=4)(Owner.load)

_DOING: Mapping[JobKind, Callable[[Job, Workshop], dict[str, Any] | None]] = MappingProxyType(
    {"panel": _panel, "train": _train, "attack": _attack, "test": _test}
)
