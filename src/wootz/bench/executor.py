"""Executors, which run jobs: worker processes of this machine, or tasks of Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from wootz import checks
from wootz.bench.jobs import JobContext, JobResult, run_job
from wootz.bench.plan import Job
from wootz.errors import ConfigError

_CONTEXT = multiprocessing.get_context("spawn")

_RAY_ENVIRONMENT = ("WOOTZ_OWNER_KEY", "WOOTZ_SIGNING_KEY", "WOOTZ_DATA", "PYTHONPATH")
"""Environment variables that Ray's workers inherit."""

_CONNECT_TIMEOUT = 10.0
"""Seconds to wait for Ray's address to accept a connection."""

_RAY_TOKEN = Path("~/.ray/auth_token")
"""The token that a Ray which was started on this machine asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Number and size of workers.

    Attributes:
        workers: The number of jobs that run at the same time.
        threads: The number of threads per job.
        max_restarts: How many times a job whose worker died is started again, before it counts as failed.
    """

    workers: int
    threads: int = 1
    max_restarts: int = 4

    def __post_init__(self) -> None:
        checks.at_least(1, workers=self.workers, threads=self.threads)
        checks.at_least(0, max_restarts=self.max_restarts)


class Executor(Protocol):
    """Runs jobs. Every job that was submitted ends exactly once."""

    def submit(self, job: Job) -> None:
        """Queue a job."""
        ...

    def next_result(self) -> JobResult:
        """Wait for the next job that ends, and return its result."""
        ...


ExecutorFactory: TypeAlias = Callable[[WorkerConfig, JobContext], AbstractContextManager[Executor]]


class _Worker(NamedTuple):
    process: SpawnProcess
    connection: Connection


@contextmanager
def local_executor(workers: WorkerConfig, context: JobContext) -> Iterator[Executor]:
    """Yield an executor of local processes. They end with this block, or with this process however it ends."""
    executor = _LocalExecutor(workers, context)
    try:
        yield executor
    finally:
        executor.shutdown()


class _LocalExecutor:
    """Worker processes, started on demand; a worker that dies is replaced, and its job starts again."""

    def __init__(self, workers: WorkerConfig, context: JobContext) -> None:
        self._config, self._context = workers, context
        self._queue: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, Job] = {}
        self._deaths: Counter[str] = Counter()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._queue.append(job)

    def next_result(self) -> JobResult:
        """Wait for the next job that ends, and return its result."""
        while True:
            self._dispatch()
            ends: dict[Any, _Worker] = {
                end: worker for worker in self._busy for end in (worker.connection, worker.process.sentinel)
            }
            for worker in {ends[end] for end in wait(list(ends))}:
                result = self._receive(worker)
                if result is not None:
                    return result

    def shutdown(self) -> None:
        """Kill all workers."""
        for worker in (*self._idle, *self._busy):
            worker.process.kill()
            worker.process.join()
            worker.connection.close()

    def _dispatch(self) -> None:
        while self._queue and (self._idle or len(self._busy) < self._config.workers):
            worker = self._idle.pop() if self._idle else self._spawn()
            job = self._queue.popleft()
            self._busy[worker] = job
            try:
                worker.connection.send(job)
            except OSError:
                continue  # the worker died while idle; `_receive` will see it

    def _spawn(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_worker_loop, args=(theirs, self._context, self._config.threads), daemon=True)
        resource_tracker.ensure_running()  # which would unblock the signal if it was started with the process
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is for this process
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return _Worker(process, ours)

    def _receive(self, worker: _Worker) -> JobResult | None:
        """Return a worker's result. If the worker died, queue its job again (None), up to `max_restarts` times."""
        job = self._busy.pop(worker)
        try:
            result: JobResult = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            worker.connection.close()
            self._deaths[job.digest] += 1
            if self._deaths[job.digest] <= self._config.max_restarts:
                self._queue.appendleft(job)
                return None
            code, times = worker.process.exitcode, self._deaths[job.digest]
            message = f"its worker died {times} times, the last time with exit code {code}"
            return JobResult(job.digest, None, 0.0, message)
        self._idle.append(worker)
        return result


def _worker_loop(connection: Connection, context: JobContext, threads: int) -> None:
    """Run jobs until the connection is closed."""
    import torch

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(run_job(job, context))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def ray_executor(workers: WorkerConfig, context: JobContext) -> Iterator[Executor]:
    """Yield an executor of Ray tasks, in the cluster at `RAY_ADDRESS` or in a Ray that is started on this machine.

    Every machine of the cluster must have wootz, and see the grid's folder, the data and the owner's key files under
    the same paths.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_connection(address)
        if _RAY_TOKEN.expanduser().is_file():
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # read at import; without it no token is sent
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--executor ray: needs Ray; pip install 'wootz[ray]'") from error
    where: dict[str, Any] = {"address": address}
    if not address:
        where = {"address": "local", "num_cpus": workers.workers * workers.threads}
    environment = {name: os.environ[name] for name in _RAY_ENVIRONMENT if name in os.environ}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            **where,
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            include_dashboard=False,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"--executor ray: {' '.join(str(error).split())}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's handler would end the process with exit code 15
    try:
        yield _RayExecutor(ray, workers, context)
    finally:
        ray.shutdown()


class _RayExecutor:
    """Ray tasks; Ray itself starts a task again whose worker died."""

    def __init__(self, ray: Any, workers: WorkerConfig, context: JobContext) -> None:
        self._ray = ray
        gpus = {"num_gpus": 1} if context.execution.accelerator == "cuda" else {}
        self._task = ray.remote(num_cpus=workers.threads, max_retries=workers.max_restarts, **gpus)(_ray_task)
        self._context, self._threads = ray.put(context), workers.threads
        self._running: dict[Any, Job] = {}

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._running[self._task.remote(job, self._context, self._threads)] = job

    def next_result(self) -> JobResult:
        """Wait for the next job that ends, and return its result."""
        (task,), _ = self._ray.wait(list(self._running), num_returns=1)
        job = self._running.pop(task)
        try:
            result: JobResult = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return JobResult(job.digest, None, 0.0, f"Ray could not run the job: {' '.join(str(error).split())[:300]}")
        return result


def _ray_task(job: Job, context: JobContext, threads: int) -> JobResult:
    import torch

    torch.set_num_threads(threads)
    return run_job(job, context)


def _check_connection(address: str) -> None:
    """Raise ConfigError if nothing listens at `host:port`; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # `auto`, `local` or ray://...: left to Ray
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT).close()
    except OSError as error:
        raise ConfigError(f"--executor ray: cannot connect to RAY_ADDRESS = {address} ({error})") from error


EXECUTORS: Mapping[str, ExecutorFactory] = MappingProxyType({"local": local_executor, "ray": ray_executor})
"""Executors by their name on the command line."""
