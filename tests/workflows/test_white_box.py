"""A mark in the weights through the stages: read where they are asked for, and read again by a judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from helpers import CPU, settings_of
from runs import claim_run, judge_claim, verify_run
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.models import ModelSpec, build, write_model
from wootz.records import to_json
from wootz.serving import ModelInfo, app, running
from wootz.statistics import predictor
from wootz.training import Recipe
from wootz.watermarks import Uchida
from wootz.workflows.judge import JudgePolicy
from wootz.workflows.owner import References, protect
from wootz.workflows.register import register_run
from wootz.workflows.suspects import QueryConfig

SEEN = QueryConfig(access="weights", isolated=False)


@pytest.fixture
def owner_run(
    tmp_path: Path,
    digits: Dataset,
    small_spec: ModelSpec,
    plain: nn.Module,
    robust: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Return a registered run whose model carries a message, and no other mark."""
    monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(tmp_path / "owner.pem"))
    monkeypatch.setattr("wootz.workflows.owner.fresh_secret", lambda: b"\x5e" * 32)
    spec = replace(small_spec, settings={"width": 16, "hidden": 32})
    cfg = settings_of(
        {"uchida": Uchida(bits=100, weight=1.0)},
        wm_eps=0.6,
        recipe=Recipe(loss="natural", eps=0.1, epochs=5, lr=5e-3),
        seed=4,
    )
    owner = protect(build(spec, 4), digits, config=cfg, references=References(robust, plain), execution=CPU)
    run = tmp_path / "owner"
    owner.save(run)
    register_run(run)
    return run


def test_verified_claimed_and_judged(owner_run: Path, tmp_path: Path, plain: nn.Module, small_spec: ModelSpec) -> None:
    found = verify_run(owner_run, owner_run, SEEN)
    assert (found.verdict, found.access) == ("KEY-DEPENDENT", "weights")
    assert found.bits > 80  # type: ignore[operator]
    assert to_json(found)["evidence"][0]["details"]["bit_error_rate"] < 0.02
    stranger = tmp_path / "stranger"
    write_model(stranger, plain, small_spec, {"kind": "independent", "data": "mnist-5k", "eps": 0.1, "seed": 9})
    assert verify_run(owner_run, stranger, SEEN).verdict == "NOT SHOWN"
    with pytest.raises(ConfigError, match="access is scores"):
        verify_run(owner_run, owner_run, replace(SEEN, access="scores"))
    facts = ModelInfo(name="m", shape=small_spec.shape, classes=small_spec.classes, data="mnist-5k", eps=0.1)
    with (
        running(app(predictor(plain), facts)) as url,
        pytest.raises(ConfigError, match="the suspect shows none"),
    ):
        verify_run(owner_run, f"{url}/v2/models/m", SEEN)
    certificate = tmp_path / "claim.json"
    claimed = claim_run(owner_run, owner_run, certificate, SEEN)
    judged = judge_claim(certificate, owner_run, JudgePolicy(isolated=False, independents=(stranger,)))
    assert claimed.verdict == judged.verdict == "KEY-DEPENDENT"
    assert claimed.bits == judged.bits == pytest.approx(found.bits - 3, abs=0.01)  # one of four accesses, two budgets
