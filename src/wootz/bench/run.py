"""Run a grid: find finished work, run the missing jobs in the order of their needs, and journal every result."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

from wootz.bench.executor import Executor, ExecutorFactory, WorkerConfig, local_executor
from wootz.bench.grid import Grid
from wootz.bench.jobs import JobContext, JobResult, missing_models
from wootz.bench.plan import GridCell, Job, Plan, plan_grid, select_cells
from wootz.config import to_toml
from wootz.errors import StoreError
from wootz.keys import owner_secret, public_hex, signing_key
from wootz.records import GRID_METADATA_FILE, RESULTS_FILE, SCHEMA, Result, append, from_json, read_lines, to_json
from wootz.store import lock_folder, read_bytes, write_bytes, write_json
from wootz.training import Execution
from wootz.types import Progress
from wootz.workflows.run import Timer

GRID_COPY = "grid.toml"
"""The copy of the grid file in the grid's folder."""

JOURNAL = "journal.jsonl"
"""Every result that was ever computed in a grid's folder, one per line; the last line of a digest counts."""

_PACKAGES = ("wootz", "torch", "numpy", "onnxruntime", "ray")
"""Packages whose versions the metadata names."""

_SECONDS_BETWEEN_WRITES = 5.0
"""The results file is written at most this often while jobs run."""


class GridRun(NamedTuple):
    """What a call of `run_grid` did.

    Attributes:
        results: All finished results of the grid, in its order.
        computed: The number of results that this call computed; the others were cached.
        models: The number of models that this call made.
        seconds: Wall time.
        job_seconds: The sum of the wall times of all jobs.
    """

    results: tuple[Result, ...]
    computed: int
    models: int
    seconds: float
    job_seconds: float

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results that have an error instead of figures."""
        return tuple(result for result in self.results if result.error is not None)


class GridStatus(NamedTuple):
    """How much of a grid, or of selected cells of it, is finished.

    Attributes:
        cells: The number of cells.
        cached: The number of cells that have a result.
        failed: The number of those whose result is an error.
        models: The number of models that the other cells still need.
    """

    cells: int
    cached: int
    failed: int
    models: int


def run_grid(
    grid: Grid,
    out: Path,
    *,
    executor: ExecutorFactory = local_executor,
    workers: WorkerConfig,
    select: Sequence[str] = (),
    retry: bool = False,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    progress: Progress = lambda *_: None,
) -> GridRun:
    """Compute every result of a grid that `out` does not hold yet, and write `cells.jsonl` in the grid's order.

    Results and models are named by the digest of their config, so a later call, also of a grid that was extended,
    reuses all finished work. A test that fails has an error as its result; jobs that need a failed one fail with it,
    and no others.

    Args:
        grid: The grid.
        out: The grid's folder.
        executor: A row of `EXECUTORS`.
        workers: Number and size of workers.
        select: Selectors of the cells to compute, see `select_cells`; by default all.
        retry: Compute failed results again.
        data_dir: The folder in which data sets are searched first.
        execution: Device and precision.
        progress: Called after each job.

    Raises:
        ConfigError: A name or setting in the grid or in `select` is unknown, or another call is running in `out`.
    """
    timer, plan = Timer(), plan_grid(grid, data_dir)
    wanted = {cell.job.digest: cell.job for cell in select_cells(plan.cells, select)}
    with lock_folder(out):
        write_bytes(out / GRID_COPY, to_toml(grid))
        owner_secret()  # created here, before several workers ask for it at once
        context = JobContext(
            folder=out.resolve(),
            data_dir=data_dir.resolve() if data_dir else None,
            execution=execution or Execution(),
            owner=public_hex(signing_key()),
        )
        cached = {d: result for d, result in read_journal(out).items() if not (retry and result.error and d in wanted)}
        scheduler = _Scheduler(plan, wanted, cached, context, workers, progress)
        if scheduler.jobs:
            with executor(workers, context) as pool:
                scheduler.run(pool)
        results = scheduler.write_results()
    return GridRun(
        results, scheduler.computed, scheduler.models, timer.seconds, round(scheduler.estimate.job_seconds, 1)
    )


def grid_status(grid: Grid, out: Path, *, select: Sequence[str] = (), data_dir: Path | None = None) -> GridStatus:
    """Count finished and missing cells of a grid. Nothing is written, and another call may be running in `out`.

    Args:
        grid: The grid.
        out: The grid's folder; it need not exist.
        select: Selectors of the cells to count, see `select_cells`; by default all.
        data_dir: The folder in which data sets are searched first.

    Raises:
        ConfigError: A name or setting in the grid or in `select` is unknown.
        StoreError: The journal is broken.
    """
    plan, journal = plan_grid(grid, data_dir), read_journal(out)
    jobs = {cell.job.digest: cell.job for cell in select_cells(plan.cells, select)}
    missing = [job for digest, job in jobs.items() if digest not in journal]
    failed = sum(journal[digest].error is not None for digest in jobs if digest in journal)
    return GridStatus(len(jobs), len(jobs) - len(missing), failed, len(missing_models(missing, plan.models, out)))


class _Scheduler:
    """Runs the missing jobs of a grid in the order of their needs, and keeps its results."""

    def __init__(
        self,
        plan: Plan,
        wanted: Mapping[str, Job],
        results: dict[str, Result],
        context: JobContext,
        workers: WorkerConfig,
        progress: Progress,
    ) -> None:
        self._cells = {cell.job.digest: cell for cell in plan.cells}
        self._results, self._folder, self._progress = results, context.folder, progress
        self._failed: dict[str, str] = {}
        self.computed = self.models = 0
        self.jobs = {digest: job for digest, job in wanted.items() if digest not in results}
        self.jobs |= missing_models(self.jobs.values(), plan.models, context.folder)
        self.estimate = _Estimate(self.jobs.values(), workers.workers)
        self._since_write = Timer()

    def run(self, executor: Executor) -> None:
        """Submit each job as soon as the jobs that it needs have ended, until all have ended."""
        waits_for = {d: {need for need in job.needs if need in self.jobs} for d, job in self.jobs.items()}
        needed_by: defaultdict[str, list[str]] = defaultdict(list)
        for digest, needs in waits_for.items():
            for need in needs:
                needed_by[need].append(digest)
        ready = deque(digest for digest, needs in waits_for.items() if not needs)
        running = 0
        while ready or running:
            while ready:
                digest = ready.popleft()
                failed_need = next((need for need in self.jobs[digest].needs if need in self._failed), None)
                if failed_need is None:
                    executor.submit(self.jobs[digest])
                    running += 1
                    continue
                self._finish(JobResult(digest, None, 0.0, self._failed[failed_need]))
                ready.extend(_released(digest, waits_for, needed_by))
            if running:
                outcome = executor.next_result()
                running -= 1
                self._finish(outcome)
                ready.extend(_released(outcome.job, waits_for, needed_by))

    def write_results(self) -> tuple[Result, ...]:
        """Write the results file in the grid's order, and return its results."""
        cells = (cell for cell in self._cells.values() if cell.job.digest in self._results)
        results = tuple(
            replace(
                self._results[cell.job.digest],
                suspect=cell.suspect,
                axes=cell.axes,
                seed=cell.seed,
                data=cell.axes["data"],
            )
            for cell in cells
        )
        lines = "".join(json.dumps(to_json(result)) + "\n" for result in results)
        write_bytes(self._folder / RESULTS_FILE, lines.encode())
        self._since_write = Timer()
        return results

    def _finish(self, outcome: JobResult) -> None:
        job = self.jobs[outcome.job]
        self.estimate.add(job, outcome.seconds)
        if outcome.error is not None:
            self._failed[outcome.job] = outcome.error
        if job.kind != "test":
            self.models += outcome.error is None
        else:
            self.computed += 1
            cell = self._cells[outcome.job]
            result = _failure(cell, outcome) if outcome.record is None else from_json(outcome.record)
            result = replace(result, digest=outcome.job)
            self._results[outcome.job] = result
            append(self._folder / JOURNAL, result)
        if self._since_write.seconds > _SECONDS_BETWEEN_WRITES:
            self.write_results()
        self._progress(self.estimate.message, self.estimate.fraction)


def _released(digest: str, waits_for: dict[str, set[str]], needed_by: Mapping[str, list[str]]) -> list[str]:
    """Remove an ended job from the needs of others, and return those that now wait for none."""
    released = []
    for dependent in needed_by.get(digest, ()):
        waits_for[dependent].discard(digest)
        if not waits_for[dependent]:
            released.append(dependent)
    return released


def _failure(cell: GridCell, outcome: JobResult) -> Result:
    return Result(data=cell.axes["data"], suspect=cell.suspect, kind=cell.kind, seed=cell.seed, error=outcome.error)


class _Estimate:
    """Estimates the remaining time from the jobs that ended.

    A job is expected to take as long as the mean of the ended jobs with its label, else of its kind, else of all.
    """

    def __init__(self, jobs: Iterable[Job], workers: int) -> None:
        self._left = Counter((job.kind, job.label) for job in jobs)
        self._total, self._workers = self._left.total(), workers
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._ended: Counter[tuple[str, str]] = Counter()

    def add(self, job: Job, seconds: float) -> None:
        """Count a job that ended and took this many seconds."""
        name = (job.kind, job.label)
        self._left[name] -= 1
        self._ended[name] += 1
        self._seconds[name] += seconds

    @property
    def job_seconds(self) -> float:
        """The sum of the wall times of all ended jobs."""
        return float(sum(self._seconds.values()))

    @property
    def fraction(self) -> float:
        """The fraction of jobs that have ended."""
        return 1 - self._left.total() / max(1, self._total)

    @property
    def seconds_left(self) -> float | None:
        """Remaining wall time with all workers busy, in seconds; None before any job has ended."""
        if not self._ended.total():
            return None
        return sum(count * self._mean(name) for name, count in self._left.items() if count) / self._workers

    @property
    def message(self) -> str:
        """Progress as text."""
        seconds = self.seconds_left
        remaining = "" if seconds is None else f", about {max(1, round(seconds / 60))} min left"
        return f"job {self._ended.total()} of {self._total}{remaining}"

    def _mean(self, name: tuple[str, str]) -> float:
        similar = [n for n in self._ended if n == name] or [n for n in self._ended if n[0] == name[0]] or [*self._ended]
        return sum(self._seconds[n] for n in similar) / sum(self._ended[n] for n in similar)


def read_journal(folder: Path) -> dict[str, Result]:
    """Return the journaled results by digest. An incomplete last line, being written or cut off, is ignored.

    Raises:
        StoreError: Another line is broken; the message names it.
    """
    path = folder / JOURNAL
    if not path.is_file():
        return {}
    results: dict[str, Result] = {}
    for number, result in enumerate(read_lines(path, ended=True), 1):
        if result.digest is None:
            raise StoreError(f"{path}, line {number}: names no digest; it is not a grid's")
        results[result.digest] = result
    return results


def write_metadata(folder: Path, *, name: str, command: str, seconds: float, job_seconds: float) -> None:
    """Write `bench.json`: command, date, hardware, versions and times of a grid.

    Args:
        folder: The grid's folder.
        name: The name of the grid.
        command: The command that ran it.
        seconds: Wall time of the newest call that computed anything.
        job_seconds: The sum of the wall times of its jobs.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    hardware = {"processor": _processor(), "cores": str(os.cpu_count())}
    if torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name()
    content = {
        "schema": SCHEMA,
        "name": name,
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": hardware,
        "versions": versions,
        "seconds": seconds,
        "work": job_seconds,
    }
    write_json(folder / GRID_METADATA_FILE, content)


def _processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = read_bytes(info).decode(errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
