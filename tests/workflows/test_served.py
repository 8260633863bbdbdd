"""Thefts through a run's guard, without HTTP: the log is the thief's folder's, and the evidence is found through it."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from helpers import CPU, mark_context
from runs import verify_run
from wootz.attacks.extraction import read_queries
from wootz.data import Dataset
from wootz.errors import ConfigError, StoreError
from wootz.keys import AnswerKey, draw_keys, read_keys, write_keys
from wootz.keys.answer_log import read_log
from wootz.models import ModelSpec, read_model, write_model
from wootz.records import Result
from wootz.store import read_bytes
from wootz.watermarks import Guard, prepare_all
from wootz.workflows.attack import attack_run
from wootz.workflows.guard_log import LOG
from wootz.workflows.suspects import QueryConfig

SETTINGS = ("epochs=40",)
FEW = ("epochs=2", "images=300")


@pytest.fixture
def victim(tmp_path: Path, digits: Dataset, plain: nn.Module, small_spec: ModelSpec) -> Path:
    """Return a run folder with a model and a guard, never served."""
    folder = tmp_path / "victim"
    write_model(folder, plain, small_spec, {"kind": "protected", "data": "mnist-5k", "eps": 0.1, "seed": 0})
    public = prepare_all({"guard": Guard(cost=0.3, most=0.3)}, mark_context(digits, model=plain), bytes(32))
    write_keys(folder, draw_keys(bytes(32), public, classes=digits.classes, shape=digits.shape, panel=[]))
    return folder


def steal(victim: Path, out: Path, settings: tuple[str, ...] = FEW, **more: object) -> Result:
    return attack_run("steal", victim, "retrain-hard", out, settings=settings, count=20, execution=CPU, **more)  # type: ignore[arg-type]


def evidence(victim: Path, thief: Path, log: Path) -> Result:
    return verify_run(victim, thief, QueryConfig(access="label", isolated=False), guard_log=log)


def test_the_evidence_is_found_through_the_thief_s_own_log(victim: Path, tmp_path: Path) -> None:
    served = steal(victim, tmp_path / "served", SETTINGS, served=True)
    steal(victim, tmp_path / "bare", SETTINGS)
    log = tmp_path / "served" / "guard.jsonl"
    assert log.stat().st_mode & 0o777 == 0o600
    assert not (victim / LOG).exists()
    assert not (tmp_path / "bare" / "guard.jsonl").exists()
    key = read_keys(victim).by_mark["guard"]
    assert isinstance(key, AnswerKey)
    count = len(read_log(key, log).base)
    assert f"asked the guarded service; its key decided on {count} images, which are in its log" in served.notes
    assert read_model(tmp_path / "served")[2]["served"] is True
    assert "served" not in read_model(tmp_path / "bare")[2]
    assert evidence(victim, tmp_path / "served", log).bits > 15  # type: ignore[operator]
    assert evidence(victim, tmp_path / "bare", log).bits < 10  # type: ignore[operator]


@pytest.mark.parametrize("when", ["at the beginning", "in training"])
def test_a_theft_that_was_stopped_comes_to_the_same_and_asks_nothing_twice(
    when: str, victim: Path, tmp_path: Path
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"

    def stop(what: str, done: float) -> None:
        if when == "at the beginning" or (what.startswith("training") and done > 0.3):
            raise KeyboardInterrupt

    steal(victim, straight, served=True)
    with pytest.raises(KeyboardInterrupt):
        steal(victim, broken, served=True, progress=stop)
    attempt = broken / "attempt"
    if when == "at the beginning":
        (attempt / "guard.jsonl").write_bytes(b'{"protocol": "wo')  # killed while the first line was written
    else:
        with pytest.raises(ConfigError, match=r"was begun with other settings \(through_guard = True, not False\)"):
            steal(victim, broken, resume=True)
    cell = steal(victim, broken, served=True, resume=True)
    assert cell.queries == 300
    for name in ("model.safetensors", "queries.log", "guard.jsonl"):
        assert read_bytes(broken / name) == read_bytes(straight / name)
    assert len(read_queries(broken / "queries.log")) == 300


@pytest.mark.parametrize("when", ["measure", "to_json", "shutil.rmtree"])
def test_a_theft_that_was_stopped_after_its_model_is_finished(
    when: str, victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    straight, broken = tmp_path / "straight", tmp_path / "broken"
    steal(victim, straight, served=True)
    (broken / "attempt").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(f"wootz.workflows.attack.{when}", stop)
        with pytest.raises(KeyboardInterrupt):
            steal(victim, broken, served=True, resume=True)
    if when != "shutil.rmtree":
        with pytest.raises(ConfigError, match="already holds a model; finish it with --resume"):
            steal(victim, broken, served=True)
    assert steal(victim, broken, served=True, resume=True).queries == 300
    assert not (broken / "attempt").exists()
    for name in ("model.safetensors", "queries.log", "guard.jsonl"):
        assert read_bytes(broken / name) == read_bytes(straight / name)


def test_thefts_side_by_side_leave_logs_of_their_own(victim: Path, tmp_path: Path) -> None:
    def meanwhile(what: str, done: float) -> None:
        if what.startswith("training") and not (tmp_path / "two").exists():
            steal(victim, tmp_path / "two", served=True)

    steal(victim, tmp_path / "one", served=True, progress=meanwhile)
    assert read_bytes(tmp_path / "one" / "guard.jsonl") == read_bytes(tmp_path / "two" / "guard.jsonl")


def test_what_is_refused(victim: Path, tmp_path: Path, plain: nn.Module, small_spec: ModelSpec) -> None:
    bare = tmp_path / "bare-victim"
    write_model(bare, plain, small_spec, {"kind": "protected", "data": "mnist-5k", "eps": 0.1, "seed": 0})
    with pytest.raises(ConfigError, match="bare-victim: has no guard to serve it with"):
        steal(bare, tmp_path / "a", served=True)
    with pytest.raises(ConfigError, match="served: 'retrain-hard' on http://x/v2/models/m is no theft"):
        attack_run("steal", "http://x/v2/models/m", "retrain-hard", tmp_path / "b", served=True)
    with pytest.raises(ConfigError, match=r"served: 'prune' on .* is no theft by answers"):
        attack_run("remove", victim, "prune", tmp_path / "c", served=True)
    with pytest.raises(StoreError, match=r"nowhere\.jsonl: no such file; give the log of the guard"):
        evidence(victim, bare, tmp_path / "nowhere.jsonl")
