"""A tiny grid, run once, that tests compare with and copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.monkeypatch import MonkeyPatch

from bench_grids import TINY, WORKERS, Made
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
def made(tiny: Grid, owners_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made") / "grid"
    with MonkeyPatch.context() as patch:
        patch.setenv("WOOTZ_OWNER_KEY", str(owners_files / "owner.key"))
        return Made(folder, run_grid(tiny, folder, workers=WORKERS))


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Path:
    """Return a copy of the made grid that a test may spoil."""
    return shutil.copytree(made.folder, tmp_path / "copy")


@pytest.fixture
def smaller(tiny: Grid) -> Callable[..., Grid]:
    """Return what makes the tiny grid with other axes."""
    return lambda **axes: replace(tiny, axes=replace(tiny.axes, **axes))
