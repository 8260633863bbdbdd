"""Do jobs in processes of this machine; one that dies is replaced, and its job done again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

from wootz.bench.crew import Crew, Staffing
from wootz.bench.job import Job, Outcome
from wootz.bench.perform import Workshop, perform
from wootz.logs import quiet

_CONTEXT = multiprocessing.get_context("spawn")


class _Worker(NamedTuple):
    process: SpawnProcess
    line: Connection


@contextmanager
def local(staffing: Staffing, shop: Workshop) -> Iterator[Crew]:
    """Give a crew of processes, which ends with this block, or with this process however that ends."""
    crew = _Processes(staffing, shop)
    try:
        yield crew
    finally:
        crew.dismiss()


class _Processes:
    """A crew of worker processes, started when there is work for them."""

    def __init__(self, staffing: Staffing, shop: Workshop) -> None:
        self._staffing, self._shop = staffing, shop
        self._queue: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, Job] = {}
        self._deaths: Counter[str] = Counter()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._queue.append(job)

    def finished(self) -> Outcome:
        """Wait for the next job that ends."""
        while True:
            self._hand_out()
            ends: dict[Any, _Worker] = {
                end: worker for worker in self._busy for end in (worker.line, worker.process.sentinel)
            }
            for worker in {ends[end] for end in wait(list(ends))}:
                outcome = self._hear(worker)
                if outcome is not None:
                    return outcome

    def dismiss(self) -> None:
        """Stop everybody, at once."""
        for worker in (*self._idle, *self._busy):
            worker.process.kill()
            worker.process.join()
            worker.line.close()

    def _hand_out(self) -> None:
        while self._queue and (self._idle or len(self._busy) < self._staffing.workers):
            worker = self._idle.pop() if self._idle else self._hire()
            job = self._queue.popleft()
            self._busy[worker] = job
            try:
                worker.line.send(job)
            except OSError:
                continue  # it died idle; its end is heard of next

    def _hire(self) -> _Worker:
        mine, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_work, args=(theirs, self._shop, self._staffing.threads), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, mine)

    def _hear(self, worker: _Worker) -> Outcome | None:
        """Return what a worker has to say; the job of one that died is queued again, and so often no more."""
        job = self._busy.pop(worker)
        try:
            outcome: Outcome = worker.line.recv()
        except (EOFError, OSError):
            worker.process.join()
            worker.line.close()
            self._deaths[job.digest] += 1
            if self._deaths[job.digest] < self._staffing.tries:
                self._queue.appendleft(job)
                return None
            code, times = worker.process.exitcode, self._deaths[job.digest]
            return Outcome(job.digest, None, 0.0, f"its worker died {times} times, the last time with exit code {code}")
        self._idle.append(worker)
        return outcome


def _work(line: Connection, shop: Workshop, threads: int) -> None:
    """Do jobs until nobody asks any more."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for whoever hired us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    quiet()
    torch.set_num_threads(threads)
    while True:
        try:
            job = line.recv()
        except EOFError:
            return
        line.send(perform(job, shop))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
