"""The stated qualities, on the whole of MNIST and Fashion-MNIST. Slow: set WOOTZ_DATA and run make test-slow."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from runs import verify_run
from wootz.data import load
from wootz.records import Cell
from wootz.workflows.attack import attack_run
from wootz.workflows.protect import protect_run
from wootz.workflows.protection import preset
from wootz.workflows.suspects import QueryConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.environ.get("WOOTZ_DATA"), reason="WOOTZ_DATA names no folder of data sets"),
]


@dataclass(frozen=True)
class Goal:
    data: str
    clean: float
    robust: float


GOALS = (Goal("mnist", 0.975, 0.86), Goal("fashion-mnist", 0.82, 0.695))


@pytest.fixture(scope="module", params=GOALS, ids=lambda goal: goal.data)
def owned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Goal, Path, Cell]:
    goal: Goal = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOOTZ_OWNER_KEY", str(tmp_path_factory.mktemp("owner") / "owner.key"))
        out = tmp_path_factory.mktemp(goal.data) / "r1"
        cfg = preset("fast", data=goal.data, eps=None, wm_eps=None, seed=1, count=len(load(goal.data).train))
        return goal, out, protect_run(cfg, out)


def bits(owner: Path, suspect: Path, budget: int | None = None) -> dict[str, float]:
    cell = verify_run(owner, suspect, QueryConfig(budget=budget))
    return {item.mark: item.bits for item in cell.evidence}


def test_quality_of_the_protected_model(owned: tuple[Goal, Path, Cell]) -> None:
    goal, _, cell = owned
    assert cell.clean is not None
    assert cell.clean >= goal.clean
    assert cell.robust is not None
    assert cell.robust.accuracy >= goal.robust


def test_marks_are_read_back(owned: tuple[Goal, Path, Cell]) -> None:
    _, run, _ = owned
    assert min(bits(run, run).values()) >= 80
    assert bits(run, run, budget=300)["runner-up"] >= 40


@pytest.mark.parametrize("model", ["same", "other"])
def test_soft_thieves_carry_the_runner_up(owned: tuple[Goal, Path, Cell], tmp_path: Path, model: str) -> None:
    _, run, _ = owned
    attack_run("steal", run, "retrain-soft", tmp_path / "s", settings=(f"model={model}",))
    assert bits(run, tmp_path / "s")["runner-up"] >= 80
    if model == "same":
        assert bits(run, tmp_path / "s", budget=300)["runner-up"] >= 40


@pytest.mark.parametrize(
    ("attack", "settings", "runner_up", "triggers"),
    [
        ("finetune", (), 80, 40),
        ("prune", ("sparsity=0.5",), 80, 40),
        ("prune", ("sparsity=0.8",), 60, 0),
        ("quantize", ("bits=8",), 80, 80),
    ],
)
def test_removal_leaves_proof(
    owned: tuple[Goal, Path, Cell],
    tmp_path: Path,
    attack: str,
    settings: tuple[str, ...],
    runner_up: float,
    triggers: float,
) -> None:
    _, run, _ = owned
    attack_run("remove", run, attack, tmp_path / "s", settings=settings)
    found = bits(run, tmp_path / "s")
    assert found["runner-up"] >= runner_up
    assert found["triggers"] >= triggers
