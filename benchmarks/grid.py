"""Measure the overhead of running a grid, and the time to list ten thousand cached results again.

    python benchmarks/grid.py [--grid grids/smoke.toml] [--json]

Overhead: one local worker runs a grid; the fraction of wall time that no job accounts for, start of the worker
included. Listing: planning a grid of 10,000 cells whose journal is full, reading it and writing `cells.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from wootz.bench import WorkerConfig, plan_grid, read_grid, run_grid
from wootz.bench.grid import Axes, IndependentModels
from wootz.bench.run import JOURNAL
from wootz.logs import quiet
from wootz.records import EvidenceRecord, Result, RobustRecord, to_json
from wootz.workflows.run import Timer

CELLS = 10_000


def overhead(path: Path) -> dict[str, float]:
    """Run the grid with one worker."""
    with tempfile.TemporaryDirectory() as folder:
        done = run_grid(read_grid(path), Path(folder), workers=WorkerConfig(workers=1))
    return {
        "cells": len(done.results),
        "seconds": done.seconds,
        "work": done.job_seconds,
        "overhead": done.seconds / done.job_seconds - 1,
    }


def listing(path: Path) -> dict[str, float]:
    """List 10,000 results that are all in the journal."""
    axes = Axes(
        data=("mnist-5k",),
        mark=("paper", "runner-up"),
        theft=("none", "independent", "copy", "ftll", "finetune"),
        seed=tuple(range(CELLS // 20)),
    )
    grid = replace(read_grid(path), axes=axes, independent=(IndependentModels(count=6),))
    plan = plan_grid(grid)
    robust = RobustRecord(eps=0.25, attack="pgd-40x2", n=1000, accuracy=0.8)
    evidence = EvidenceRecord(mark="runner-up", p="1e-50", bits=166.1, queries=1000, statistic=0.3)
    with tempfile.TemporaryDirectory() as folder:
        result = Result(
            data="mnist-5k", suspect="s", kind="stolen", robust=robust, evidence=(evidence,), bits=166.1, clean=0.98
        )
        lines = (json.dumps(to_json(replace(result, digest=cell.job.digest))) for cell in plan.cells)
        (Path(folder) / JOURNAL).write_text("\n".join(lines) + "\n")
        timer = Timer()
        done = run_grid(grid, Path(folder), workers=WorkerConfig(workers=1))
    assert done.computed == 0
    return {"cells": len(done.results), "seconds": timer.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=Path, default=Path(__file__).parents[1] / "grids" / "smoke.toml")
    parser.add_argument("--only", choices=("overhead", "listing"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    quiet()
    measured = {
        name: measure(args.grid)
        for name, measure in (("listing", listing), ("overhead", overhead))
        if args.only in (None, name)
    }
    if args.json:
        print(json.dumps(measured))
        return
    for name, figures in measured.items():
        print(name, ", ".join(f"{key} {value:.4g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
