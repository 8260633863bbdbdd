"""Calls by which commands change files fail in turn: one line, nothing lost, and the next call comes to the same."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import nn

from commands import CommandResult, assert_usage_error, run_command
from helpers import CPU, settings_of
from runs import claim_run, judge_claim
from storage import ERRORS, contents, failing_disk, spread
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction import BudgetedOracle, read_queries
from wootz.data import Dataset
from wootz.errors import StoreError
from wootz.journal import append_line
from wootz.keys import AnswerKey, owner_secret, read_keys, signing_key
from wootz.keys.answer_log import read_log
from wootz.models import ModelSpec, build, write_model
from wootz.serving.query_log import QueryLog
from wootz.store import write_bytes, write_json
from wootz.suspects.files import predictor
from wootz.training import Recipe
from wootz.watermarks import AnswerFilter, CalibrationScores, Guard, RunnerUp, Triggers
from wootz.workflows.judge import JudgePolicy
from wootz.workflows.owner import References, protect
from wootz.workflows.register import register_run
from wootz.workflows.suspects import QueryConfig

RECORD = {"schema": 1, "data": "mnist-5k", "suspect": "run", "clean": 0.9, "seconds": 1.0, "seed": 4}
HERE = QueryConfig(isolated=False)
MARKS = {
    "triggers": Triggers(count=64, every=1, batch=64),
    "runner-up": RunnerUp(features=8),
    "guard": Guard(cost=0.3, most=0.3),
}


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
        write_json(place / "run/record.json", {**RECORD, "kind": "protected"})
    write_model(
        place / "stranger", _plain, small_spec, {"kind": "independent", "data": "mnist-5k", "eps": 0.1, "seed": 9}
    )
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of these that a test may change."""
    monkeypatch.setenv("WOOTZ_OWNER_KEY", str(made / "owner.key"))
    return shutil.copytree(made, tmp_path / "place")


SMALL = [
    word
    for setting in (
        "recipe.loss=n-fgsm",
        "recipe.epochs=1",
        "panel.robust_epochs=1",
        "panel.plain_epochs=1",
        "small_cnn.width=4",
        "small_cnn.hidden=16",
        "triggers.count=64",
        "runner_up.features=8",
    )
    for word in ("--set", setting)
]
ATTACK = ["--out", "s", "-n", "10"]
RETRAIN = ["--attack", "retrain-hard", "--set", "epochs=1", "--set", "images=300", "--through-guard"]


class Command(NamedTuple):
    """A command in the folder, what is removed before it, and what is added when it is called again."""

    words: list[str]
    removed: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


COMMANDS = {
    "register": Command(["register", "run"], removed=("run/registration.dsse.json", "run/owner.pub")),
    "report": Command(["report", "run"]),
    "export": Command(["export", "run", "--out", "m.onnx"]),
    "prune": Command(["remove", "run", "--attack", "prune", *ATTACK], again=("--resume",)),
    "copy": Command(["steal", "run", "--attack", "copy", *ATTACK], again=("--resume",)),
    "retrain": Command(["steal", "run", *RETRAIN, *ATTACK], again=("--resume",)),
    "evaluate": Command(["evaluate", "run", "--attack", "ensemble", "-n", "5"]),
    "protect": Command(["protect", "--data", "mnist-5k", "--out", "p", "-n", "10", *SMALL], again=("--resume",)),
}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "protect"])
def test_a_command(name: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _each_call_fails(name, COMMANDS[name], 6, place, capsys, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_at_every_call(
    name: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _each_call_fails(name, COMMANDS[name], 60, place, capsys, monkeypatch)


def _each_call_fails(
    name: str,
    command: Command,
    most: int,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for file in command.removed:
        (place / file).unlink()
    start, before = shutil.copytree(place, place.with_name("start")), contents(place)

    def call(*more: str) -> CommandResult:
        monkeypatch.chdir(place)
        return run_command(capsys, monkeypatch, *command.words, *more, "--json")

    with failing_disk(place) as disk:
        assert call().code == 0
        calls, whole = disk.calls, contents(place)
        for number in spread(len(calls), most):
            shutil.rmtree(place)
            shutil.copytree(start, place)
            error = ERRORS[number % len(ERRORS)]
            disk.fail_at(number, error)
            failed = call()
            disk.fail_at(-1)
            where = f"{name}: {error}, call {number}: {calls[number]}"
            if not failed.code:  # what does not matter: the name of a lock's holder
                assert calls[number][1].endswith(".lock"), where
                continue
            assert_usage_error(failed, os.strerror(error))
            after = contents(place)
            assert {file: after.get(file) for file in before} == before, where
            again = call(*command.again)
            if "was written" in failed.err and "is there already" in again.err:
                continue
            assert again.code == 0, f"{where}: {again.err}"
            assert contents(place) == whole, where


STEPS: dict[str, Callable[[Path], Any]] = {
    "claim": lambda place: claim_run(place / "run", place / "run", place / "c.json", HERE),
    "judge": lambda place: judge_claim(
        place / "claim/c.json",
        place / "run",
        JudgePolicy(isolated=False),
        out=place / "word.json",
        transcripts=place / "transcripts",
    ),
    "owner's secret": lambda place: owner_secret(place / "keys/owner.key"),
    "signing key": lambda place: signing_key(place / "keys/signing.pem"),
    "journal": lambda place: append_line(place / "lines.jsonl", "{}"),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step(name: str, place: Path) -> None:
    """Files are whole or absent; new keys and a judge's seed differ each time: of these the names are compared."""
    if name == "judge":
        (place / "claim").mkdir()
        claim_run(place / "run", place / "run", place / "claim/c.json", HERE)
    start = shutil.copytree(place, place.with_name("start"))
    before = contents(place)
    with failing_disk(place) as disk:
        STEPS[name](place)
        calls, whole = disk.calls, contents(place)
        for number in range(len(calls)):
            shutil.rmtree(place)
            shutil.copytree(start, place)
            error = ERRORS[number % len(ERRORS)]
            disk.fail_at(number, error)
            if not calls[number][1].endswith(".lock"):
                with pytest.raises(StoreError, match=os.strerror(error)):
                    STEPS[name](place)
            disk.fail_at(-1)
            after = contents(place)
            assert {file: after.get(file) for file in before} == before, calls[number]
            STEPS[name](place)
            now = contents(place)
            assert now.keys() == whole.keys(), calls[number]
            assert name in ("owner's secret", "signing key", "judge") or now == whole, calls[number]


def test_logs_of_a_service_keep_what_was_answered(place: Path, digits: Dataset, plain: nn.Module) -> None:
    """A query that cannot be logged is not answered; the log has all others, and goes on."""
    images, few = digits.test.subset(slice(600)).images(), digits.validation.subset(slice(300))
    key = read_keys(place / "run").by_mark["guard"]
    assert isinstance(key, AnswerKey)
    scores, calibration = (
        predict_logits(plain, images),
        CalibrationScores(predict_logits(plain, few.images()), few.labels),
    )
    with failing_disk(place) as disk, QueryLog(place / "q.jsonl") as log:
        guard_log = place / "guard.jsonl"
        with AnswerFilter(key, guard_log, shape=digits.shape, calibration=calibration) as guard:
            for number in range(3):
                for write in (lambda: log.write("1", images[:8].numpy(), [0] * 8), lambda: guard(images, scores)):
                    before = [path.read_bytes() for path in (place / "q.jsonl", guard_log)]
                    disk.fail_at(number, errno.ENOSPC)
                    try:
                        write()
                    except StoreError as error:
                        assert os.strerror(errno.ENOSPC) in str(error)
                        assert [path.read_bytes() for path in (place / "q.jsonl", guard_log)] == before
                    disk.fail_at(-1)
                    write()
        assert (place / "q.jsonl").read_bytes().count(b"\n") % 8 == 0
        assert read_log(key, guard_log, digits.shape).digests


def test_a_log_of_queries_has_whole_rows(tmp_path: Path, plain: nn.Module, digits: Dataset) -> None:
    log, images = tmp_path / "queries.log", digits.test.subset(slice(9)).images()
    victim = BudgetedOracle(predictor(plain), access="label", num_classes=10, log=log)
    victim(images[:4])
    with failing_disk(tmp_path) as disk:
        for number, error in enumerate(ERRORS):
            disk.fail_at(number, error)
            with pytest.raises(StoreError, match=os.strerror(error)):
                victim(images[4:])
            assert len(read_queries(log)) == 4


def test_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    """Those of writers that are at work are kept, also new ones, which their writer has yet to lock."""
    abandoned, at_work = tmp_path / ".0123456789abcdef.tmp", tmp_path / ".fedcba9876543210.tmp"
    new = tmp_path / ".00000000000000ff.tmp"
    for path in (abandoned, at_work, new):
        path.write_bytes(b"half")
    for path in (abandoned, at_work):
        os.utime(path, (0, 0))
    with at_work.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_bytes(tmp_path / "a", b"whole")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([new.name, at_work.name, "a"])
