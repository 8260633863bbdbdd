"""The same grid run by Ray: by a local Ray, and on a cluster that was started by `ray start --head`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench_grids import WORKERS, TinyRun, figures, kill_at_random, once_each, processes
from wootz.bench import EXECUTORS, Grid, WorkerConfig, run_grid
from wootz.errors import ConfigError

RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a head with two workers' worth of processors, and stop it after."""
    folder = tmp_path_factory.mktemp("r")
    environment = os.environ | {"RAY_DISABLE_IMPORT_WARNING": "1"}
    words = ["--head", "--num-cpus=2", "--port=0", "--include-dashboard=false", "--disable-usage-stats"]
    started = subprocess.run(
        [RAY, "start", *words, f"--temp-dir={folder}"], env=environment, capture_output=True, text=True
    )
    assert started.returncode == 0, started.stderr
    address = (folder / "ray_current_cluster").read_text().strip()
    monkeypatch.setenv("RAY_ADDRESS", address)
    yield address
    subprocess.run([RAY, "stop", "--force"], env=environment, capture_output=True, check=True)


@pytest.mark.long
def test_ray_makes_the_same_cells(
    tiny_run: TinyRun, tiny: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    done = run_grid(tiny, tmp_path / "g", executor=EXECUTORS["ray"], workers=WORKERS)
    assert (done.computed, done.models) == (tiny_run.run.computed, tiny_run.run.models)
    assert figures(tmp_path / "g") == figures(tiny_run.folder)
    assert once_each(tmp_path / "g")


def test_a_cluster_that_is_not_there_is_one_line(tiny: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match="cannot connect to RAY_ADDRESS"):
        run_grid(tiny, tmp_path / "g", executor=EXECUTORS["ray"], workers=WORKERS)


@pytest.mark.slow
def test_a_cluster_whose_workers_are_killed_loses_nothing(
    cluster: str, tiny_run: TinyRun, tiny: Grid, tmp_path: Path
) -> None:
    stop, killed = threading.Event(), list[int]()
    killer = threading.Thread(
        target=lambda: killed.extend(kill_at_random(stop, lambda: processes(b"ray::_ray_task"), 20, 3.0))
    )
    killer.start()
    try:
        grid = replace(tiny, axes=replace(tiny.axes, seed=(3, 4, 5, 6)))
        run_grid(grid, tmp_path / "g", executor=EXECUTORS["ray"], workers=WorkerConfig(workers=2, max_restarts=100))
    finally:
        stop.set()
        killer.join()
    assert len(killed) == 20
    assert once_each(tmp_path / "g")
    ours = [line for line in figures(tmp_path / "g") if line["seed"] == 3]
    assert sorted(map(str, ours)) == sorted(map(str, figures(tiny_run.folder)))
