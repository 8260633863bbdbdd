"""A tiny grid, run once, that tests compare with and copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.monkeypatch import MonkeyPatch

from bench_grids import TINY, WORKERS, TinyRun
from wootz.bench import Grid, read_grid, run_grid


@pytest.fixture(scope="session")
def owners_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of one owner's key files: equal keys, equal figures."""
    return tmp_path_factory.mktemp("owners")


@pytest.fixture(autouse=True)
def same_owner(owners_files: Path, owner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOTZ_OWNER_KEY", str(owners_files / "owner.key"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    path = tmp_path_factory.mktemp("tiny") / "tiny.toml"
    path.write_text(TINY)
    return read_grid(path)


@pytest.fixture(scope="session")
def tiny_run(tiny: Grid, owners_files: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    folder = tmp_path_factory.mktemp("made") / "grid"
    with MonkeyPatch.context() as patch:
        patch.setenv("WOOTZ_OWNER_KEY", str(owners_files / "owner.key"))
        return TinyRun(folder, run_grid(tiny, folder, workers=WORKERS))


@pytest.fixture
def copy(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """Return a copy of the grid's folder that a test may change."""
    return shutil.copytree(tiny_run.folder, tmp_path / "copy")


@pytest.fixture
def smaller(tiny: Grid) -> Callable[..., Grid]:
    """Return a function that gives the tiny grid with other axes."""
    return lambda **axes: replace(tiny, axes=replace(tiny.axes, **axes))
