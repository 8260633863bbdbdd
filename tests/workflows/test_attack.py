"""The stage that runs an attack: what it refuses, what it leaves, and that a stop loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from helpers import CPU
from wootz.attacks.extraction import read_queries
from wootz.data import Dataset
from wootz.errors import BudgetError, ConfigError, Error, StoreError
from wootz.models import ModelSpec, build, read_model, write_model
from wootz.records import AccuracyDrop, Result, from_json, to_json
from wootz.store import read_bytes, read_json, write_json
from wootz.workflows.attack import attack_run
from wootz.workflows.evaluate import evaluate_run
from wootz.workflows.run import open_run


@pytest.fixture
def victim(tmp_path: Path, plain: nn.Module, small_spec: ModelSpec) -> Path:
    """Return a run folder with an undefended model."""
    folder = tmp_path / "victim"
    write_model(folder, plain, small_spec, {"kind": "protected", "data": "mnist-5k", "eps": 0.1, "seed": 0})
    return folder


def test_a_theft_leaves_a_model_a_record_and_its_queries(victim: Path, tmp_path: Path) -> None:
    out = tmp_path / "thief"
    settings = ("epochs=2", "images=200")
    cell = attack_run("steal", victim, "retrain-soft", out, settings=settings, count=50, execution=CPU)
    assert (cell.kind, cell.theft, cell.access, cell.queries) == ("stolen", "retrain-soft", "scores", 200)
    assert cell == from_json(read_json(out / "record.json"))
    assert len(read_queries(out / "queries.log")) == 200
    assert not (out / "attempt").exists()
    assert read_model(out)[2]["attack"]["images"] == 200


def test_a_budget_and_an_access_are_kept(victim: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="it fits a budget of 200"):
        attack_run("steal", victim, "retrain-soft", tmp_path / "a", settings=("images=200",), budget=199, execution=CPU)
    with pytest.raises(BudgetError, match="returns labels only"):
        attack_run("steal", victim, "retrain-soft", tmp_path / "b", access="label", execution=CPU)
    with pytest.raises(ConfigError, match="top-K"):
        attack_run("steal", victim, "retrain-soft", tmp_path / "c", access="top", execution=CPU)
    with pytest.raises(ConfigError, match="works with weights"):
        attack_run("remove", victim, "prune", tmp_path / "d", access="scores", execution=CPU)
    with pytest.raises(ConfigError, match="images = 5000: the thief share holds 800"):
        attack_run("steal", victim, "retrain-hard", tmp_path / "e", settings=("images=5000",), execution=CPU)
    cell = attack_run(
        "steal",
        victim,
        "retrain-soft",
        tmp_path / "f",
        settings=("epochs=1", "images=100"),
        access="top-2",
        count=20,
        execution=CPU,
    )
    assert cell.access == "top-2"


def test_a_theft_goes_on_where_it_was_stopped(victim: Path, tmp_path: Path) -> None:
    settings = ("epochs=3", "images=300")

    def stop(what: str, done: float) -> None:
        if what.startswith("training") and done > 0.6:
            raise KeyboardInterrupt

    straight, broken = tmp_path / "straight", tmp_path / "broken"
    attack_run("steal", victim, "retrain-soft", straight, settings=settings, count=20, execution=CPU)
    with pytest.raises(KeyboardInterrupt):
        attack_run("steal", victim, "retrain-soft", broken, settings=settings, execution=CPU, progress=stop)
    cell = attack_run("steal", victim, "retrain-soft", broken, settings=settings, count=20, resume=True, execution=CPU)
    assert read_bytes(broken / "model.safetensors") == read_bytes(straight / "model.safetensors")
    assert cell.queries == 300  # what was answered before the stop is not asked again


def test_the_price_is_told_where_it_was_measured_alike(victim: Path, tmp_path: Path) -> None:
    settings = ("sparsity=0.9",)
    assert attack_run("remove", victim, "prune", tmp_path / "a", settings=settings, count=40).price is None
    record = evaluate_run(victim, count=40)
    write_json(victim / "record.json", to_json(record))
    alike = attack_run("remove", victim, "prune", tmp_path / "b", settings=settings, count=40)
    assert alike.clean is not None
    assert record.clean is not None
    assert alike.price is not None
    assert alike.price.clean == pytest.approx(record.clean - alike.clean, abs=1e-4)
    assert alike.price.robust is not None
    other = attack_run("remove", victim, "prune", tmp_path / "c", settings=settings, count=20)
    assert other.price == AccuracyDrop(clean=alike.price.clean)


@pytest.mark.usefixtures("digits")
def test_another_data_set_is_used_as_asked(victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_other(data: Dataset, data_dir: Path | None) -> Dataset:
        return data

    monkeypatch.setattr("wootz.workflows.attack.load_other", load_other)
    settings = ("data=other", "epochs=1", "images=60")
    cell = attack_run("steal", victim, "retrain-hard", tmp_path / "s", settings=settings, count=20, execution=CPU)
    assert "another data set" in cell.notes[0]


def test_a_victim_that_set_less_aside_leaves_its_thief_less(
    tmp_path: Path, plain: nn.Module, small_spec: ModelSpec
) -> None:
    about = {"kind": "protected", "data": "mnist-5k", "set_aside": 0.25, "eps": 0.1, "seed": 0}
    write_model(tmp_path / "victim", plain, small_spec, about)
    with pytest.raises(ConfigError, match="images = 201: the thief share holds 200"):
        attack_run(
            "steal", tmp_path / "victim", "retrain-soft", tmp_path / "a", settings=("images=201",), execution=CPU
        )
    attack_run(
        "steal", tmp_path / "victim", "retrain-soft", tmp_path / "b", settings=("epochs=1",), count=20, execution=CPU
    )
    assert open_run(tmp_path / "b").data(None).set_aside == 0.25


def test_nothing_is_written_over(victim: Path) -> None:
    before = read_bytes(victim / "model.safetensors")
    with pytest.raises(Error, match="already holds a model"):
        attack_run("remove", victim, "prune", victim)
    assert read_bytes(victim / "model.safetensors") == before


def test_a_stopped_attack_is_resumed_with_its_own_settings_and_undamaged_files(victim: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "thief", ("epochs=2", "images=200")

    def stop(what: str, done: float) -> None:
        if what.startswith("training"):
            raise KeyboardInterrupt

    def steal(target: Path = victim, seed: int = 0, settings: Sequence[str] = settings, **more: Any) -> Result:
        return attack_run(
            "steal", target, "retrain-soft", out, settings=settings, seed=seed, count=20, execution=CPU, **more
        )

    with pytest.raises(KeyboardInterrupt):
        steal(progress=stop)
    other, spec, about = (tmp_path / "other", *read_model(victim)[1:])
    write_model(other, build(spec, 5), spec, about)
    for changed, name in (
        ({"seed": 1}, "seed = 0, not 1"),
        ({"settings": ("epochs=3", "images=200")}, "settings.epochs = 2, not 3"),
        ({"access": "top-3"}, "access = 'scores', not 'top-3'"),
        ({"target": other}, "target = "),
    ):
        with pytest.raises(ConfigError, match=f"attempt: was begun with other settings .{name}"):
            steal(resume=True, **changed)
    answers = next((out / "attempt").glob("*.safetensors"))
    kept = answers.read_bytes()
    answers.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(StoreError, match=f"{answers.name}: was changed since it was written"):
        steal(resume=True)
    answers.write_bytes(kept)
    assert steal(resume=True).queries == 200
