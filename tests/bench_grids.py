"""A tiny grid for tests, executors for it, and what two folders of it must have in common."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from wootz.bench import GridRun, WorkerConfig
from wootz.bench.jobs import JobContext, JobResult, run_job
from wootz.bench.plan import Job

TINY = """
name = "tiny"

[axes]
data = ["mnist-5k"]
mark = ["none", "order"]
theft = ["none", "independent", "prune", "8-bit", "refused"]
seed = [3]

[settings]
recipe = { steps = 1, epochs = 2, lr = 5e-3 }
panel = { robust_epochs = 1, plain_epochs = 1, width = 4, robust_steps = 1 }
small_cnn = { width = 4, hidden = 16 }

[mark.order]
marks = ["runner-up"]
settings = { runner_up = { features = 8, probes = 300 } }

[theft.8-bit]
attack = "quantize"
settings = { bits = 8 }

[theft.refused]
attack = "retrain-soft"
budget = 10

[[independent]]
count = 1
loss = "natural"

[measure]
images = 20
evaluations = ["apgd-ce"]
evaluation_images = 10
"""

WORKERS = WorkerConfig(workers=2)


def figures(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `cells.jsonl` without their times."""
    lines = (folder / "cells.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def once_each(folder: Path) -> bool:
    """Whether the journal holds every result once."""
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return len(lines) == len({json.loads(line)["digest"] for line in lines})


def kill_at_random(stop: threading.Event, pids: Callable[[], list[int]], kills: int, seconds: float) -> list[int]:
    """Kill one of the processes that `pids` names, `kills` times; return their ids."""
    killed: list[int] = []
    while len(killed) < kills and not stop.wait(seconds):
        alive = pids()
        if alive:
            killed.append(alive[len(killed) % len(alive)])
            os.kill(killed[-1], signal.SIGKILL)
    return killed


def processes(word: bytes, parent: int | None = None) -> list[int]:
    """Return the running processes whose command holds `word`, of one parent or of all."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent in (None, int(status[1])) and word in command:
                found.append(int(entry.name))
    return sorted(found)


class InProcessExecutor:
    """Runs jobs in the calling process: starting processes takes longer than these jobs."""

    def __init__(self, context: JobContext) -> None:
        self._context, self._queue = context, deque[Job]()

    def submit(self, job: Job) -> None:
        self._queue.append(job)

    def next_result(self) -> JobResult:
        return run_job(self._queue.popleft(), self._context)


@contextmanager
def in_process_executor(workers: WorkerConfig, context: JobContext) -> Iterator[InProcessExecutor]:
    threads = torch.get_num_threads()
    torch.set_num_threads(workers.threads)
    yield InProcessExecutor(context)
    torch.set_num_threads(threads)


class TinyRun(NamedTuple):
    """The tiny grid, run by local processes."""

    folder: Path
    run: GridRun
