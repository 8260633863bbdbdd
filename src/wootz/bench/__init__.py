"""Grids: from a TOML file to cells, each named by the digest of its config, made once, by whoever is at hand.

`grid` says what a file may hold, `plan` lays it out as jobs, `part` picks some of its cells, `perform` is what a worker
does with a job, `shelf` is where models lie, `local` and `on_ray` are crews of workers, `run` hands out jobs and keeps
the journal, `outlook` says how far it is.
"""

from wootz.bench.crew import Staffing
from wootz.bench.grid import Grid, read_grid
from wootz.bench.outlook import Outlook, outlook
from wootz.bench.plan import plan_of
from wootz.bench.run import COPY, EXECUTORS, Done, run_grid

__all__ = ["COPY", "EXECUTORS", "Done", "Grid", "Outlook", "Staffing", "outlook", "plan_of", "read_grid", "run_grid"]
