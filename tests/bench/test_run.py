from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench_grids import TINY, WORKERS, TinyRun, figures, in_process_executor, kill_at_random, once_each, processes
from wootz.bench import Grid, WorkerConfig, grid_status, run_grid
from wootz.bench.executor import local_executor
from wootz.bench.jobs import JobContext
from wootz.bench.plan import plan_grid, select_cells
from wootz.errors import ConfigError, StoreError
from wootz.keys import public_hex, signing_key
from wootz.records import read_lines
from wootz.store import lock_folder
from wootz.training import Execution


def again(grid: Grid, folder: Path, **rest: object) -> tuple[int, int]:
    """Run a grid once more in its folder; return how many cells and models were made."""
    done = run_grid(grid, folder, workers=WORKERS, executor=in_process_executor, **rest)  # type: ignore[arg-type]
    return done.computed, done.models


class TestCells:
    def test_every_place_has_its_cell(self, tiny_run: TinyRun, tiny: Grid) -> None:
        cells = read_lines(tiny_run.folder / "cells.jsonl")
        assert [(c.axes, c.suspect, c.digest) for c in cells] == [
            (p.axes, p.suspect, p.job.digest) for p in plan_grid(tiny).cells
        ]
        assert (tiny_run.run.computed, tiny_run.run.models) == (9, 8)  # 8 of 10 models: two attacks exceed their budget
        assert once_each(tiny_run.folder)

    def test_an_owner_is_tested_where_there_is_a_key(self, tiny_run: TinyRun) -> None:
        by_name = {(c.axes["mark"], c.suspect): c for c in tiny_run.run.results}
        assert by_name["none", "owner"].verdict is None
        assert [item.mark for item in by_name["order", "owner"].evidence] == ["runner-up"]
        assert by_name["order", "independent-1"].kind == "independent"
        assert by_name["order", "prune"].theft == "prune"
        also = {c.suspect: [item.attack for item in c.also] for c in tiny_run.run.results}
        assert (also["owner"], also["independent-1"], also["prune"]) == (["apgd-ce"], [], [])

    def test_one_that_fails_is_a_cell_with_its_error(self, tiny_run: TinyRun) -> None:
        failed = {(c.axes["mark"], c.suspect): c.error for c in tiny_run.run.failed}
        assert set(failed) == {("none", "refused"), ("order", "refused")}
        assert all(error and "budget" in error for error in failed.values())


class TestAgain:
    def test_nothing_is_made_twice(self, copy: Path, tiny: Grid) -> None:
        before = (copy / "cells.jsonl").read_bytes()
        assert again(tiny, copy) == (0, 0)
        assert (copy / "cells.jsonl").read_bytes() == before

    def test_failed_cells_are_made_again_on_request(self, copy: Path, tiny: Grid) -> None:
        patient = replace(tiny, theft=tiny.theft | {"refused": replace(tiny.theft["refused"], budget=11)})
        assert again(tiny, copy, retry=True) == (2, 0)
        assert again(patient, copy) == (2, 0)  # another config, other cells: they fail as well

    def test_a_grid_that_grew_makes_what_is_new(self, copy: Path, smaller: Callable[..., Grid]) -> None:
        grown = smaller(theft=("none", "prune", "quantize"), mark=("none",))
        assert again(grown, copy) == (0, 0)  # `8-bit` was this attack with these settings
        grown = smaller(theft=("none", "weight-noise"), mark=("none",))
        assert again(grown, copy) == (1, 1)
        assert [c.suspect for c in read_lines(copy / "cells.jsonl")] == ["owner", "weight-noise"]

    def test_a_part_is_made_alone_and_the_rest_later(
        self, tmp_path: Path, smaller: Callable[..., Grid], tiny_run: TinyRun
    ) -> None:
        grid = smaller(theft=("none", "prune", "refused"), mark=("none", "order"))
        assert again(grid, tmp_path, select=("mark=none", "theft=none,refused")) == (2, 1)
        assert [(c.axes["mark"], c.suspect) for c in read_lines(tmp_path / "cells.jsonl")] == [
            ("none", "owner"),
            ("none", "refused"),
        ]
        assert again(grid, tmp_path, select=("theft=none",), retry=True) == (1, 2)  # the failed one is no part of it
        assert len(read_lines(tmp_path / "cells.jsonl")) == 3
        assert again(grid, tmp_path) == (3, 2)
        assert figures(tmp_path) == [
            line for line in figures(tiny_run.folder) if line["axes"]["theft"] in grid.axes.theft
        ]

    def test_parts_made_elsewhere_are_put_together(self, tmp_path: Path, tiny: Grid, tiny_run: TinyRun) -> None:
        lines = (tiny_run.folder / "journal.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "journal.jsonl").write_text("".join(lines[4:] + lines[:4]))
        assert again(tiny, tmp_path) == (0, 0)
        assert figures(tmp_path) == figures(tiny_run.folder)

    @pytest.mark.parametrize(
        ("select", "message"),
        [
            (("sed=3",), "unknown axis in `select` 'sed': did you mean 'seed'"),
            (("seed",), "unknown seed in `select` ''"),
            (("seed=3,4",), "unknown seed in `select` '4': known: 3"),
            (("mark=ordr",), "unknown mark in `select` 'ordr': did you mean 'order'"),
            (("mark=none", "theft=independent"), "the grid has no cell there"),
        ],
    )
    def test_a_part_that_is_not_there_is_refused(
        self, tiny: Grid, tmp_path: Path, select: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            again(tiny, tmp_path / "g", select=select)
        assert not (tmp_path / "g").exists()

    def test_how_far_it_is_can_be_asked_while_another_works(self, copy: Path, tiny: Grid) -> None:
        journal = copy / "journal.jsonl"
        lines = sorted(journal.read_text().splitlines(keepends=True), key=lambda line: '"error"' not in line)
        journal.write_text("".join(lines)[:-40])
        before = journal.read_bytes()
        with lock_folder(copy):
            assert grid_status(tiny, copy) == (9, 8, 2, 0)
            assert grid_status(tiny, copy, select=("theft=refused",)) == (2, 2, 2, 0)
        assert journal.read_bytes() == before  # the last line may be one that the other is writing

    def test_what_would_be_made_is_counted_with_all_that_it_needs(self, copy: Path, tiny: Grid, tmp_path: Path) -> None:
        plan, part = plan_grid(tiny), ("mark=order", "theft=prune")
        assert grid_status(tiny, tmp_path / "nowhere") == (9, 0, 0, len(plan.models))
        assert not (tmp_path / "nowhere").exists()
        (copy / "journal.jsonl").unlink()
        assert grid_status(tiny, copy, select=part) == (1, 0, 0, 0)
        needs = next(cell.job.needs for cell in select_cells(plan.cells, part))  # the owner and the thief
        for digest in needs:
            (copy / "models" / digest / "done.json").unlink()
        assert grid_status(tiny, copy, select=part) == (1, 0, 0, 2)

    def test_a_journal_that_was_cut_off_goes_on(self, copy: Path, tiny: Grid, tiny_run: TinyRun) -> None:
        path = copy / "journal.jsonl"
        path.write_bytes(path.read_bytes()[:-40])
        assert again(tiny, copy) == (1, 0)
        assert figures(copy) == figures(tiny_run.folder)

    def test_a_broken_journal_is_named(self, copy: Path, tiny: Grid) -> None:
        path = copy / "journal.jsonl"
        path.write_text("{}\n" + path.read_text())
        with pytest.raises(StoreError, match=r"journal\.jsonl, line 1: "):
            again(tiny, copy)

    def test_a_model_that_was_not_finished_is(self, copy: Path, tiny: Grid, tiny_run: TinyRun) -> None:
        plan = plan_grid(tiny)
        for kind in ("train", "attack"):
            job = next(job for job in plan.models.values() if job.kind == kind)
            (copy / "models" / job.digest / "done.json").unlink()
            (copy / "models" / job.digest / "record.json").unlink()
            if kind == "attack":  # its attempt goes after its record is written
                (copy / "models" / job.digest / "attempt").mkdir()
            journal = (copy / "journal.jsonl").read_text().splitlines(True)
            dependent = {p.job.digest for p in plan.cells if job.digest in p.job.needs}
            (copy / "journal.jsonl").write_text("".join(t for t in journal if json.loads(t)["digest"] not in dependent))
        cells, models = again(tiny, copy)
        assert models == 2
        assert cells >= 2
        assert figures(copy) == figures(tiny_run.folder)

    def test_two_do_not_work_in_one_folder(self, tmp_path: Path, tiny: Grid) -> None:
        with lock_folder(tmp_path), pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* works there"):
            again(tiny, tmp_path)

    @pytest.mark.long
    def test_another_owner_is_refused(self, copy: Path, tiny: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
        context = JobContext(folder=copy, data_dir=None, execution=Execution(), owner="00")
        with local_executor(WORKERS, context) as executor:
            executor.submit(plan_grid(tiny).cells[0].job)
            assert "another owner's keys" in (executor.next_result().error or "")


@pytest.mark.parametrize(
    ("kills", "seconds"),
    [pytest.param(2, 4.0, marks=pytest.mark.long), pytest.param(20, 3.0, marks=pytest.mark.slow)],
)
def test_workers_that_are_killed_lose_nothing(
    kills: int, seconds: float, tiny: Grid, tiny_run: TinyRun, tmp_path: Path
) -> None:
    stop, killed = threading.Event(), list[int]()
    killer = threading.Thread(
        target=lambda: killed.extend(
            kill_at_random(stop, lambda: processes(b"spawn_main", os.getpid()), kills, seconds)
        )
    )
    killer.start()
    try:
        seeds = (3,) if kills < 10 else (3, 4, 5, 6)
        grid = replace(tiny, axes=replace(tiny.axes, seed=seeds))
        run_grid(grid, tmp_path / "g", workers=WorkerConfig(workers=2, max_restarts=100))
    finally:
        stop.set()
        killer.join()
    assert len(killed) == kills
    assert once_each(tmp_path / "g")
    ours = [line for line in figures(tmp_path / "g") if line["seed"] == 3]
    assert sorted(map(str, ours)) == sorted(map(str, figures(tiny_run.folder)))


def test_ctrl_c_is_kept_from_a_worker_from_its_start(tmp_path: Path) -> None:
    """A worker that loads its modules would print a traceback."""
    context = JobContext(folder=tmp_path, data_dir=None, execution=Execution(), owner=public_hex(signing_key()))
    with local_executor(WORKERS, context) as executor:
        worker = executor._spawn()  # type: ignore[attr-defined]
        executor._idle.append(worker)  # type: ignore[attr-defined]
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (blocked,) = re.findall(r"SigBlk:\s+(\w+)", status)
    assert int(blocked, 16) & 1 << signal.SIGINT - 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.long
def test_a_job_whose_worker_always_dies_fails_alone(tiny: Grid, tmp_path: Path) -> None:
    context = JobContext(folder=tmp_path, data_dir=None, execution=Execution(), owner=public_hex(signing_key()))
    job = next(job for job in plan_grid(tiny).models.values() if job.kind == "panel")
    stop = threading.Event()
    killer = threading.Thread(target=kill_at_random, args=(stop, lambda: processes(b"spawn_main", os.getpid()), 2, 0.2))
    with local_executor(WorkerConfig(workers=1, max_restarts=1), context) as executor:
        executor.submit(job)
        killer.start()
        outcome = executor.next_result()
        killer.join()
        assert outcome.error == "its worker died 2 times, the last time with exit code -9"
        executor.submit(job)
        assert executor.next_result().error is None  # the executor itself goes on


@pytest.mark.long
def test_killed_in_the_middle_and_resumed_comes_out_the_same(tiny_run: TinyRun, tmp_path: Path) -> None:
    grid, out = tmp_path / "tiny.toml", tmp_path / "g"
    grid.write_text(TINY.replace('mark = ["none", "order"]', 'mark = ["none"]'))
    command = [sys.executable, "-m", "wootz", "bench", "--out", str(out), "--workers", "2", "--json"]
    first = subprocess.Popen([*command, str(grid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal, patience = out / "journal.jsonl", time.monotonic() + 200
    while not (journal.is_file() and journal.read_text().count("\n") >= 1):
        assert first.poll() is None
        assert time.monotonic() < patience
        time.sleep(0.05)
    workers = processes(b"spawn_main", first.pid)
    first.kill()
    first.wait()
    assert workers
    done = subprocess.run([*command, "--resume"], check=True, capture_output=True, text=True)
    summary = json.loads(done.stdout)
    assert summary["cells"] == 4
    assert summary["computed"] < 4
    assert once_each(out)
    assert figures(out) == [line for line in figures(tiny_run.folder) if line["axes"]["mark"] == "none"]
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
