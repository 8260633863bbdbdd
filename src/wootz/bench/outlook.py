"""How far a grid is: what of it is there, and what a call would make. Nothing is made or written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wootz.bench.grid import Grid
from wootz.bench.journal import read_journal
from wootz.bench.part import part_of
from wootz.bench.plan import plan_of
from wootz.bench.shelf import lacking


class Outlook(NamedTuple):
    """What is there of a grid, or of a part of it, and what is not.

    Attributes:
        cells: of the grid or the part.
        there: how many of them are there.
        failed: how many of those have an error instead of figures.
        models: how many models must be made for the others.
    """

    cells: int
    there: int
    failed: int
    models: int


def outlook(grid: Grid, out: Path, *, only: Sequence[str] = (), data_dir: Path | None = None) -> Outlook:
    """Say how far a grid is; another call may be working in `out` meanwhile.

    Args:
        grid: what is to be made.
        out: the grid's folder; need not be there.
        only: look at these cells alone, see `part_of`.
        data_dir: where data are looked for first.

    Raises:
        ConfigError: an unknown name or setting in the grid or in `only`.
        StoreError: the journal is broken.
    """
    plan, known = plan_of(grid, data_dir), read_journal(out)
    jobs = {place.job.digest: place.job for place in part_of(plan.places, only)}
    left = [job for digest, job in jobs.items() if digest not in known]
    failed = sum(known[digest].error is not None for digest in jobs if digest in known)
    return Outlook(len(jobs), len(jobs) - len(left), failed, len(lacking(left, plan.models, out)))
