"""A mark in the weights through the stages: read where they are asked for, and read again by a judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from helpers import CPU
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import public_hex, signing_key
from wootz.models import ModelSpec, build, write_model
from wootz.records import to_json
from wootz.serving import ModelInfo, app, running
from wootz.suspects.files import predictor
from wootz.training import Recipe
from wootz.watermarks import Uchida, protect
from wootz.workflows.claim import claim_suspect
from wootz.workflows.judge import JudgePolicy, judge_claim
from wootz.workflows.register import register_run
from wootz.workflows.save_run import save_run
from wootz.workflows.suspects import QueryConfig
from wootz.workflows.verify import verify_suspect

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
    monkeypatch.setattr("wootz.watermarks.protecting.fresh_secret", lambda: b"\x5e" * 32)
    spec = replace(small_spec, settings={"width": 16, "hidden": 32})
    made = protect(
        build(spec, 4),
        digits,
        eps=0.1,
        wm_eps=0.6,
        panel=[robust, plain],
        marks=("uchida",),
        settings={"uchida": Uchida(bits=100, weight=1.0)},
        recipe=Recipe(loss="natural", epochs=5, lr=5e-3),
        seed=4,
        execution=CPU,
        owner=public_hex(signing_key()),
    )
    run = tmp_path / "owner"
    save_run(made, run, spec, (small_spec, small_spec), data="mnist-5k", eps=0.1, seed=4)
    register_run(run)
    return run


def test_verified_claimed_and_judged(owner_run: Path, tmp_path: Path, plain: nn.Module, small_spec: ModelSpec) -> None:
    found = verify_suspect(owner_run, owner_run, SEEN)
    assert (found.verdict, found.access) == ("KEY-DEPENDENT", "weights")
    assert found.bits > 80  # type: ignore[operator]
    assert to_json(found)["evidence"][0]["details"]["bit_error_rate"] < 0.02
    stranger = tmp_path / "stranger"
    write_model(stranger, plain, small_spec, {"kind": "independent", "data": "mnist-5k", "eps": 0.1, "seed": 9})
    assert verify_suspect(owner_run, stranger, SEEN).verdict == "NOT SHOWN"
    with pytest.raises(ConfigError, match="access is scores"):
        verify_suspect(owner_run, owner_run, replace(SEEN, access="scores"))
    facts = ModelInfo(name="m", shape=small_spec.shape, classes=small_spec.classes, data="mnist-5k", eps=0.1)
    with (
        running(app(predictor(plain), facts)) as url,
        pytest.raises(ConfigError, match="the suspect shows none"),
    ):
        verify_suspect(owner_run, f"{url}/v2/models/m", SEEN)
    certificate = tmp_path / "claim.json"
    claimed = claim_suspect(owner_run, owner_run, certificate, SEEN)
    judged = judge_claim(certificate, owner_run, JudgePolicy(isolated=False, independents=(stranger,)))
    assert claimed.verdict == judged.verdict == "KEY-DEPENDENT"
    assert claimed.bits == judged.bits == pytest.approx(found.bits - 3, abs=0.01)  # one of four accesses, two budgets
