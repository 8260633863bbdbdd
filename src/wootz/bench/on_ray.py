"""Do jobs as tasks of Ray: of the cluster in `RAY_ADDRESS`, or of a Ray that is started on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wootz.bench.crew import Crew, Staffing
from wootz.bench.job import Job, Outcome
from wootz.bench.perform import Workshop, perform
from wootz.errors import ConfigError
from wootz.logs import quiet

_PASSED_ON = ("WOOTZ_OWNER_KEY", "WOOTZ_SIGNING_KEY", "WOOTZ_DATA", "PYTHONPATH")
_PATIENCE = 10.0  # seconds
_TOKEN = Path("~/.ray/auth_token")  # that a Ray started on this machine asks for


@contextmanager
def on_ray(staffing: Staffing, shop: Workshop) -> Iterator[Crew]:
    """Give a crew of Ray tasks.

    Every machine of the cluster must have wootz, and see the grid's folder, the data and the owner's key files under
    the same paths.

    Raises:
        ConfigError: Ray is not installed, or the cluster can not be reached.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _knock(address)
        if _TOKEN.expanduser().is_file():
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when Ray is imported; joining, it would show none
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--executor ray: needs Ray; pip install 'wootz[ray]'") from error
    where: dict[str, Any] = {"address": address} if address else {"address": "local", "num_cpus": _cpus(staffing)}
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        ray.init(
            **where,
            runtime_env={"env_vars": passed},
            log_to_driver=False,
            include_dashboard=False,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"--executor ray: {' '.join(str(error).split())}") from error
    try:
        yield _Tasks(ray, staffing, shop)
    finally:
        ray.shutdown()


class _Tasks:
    """A crew of Ray tasks; Ray itself begins a task again whose worker died."""

    def __init__(self, ray: Any, staffing: Staffing, shop: Workshop) -> None:
        self._ray = ray
        gpus = {"num_gpus": 1} if shop.execution.accelerator == "cuda" else {}
        self._task = ray.remote(num_cpus=staffing.threads, max_retries=staffing.tries - 1, **gpus)(_work)
        self._shop, self._threads = ray.put(shop), staffing.threads
        self._running: dict[Any, Job] = {}

    def submit(self, job: Job) -> None:
        """Queue a task."""
        self._running[self._task.remote(job, self._shop, self._threads)] = job

    def finished(self) -> Outcome:
        """Wait for the next task that ends."""
        (done,), _ = self._ray.wait(list(self._running), num_returns=1)
        job = self._running.pop(done)
        try:
            outcome: Outcome = self._ray.get(done)
        except self._ray.exceptions.RayError as error:
            return Outcome(job.digest, None, 0.0, f"Ray gave it up: {' '.join(str(error).split())[:300]}")
        return outcome


def _work(job: Job, shop: Workshop, threads: int) -> Outcome:
    import torch

    quiet()
    torch.set_num_threads(threads)
    return perform(job, shop)


def _knock(address: str) -> None:
    """Raise ConfigError where nobody listens at `host:port`; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # `auto`, `local` or ray://...: Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise ConfigError(f"--executor ray: nobody answers at RAY_ADDRESS = {address} ({error})") from error


def _cpus(staffing: Staffing) -> int:
    return staffing.workers * staffing.threads
