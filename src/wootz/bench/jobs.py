"""Run one job of a grid. Jobs are idempotent: a finished model is found in its folder by digest and not made again."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from wootz.bench.plan import Job, JobKind
from wootz.config import from_mapping
from wootz.data import load
from wootz.errors import ConfigError, Error
from wootz.keys import public_hex, signing_key
from wootz.records import Result, RobustRecord, from_json, to_json, with_evidence
from wootz.store import read_json, write_bytes, write_json
from wootz.training import Execution
from wootz.workflows.attack import GUARD_LOG, attack_run
from wootz.workflows.evaluate import evaluate_run
from wootz.workflows.owner import Owner, make_references
from wootz.workflows.protect import protect_run
from wootz.workflows.protection import Protection
from wootz.workflows.suspects import QueryConfig
from wootz.workflows.verify import verify_cell

DONE = "done.json"
"""File that is written last into a model's folder."""


def model_folder(folder: Path, digest: str) -> Path:
    """Return the folder of the model with this digest, in a grid's folder."""
    return folder / "models" / digest


def is_complete(folder: Path, digest: str) -> bool:
    """Whether the model with this digest is finished, in a grid's folder."""
    return (model_folder(folder, digest) / DONE).is_file()


def missing_models(tests: Iterable[Job], models: Mapping[str, Job], folder: Path) -> dict[str, Job]:
    """Return the unfinished models that these tests need, directly or indirectly, in the order of `models`."""
    missing: set[str] = set()
    pending = [need for job in tests for need in job.needs]
    while pending:
        digest = pending.pop()
        if digest not in missing and not is_complete(folder, digest):
            missing.add(digest)
            pending.extend(models[digest].needs)
    return {digest: job for digest, job in models.items() if digest in missing}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """Where and how jobs run. It is the same for all jobs of a grid and does not enter their digests.

    Attributes:
        folder: The grid's folder, which holds `models/DIGEST` and `errors/`; every worker must see it under this path.
        data_dir: The folder in which data sets are searched first.
        execution: Device and precision.
        owner: The public key of the grid's owner; a worker that has another owner's keys refuses to work.
    """

    folder: Path
    data_dir: Path | None
    execution: Execution
    owner: str

    def model(self, digest: str) -> Path:
        """Return the folder of a model."""
        return model_folder(self.folder, digest)


class JobResult(NamedTuple):
    """How a job ended.

    Attributes:
        job: The digest of the job.
        record: The record of a `test` that succeeded, as plain JSON.
        seconds: The wall time of the job, 0 if it failed.
        error: One line that says why it failed; None if it succeeded.
    """

    job: str
    record: dict[str, Any] | None
    seconds: float
    error: str | None = None


def run_job(job: Job, context: JobContext) -> JobResult:
    """Run a job; an exception becomes an error of one line, the traceback of an unexpected one is kept in `errors/`."""
    start = time.monotonic()
    try:
        if context.owner != public_hex(signing_key()):
            raise ConfigError("this worker has another owner's keys; give all workers the same WOOTZ_OWNER_KEY files")
        record = _HANDLERS[job.kind](job, context)
    except Error as error:
        return JobResult(job.digest, None, 0.0, " ".join(str(error).split()))
    except Exception as error:
        write_bytes(context.folder / "errors" / f"{job.digest}.txt", traceback.format_exc().encode())
        message = " ".join(str(error).split())
        return JobResult(job.digest, None, 0.0, f"{type(error).__name__}: {message} (see errors/{job.digest}.txt)")
    return JobResult(job.digest, record, round(time.monotonic() - start, 2))


def _train_panel(job: Job, context: JobContext) -> None:
    cfg = from_mapping(Protection, job.config["protection"])
    with _build_once(job.digest, context) as (folder, complete):
        if not complete:
            make_references(
                cfg,
                load(cfg.data, context.data_dir, **cfg.reading()),
                folder,
                execution=context.execution,
                progress=lambda *_: None,
            )


def _train_model(job: Job, context: JobContext) -> None:
    cfg, measure = from_mapping(Protection, job.config["protection"]), job.config["measure"]
    with _build_once(job.digest, context) as (folder, complete):
        if complete:
            return
        if job.config["panel"] and not (folder / "panel").exists():
            partial = folder / ".panel"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(context.model(job.config["panel"]), partial, ignore=shutil.ignore_patterns(DONE))
            partial.rename(folder / "panel")
        protect_run(
            cfg, folder, data_dir=context.data_dir, execution=context.execution, resume=True, count=measure["images"]
        )
        also = [
            evaluate_run(
                folder,
                attack=name,
                count=measure["evaluation_images"],
                seed=cfg.seed,
                data_dir=context.data_dir,
                execution=context.execution,
            )
            for name in measure["evaluations"]
        ]
        write_json(folder / "also.json", [dataclasses.asdict(result.robust) for result in also if result.robust])


def _attack_model(job: Job, context: JobContext) -> None:
    cfg = job.config
    with _build_once(job.digest, context) as (folder, complete):
        if complete or (folder / "record.json").is_file():
            return
        attack_run(
            cfg["family"],
            context.model(cfg["owner"]),
            cfg["attack"],
            folder,
            settings=cfg["settings"],
            access=cfg["access"],
            budget=cfg["budget"],
            served=cfg["served"],
            count=cfg["images"],
            seed=cfg["seed"],
            resume=True,
            data_dir=context.data_dir,
            execution=context.execution,
        )


def _test_suspect(job: Job, context: JobContext) -> dict[str, Any]:
    cfg, folder = job.config, context.model(job.config["suspect"])
    result = from_json(read_json(folder / "record.json"), str(folder / "record.json"))
    also = read_json(folder / "also.json") if (folder / "also.json").is_file() else []
    result = replace(result, also=tuple(RobustRecord(**item | {"flags": tuple(item["flags"])}) for item in also))
    if cfg["owner"] is None:
        return to_json(result)
    owner, log = context.model(cfg["owner"]), folder / GUARD_LOG
    query = QueryConfig(access=cfg["access"], boundary_queries=cfg.get("walks", 0), isolated=False)
    tested = verify_cell(
        _cached_owner(owner),
        folder,
        query,
        threshold_bits=cfg["bits"],
        guard_log=log if log.is_file() else None,
    )
    return to_json(_tested(result, tested))


def _tested(result: Result, tested: Result) -> Result:
    """Return a suspect's own result with the outcome of its test.

    `seconds` counts making the suspect as well, unless it is an independent model, which several tests share.
    """
    seconds = round(tested.seconds + (0 if result.kind == "independent" else result.seconds), 1)
    return replace(with_evidence(result, tested), seconds=seconds)


@contextmanager
def _build_once(digest: str, context: JobContext) -> Iterator[tuple[Path, bool]]:
    """Lock a model's folder, yield it with whether it is complete already, and mark it complete at the end."""
    folder = context.model(digest)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".build.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        complete = is_complete(context.folder, digest)
        yield folder, complete
        if not complete:
            write_json(folder / DONE, {"job": digest})
    finally:
        os.close(descriptor)


_cached_owner = lru_cache(maxsize=4)(Owner.load)

_HANDLERS: Mapping[JobKind, Callable[[Job, JobContext], dict[str, Any] | None]] = MappingProxyType(
    {"panel": _train_panel, "train": _train_model, "attack": _attack_model, "test": _test_suspect}
)
