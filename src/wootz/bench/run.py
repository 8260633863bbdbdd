"""Do a grid: find what is there, hand out the rest in the order of its needs, write every cell as it is made."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from wootz.bench.crew import Crew, Staffing
from wootz.bench.estimate import Estimate
from wootz.bench.grid import Grid
from wootz.bench.job import Job, Outcome
from wootz.bench.journal import alone, mend, note, read_journal
from wootz.bench.local import local
from wootz.bench.on_ray import on_ray
from wootz.bench.part import part_of
from wootz.bench.perform import Workshop
from wootz.bench.plan import Place, Plan, plan_of
from wootz.bench.shelf import lacking
from wootz.config import to_toml
from wootz.keys import owner_secret, public_hex, signing_key
from wootz.records import Result, from_json, to_json
from wootz.store import write_bytes
from wootz.training import Execution
from wootz.types import Progress
from wootz.workflows.run import Timer

Executor: TypeAlias = Callable[[Staffing, Workshop], AbstractContextManager[Crew]]

EXECUTORS: Mapping[str, Executor] = MappingProxyType({"local": local, "ray": on_ray})
"""Who does the jobs, by name."""

COPY = "grid.toml"
"""The grid itself, kept in its folder."""

_VIEW_EVERY = 5.0


class Done(NamedTuple):
    """How a grid went.

    Attributes:
        cells: all of the grid that are there, in its order.
        computed: how many of them were made now; the others were there.
        models: how many models were made now.
        seconds: wall time.
        work: seconds that all jobs took together.
    """

    cells: tuple[Result, ...]
    computed: int
    models: int
    seconds: float
    work: float

    @property
    def failed(self) -> tuple[Result, ...]:
        """The cells that have an error instead of figures."""
        return tuple(cell for cell in self.cells if cell.error is not None)


def run_grid(
    grid: Grid,
    out: Path,
    *,
    executor: Executor = local,
    staffing: Staffing,
    only: Sequence[str] = (),
    retry: bool = False,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    progress: Progress = lambda *_: None,
) -> Done:
    """Make every cell of a grid that is not in `out` yet, and write `cells.jsonl` in the grid's order.

    A cell or model is named by the digest of its config, so a call that was cut off, or a grid that grew, takes up
    what is there. A cell that fails is a cell with an error; what needs it fails with it, and nothing else does.

    Args:
        grid: what to make.
        out: the grid's folder.
        executor: who does the jobs: a row of `EXECUTORS`.
        staffing: how many work.
        only: make these cells now, see `part_of`; by default all.
        retry: make failed cells again.
        data_dir: where data are looked for first.
        execution: device and precision.
        progress: told what is going on.

    Raises:
        ConfigError: an unknown name or setting in the grid or in `only`, or another call works in `out`.
    """
    time, plan = Timer(), plan_of(grid, data_dir)
    wanted = {place.job.digest: place.job for place in part_of(plan.places, only)}
    with alone(out):
        mend(out)
        write_bytes(out / COPY, to_toml(grid))
        owner_secret()  # made here, before many workers ask for it at once
        shop = Workshop(
            folder=out.resolve(),
            data_dir=data_dir.resolve() if data_dir else None,
            execution=execution or Execution(),
            owner=public_hex(signing_key()),
        )
        known = {d: cell for d, cell in read_journal(out).items() if not (retry and cell.error and d in wanted)}
        bench = _Bench(plan, wanted, known, shop, staffing, progress)
        if bench.todo:
            with executor(staffing, shop) as crew:
                bench.work(crew)
        cells = bench.view()
    return Done(cells, bench.computed, bench.models, time.seconds, round(bench.estimate.work, 1))


class _Bench:
    """The state of one call: what is known, what waits for what, what is being done."""

    def __init__(
        self,
        plan: Plan,
        wanted: Mapping[str, Job],
        known: dict[str, Result],
        shop: Workshop,
        staffing: Staffing,
        progress: Progress,
    ) -> None:
        self._places = {place.job.digest: place for place in plan.places}
        self._known, self._shop, self._progress = known, shop, progress
        self._failed: dict[str, str] = {}
        self.computed = self.models = 0
        self.todo = {d: job for d, job in wanted.items() if d not in known}
        self.todo |= lacking(self.todo.values(), plan.models, shop.folder)
        self.estimate = Estimate(self.todo.values(), staffing.workers)
        self._viewed = Timer()

    def work(self, crew: Crew) -> None:
        """Hand out jobs as soon as what they need is there, until all have ended."""
        waits_for = {d: {need for need in job.needs if need in self.todo} for d, job in self.todo.items()}
        wanted_by: defaultdict[str, list[str]] = defaultdict(list)
        for d, needs in waits_for.items():
            for need in needs:
                wanted_by[need].append(d)
        ready = deque(d for d, needs in waits_for.items() if not needs)
        running = 0
        while ready or running:
            while ready:
                digest = ready.popleft()
                broken = next((n for n in self.todo[digest].needs if n in self._failed), None)
                if broken is None:
                    crew.submit(self.todo[digest])
                    running += 1
                    continue
                self._end(Outcome(digest, None, 0.0, self._failed[broken]))
                ready.extend(_freed(digest, waits_for, wanted_by))
            if running:
                outcome = crew.finished()
                running -= 1
                self._end(outcome)
                ready.extend(_freed(outcome.job, waits_for, wanted_by))

    def view(self) -> tuple[Result, ...]:
        """Write `cells.jsonl` from what is known, in the grid's order, and return its cells."""
        cells = tuple(self._placed(place) for place in self._places.values() if place.job.digest in self._known)
        write_bytes(self._shop.folder / "cells.jsonl", "".join(json.dumps(to_json(c)) + "\n" for c in cells).encode())
        self._viewed = Timer()
        return cells

    def _end(self, outcome: Outcome) -> None:
        job = self.todo[outcome.job]
        self.estimate.end(job, outcome.seconds)
        if outcome.error is not None:
            self._failed[outcome.job] = outcome.error
        if job.kind != "test":
            self.models += outcome.error is None
        else:
            self.computed += 1
            cell = _failure(self._places[outcome.job], outcome) if outcome.cell is None else from_json(outcome.cell)
            cell = replace(cell, digest=outcome.job)
            self._known[outcome.job] = cell
            note(self._shop.folder, cell)
        if self._viewed.seconds > _VIEW_EVERY:
            self.view()
        self._progress(self.estimate.words, self.estimate.done)

    def _placed(self, place: Place) -> Result:
        cell = self._known[place.job.digest]
        return replace(cell, suspect=place.suspect, axes=place.axes, seed=place.seed, data=place.axes["data"])


def _freed(digest: str, waits_for: dict[str, set[str]], wanted_by: Mapping[str, list[str]]) -> list[str]:
    """Note that a job ended, and return those that waited for nothing else."""
    freed = []
    for other in wanted_by.get(digest, ()):
        waits_for[other].discard(digest)
        if not waits_for[other]:
            freed.append(other)
    return freed


def _failure(place: Place, outcome: Outcome) -> Result:
    return Result(data=place.axes["data"], suspect=place.suspect, kind=place.kind, seed=place.seed, error=outcome.error)
