"""Grids of experiments: from a TOML file to results, each computed once and named by the digest of its config.

`grid` reads grid files, `plan` enumerates cells and jobs, `jobs` runs one job, `executor` runs jobs in local processes
or in Ray, `run` schedules the jobs of a grid, journals results and counts what is missing.
"""

from wootz.bench.executor import EXECUTORS, WorkerConfig
from wootz.bench.grid import Grid, read_grid
from wootz.bench.plan import plan_grid
from wootz.bench.run import GRID_COPY, GridRun, GridStatus, grid_status, run_grid, write_metadata

__all__ = [
    "EXECUTORS",
    "GRID_COPY",
    "Grid",
    "GridRun",
    "GridStatus",
    "WorkerConfig",
    "grid_status",
    "plan_grid",
    "read_grid",
    "run_grid",
    "write_metadata",
]
