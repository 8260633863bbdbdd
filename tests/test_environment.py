"""Odd surroundings: a command works, or ends with one plain line and exit code 2."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from commands import assert_usage_error, run_command
from wootz.models import ModelSpec, write_model
from wootz.workflows.attack import attack_run

PRUNE = ["--attack", "prune", "-n", "10", "--json"]


@pytest.fixture
def wootz(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *words: run_command(capsys, monkeypatch, *words)


@pytest.fixture
def run(tmp_path: Path, plain: nn.Module, small_spec: ModelSpec) -> Path:
    """Return the run folder of an independent model."""
    about = {"kind": "independent", "data": "mnist-5k", "eps": 0.1, "seed": 0}
    write_model(tmp_path / "run", plain, small_spec, about)
    return tmp_path / "run"


def child(
    *words: object, limit: Callable[[], object] | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own; an empty environment variable is left out."""
    variables = {name: value for name, value in (os.environ | environment).items() if value}
    command = [sys.executable, "-m", "wootz", *words]
    return subprocess.run(
        [os.fsencode(word) if isinstance(word, Path) else word for word in command],  # type: ignore[arg-type]
        env=variables,
        capture_output=True,
        preexec_fn=limit,
        check=False,
    )


@pytest.mark.parametrize(
    "name",
    [
        "with spaces",
        "with\nnewline",
        "x" * 255,
        "-dash",
        "[bold]",
        "%s{}",
        "\u202eabc",
        "'\"$(x)",
    ],
    ids=ascii,
)
def test_names_of_folders(name: str, run: Path, wootz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name is one of a run folder that is read, and of one that is written."""
    monkeypatch.chdir(tmp_path)
    odd = run.rename(tmp_path / name)
    made = wootz("remove", odd, "--out", tmp_path / f"{name[:250]}-out", *PRUNE)
    assert made.code == 0, made.err
    assert_usage_error(wootz("evaluate", tmp_path / f"{name[:250]}-no"), "is not a run folder")
    assert_usage_error(wootz("remove", odd, "--out", odd, *PRUNE), "already holds a model")


def test_a_name_that_is_too_long(run: Path, wootz, tmp_path: Path) -> None:
    for name in ("x" * 256, "/".join(["x" * 200] * 30)):
        assert_usage_error(wootz("remove", run, "--out", tmp_path / name, *PRUNE), "File name too long")
        assert_usage_error(wootz("evaluate", tmp_path / name, "-n", "10"), "x" * 50)


@pytest.mark.long
def test_a_name_that_is_not_utf8(run: Path, tmp_path: Path) -> None:
    """In a process of its own: what is captured of this one must be UTF-8 where tests run in several processes."""
    odd = run.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    done = child("remove", odd, "--out", tmp_path / os.fsdecode(b"caf\xe9-out"), *PRUNE)
    assert done.returncode == 0, done.stderr
    assert child("evaluate", tmp_path / os.fsdecode(b"\xe9-no")).returncode == 2


@pytest.mark.long
@pytest.mark.parametrize("variables", [{"HOME": ""}, {"HOME": "/proc/nowhere"}, {"HOME": "/nonexistent/home"}])
def test_homes(variables: dict[str, str], run: Path, tmp_path: Path) -> None:
    """Without a home, or with one that cannot be written, what needs no key works."""
    variables |= {"XDG_STATE_HOME": "", "WOOTZ_OWNER_KEY": "", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    done = child("remove", run, "--out", tmp_path / "s", *PRUNE, **variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_home_that_cannot_be_written(run: Path, tmp_path: Path) -> None:
    """The owner's key cannot be made there: one line names it."""
    variables = {"HOME": "/proc/nowhere", "XDG_STATE_HOME": "", "WOOTZ_OWNER_KEY": "", "XDG_CONFIG_HOME": ""}
    words = ["protect", "--data", "mnist-5k", "--out", tmp_path / "p", "--set", "recipe.epochs=1", "-n", "10"]
    done = child(*words, "--set", "panel.robust_epochs=1", "--set", "panel.plain_epochs=1", **variables)
    assert done.returncode == 2, done.stderr
    *_, line = done.stderr.decode().strip().splitlines()  # Matplotlib has lines of its own about the home
    assert "/proc/nowhere/.config/wootz/" in line


@pytest.mark.long
@pytest.mark.parametrize(("what", "most"), [("RLIMIT_NOFILE", 64), ("RLIMIT_AS", 2 << 30)])
def test_few_open_files_and_little_memory(what: str, most: int, run: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(getattr(resource, what), (most, most))

    done = child("remove", run, "--out", tmp_path / "s", *PRUNE, limit=limit)
    assert done.returncode == 0, done.stderr


def test_too_few_open_files_are_one_line(run: Path, wootz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object, *_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr("os.open", refused)
    assert_usage_error(wootz("remove", run, "--out", tmp_path / "s", *PRUNE), "Too many open files")


def test_a_clock_that_was_set_back(run: Path, wootz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files from the future are read like others; seconds come from a clock that is not set."""
    for path in (run, *run.iterdir()):
        os.utime(path, (2**32, 2**32))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    made = wootz("remove", run, "--out", tmp_path / "s", *PRUNE)
    assert made.code == 0, made.err
    assert 0 <= made.json["seconds"] < 1000  # type: ignore[operator]


@pytest.mark.parametrize("away", ["removed", "moved", "a file in its place"])
def test_a_folder_that_goes_away_in_a_run(
    away: str, run: Path, wootz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written goes into a new folder of that name, or is one line."""
    out = tmp_path / "s"

    whole = attack_run.__globals__["measure"]

    def measure(*given: object, **options: object) -> object:
        out.rename(tmp_path / "other") if away == "moved" else shutil.rmtree(out)
        if away == "a file in its place":
            out.write_bytes(b"")
        return whole(*given, **options)

    monkeypatch.setattr("wootz.workflows.attack.measure", measure)
    made = wootz("remove", run, "--out", out, *PRUNE)
    if away == "a file in its place":
        assert_usage_error(made, str(out))
    else:
        assert made.code in (0, 2)
        assert len(made.err.strip().splitlines()) <= 1


def test_data_of_an_odd_name(wootz, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(200) % 4)
    for name in ("with spaces.npz", "with\nnewline.npz", os.fsdecode(b"caf\xe9.npz")):
        path = Path(shutil.copy(tmp_path / "a.npz", tmp_path / name))
        words = ["--marks", "none", "--set", "recipe.epochs=1", "--eps", "0.1", "-n", "10", "--json"]
        made = wootz("protect", "--data", path, "--out", tmp_path / f"{name}-run", *words)
        if made.code:
            assert_usage_error(made)
        else:
            assert wootz("evaluate", tmp_path / f"{name}-run", "-n", "10").code == 0
