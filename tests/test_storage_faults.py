"""Every call by which a command changes a file fails in turn: one line, nothing lost, and the next call succeeds."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from commands import run_command
from helpers import CPU, settings_of
from runs import claim_run, judge_claim
from storage import ERRORS, contents, failing_disk, spread
from wootz.attacks.extraction import BudgetedOracle, read_queries
from wootz.data import Dataset
from wootz.errors import StoreError
from wootz.journal import append_line
from wootz.keys import AnswerKey, owner_secret, signing_key
from wootz.keys.answer_log import read_log
from wootz.models import ModelSpec, build, write_model
from wootz.serving.query_log import QueryLog
from wootz.store import write_bytes
from wootz.training import Recipe
from wootz.watermarks import Guard, RunnerUp, Triggers
from wootz.workflows.owner import Owner, References, protect
from wootz.workflows.register import register_run
from wootz.workflows.suspects import QueryConfig

HERE = QueryConfig(isolated=False, budget=64)
MARKS = {"triggers": Triggers(count=64, every=1, batch=64), "runner-up": RunnerUp(features=8), "guard": Guard()}


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    digits: Dataset,
    small_spec: ModelSpec,
    _plain: nn.Module,
    _robust: nn.Module,
) -> Path:
    """Return a folder with the owner's keys, a run and a stranger."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOOTZ_OWNER_KEY", str(place / "owner.key"))
        cfg = settings_of(MARKS, wm_eps=0.6, recipe=Recipe(loss="natural", epochs=1, lr=5e-3, eps=0.1), seed=4)
        references = References(robust=_robust, plain=_plain)
        protect(build(small_spec, 4), digits, config=cfg, references=references, execution=CPU).save(place / "run")
        register_run(place / "run")
    write_model(
        place / "stranger", _plain, small_spec, {"kind": "independent", "data": "mnist-5k", "eps": 0.1, "seed": 9}
    )
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of these that a test may change."""
    monkeypatch.setenv("WOOTZ_OWNER_KEY", str(made / "owner.key"))
    return shutil.copytree(made, tmp_path / "place")


def register(place: Path, wootz: Any) -> None:
    wootz("register", place / "run")


def register_again(place: Path, wootz: Any) -> None:
    wootz("register", place / "run")


COMMANDS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "register": (["register", "run"], ("registration.dsse.json", "owner.pub")),
    "report": (["report", "run"], ()),
    "export": (["export", "run", "--out", "m.onnx"], ()),
    "prune": (["remove", "run", "--attack", "prune", "--out", "s", "-n", "10"], ()),
    "quantize": (["remove", "run", "--attack", "quantize", "--out", "s", "-n", "10"], ()),
    "copy": (["steal", "run", "--attack", "copy", "--out", "s", "-n", "10"], ()),
    "retrain": (
        ["steal", "run", "--attack", "retrain-hard", "--set", "epochs=1", "--set", "images=300", "--through-guard"]
        + ["--out", "s", "-n", "10"],
        (),
    ),
    "evaluate": (["evaluate", "run", "--attack", "ensemble", "-n", "5"], ()),
    "protect": (
        ["protect", "--data", "mnist-5k", "--out", "p", "-n", "10", "--seed", "1"]
        + [
            w
            for s in (
                "recipe.loss=n-fgsm",
                "recipe.epochs=1",
                "panel.robust_epochs=1",
                "panel.plain_epochs=1",
                "small_cnn.width=4",
                "small_cnn.hidden=16",
                "triggers.count=64",
                "runner_up.features=8",
            )
            for w in ("--set", s)
        ],
        (),
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_explore(name, place, capsys, monkeypatch):
    import time

    words, gone = COMMANDS[name]
    monkeypatch.chdir(place)
    for g in gone:
        (place / "run" / g).unlink(missing_ok=True)
    start = place.with_name("start")
    shutil.copytree(place, start)
    wootz = lambda *w: run_command(capsys, monkeypatch, *w)
    with failing_disk(place) as disk:
        t = time.time()
        disk.fail_at(-1)
        clean = wootz(*words, "--json")
        assert clean.code == 0, clean.err
        calls = disk.calls
        with capsys.disabled():
            print(name, len(calls), round(time.time() - t, 2), {c[0] for c in calls})
        whole = contents(place)
        for number in range(len(calls)) if name not in ("protect",) else spread(len(calls), 30):
            for error in [ERRORS[number % 3]]:
                shutil.rmtree(place)
                shutil.copytree(start, place)
                os.chdir(place)
                disk.fail_at(number, error)
                before = contents(place)
                failed = wootz(*words, "--json")
                n, p = calls[number]
                disk.fail_at(-1)
                msg = ""
                if (
                    failed.code != 2
                    or len(failed.err.strip().splitlines()) != 1
                    or os.strerror(error) not in failed.err
                ):
                    msg += f" code {failed.code} err {failed.err.strip()[-300:]!r}"
                after = contents(place)
                lost = [k for k in before if after.get(k) != before[k]]
                if lost:
                    msg += f" lost {lost}"
                again = wootz(*words, *(["--resume"] if words[0] in ("steal", "remove", "protect") else []), "--json")
                if again.code:
                    msg += f" AGAIN {again.code} {again.err.strip()[-300:]!r}"
                elif contents(place) != whole:
                    now = contents(place)
                    msg += f" DIFF {[k for k in now.keys() | whole.keys() if now.get(k) != whole.get(k)]}"
                if msg:
                    with capsys.disabled():
                        print("   ", number, n, os.path.relpath(p, place), os.strerror(error), msg)
