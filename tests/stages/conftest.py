"""An owner with a marked model, a thief with a copy and a mark of his own, a stranger, and a clock that all trust."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from _pytest.monkeypatch import MonkeyPatch
from torch import nn

from authority import Authority, serving
from court import Court
from helpers import CPU
from wootz.data import Dataset
from wootz.marks import Guard, RunnerUp, Triggers, protect
from wootz.models import ModelSpec, build, write_model
from wootz.ownership import public_hex, public_pem, signing_key
from wootz.ownership.timestamps import timestamp_request
from wootz.stages.keep import keep_protected
from wootz.stages.register import register_run
from wootz.training import Recipe

OWNERS = {
    "triggers": Triggers(count=320, every=1, batch=64, recall=1.0, weight=1.0),
    "runner-up": RunnerUp(features=15, tau=3.0),
    "guard": Guard(cost=0.2, most=0.3),
}
THIEFS = {"triggers": Triggers(count=128, tranches=1, every=1, batch=64, recall=1.0, weight=1.0)}
RECIPE = Recipe(loss="natural", epochs=40, lr=5e-3)


@pytest.fixture(scope="session")
def court(
    tmp_path_factory: pytest.TempPathFactory,
    digits: Dataset,
    small_spec: ModelSpec,
    _plain: nn.Module,
    _robust: nn.Module,
) -> Court:
    place = tmp_path_factory.mktemp("court")
    (place / "clock").mkdir()
    authority = Authority(place / "clock")

    def protected(name: str, start: nn.Module, byte: bytes, marks: dict[str, Any], recipe: Recipe) -> nn.Module:
        with MonkeyPatch.context() as patch:
            patch.setattr("wootz.marks.protecting.fresh_secret", lambda: byte * 32)
            patch.setenv("WOOTZ_SIGNING_KEY", str(place / f"{name}.pem"))
            key = signing_key()
            (place / f"{name}.pub").write_bytes(public_pem(key))
            made = protect(
                start, digits, eps=0.1, wm_eps=0.6, panel=[_robust, _plain], marks=tuple(marks), settings=marks,
                recipe=recipe, seed=4, execution=CPU, owner=public_hex(key), stamp=stamp,
            )  # fmt: skip
            panel = (small_spec, small_spec)
            keep_protected(made, place / name, small_spec, panel, data="mnist-5k", eps=0.1, seed=4)
            with serving(authority) as url:
                register_run(place / name, tsa=url)
        return made.model

    def stamp(digest: bytes) -> bytes:
        return authority.stamp(timestamp_request(digest))

    marked = protected("owner", build(small_spec, 4), b"\x5e", OWNERS, RECIPE)
    protected("thief", marked, b"\x77", THIEFS, replace(RECIPE, epochs=8, lr=1e-3))
    about = {"kind": "independent", "data": "mnist-5k", "eps": 0.1, "seed": 9}
    write_model(place / "stranger", _robust, small_spec, about)
    return Court(place / "owner", place / "thief", place / "stranger", place, authority)


@pytest.fixture
def as_owner(court: Court, monkeypatch: pytest.MonkeyPatch) -> Court:
    """Sign as the owner."""
    monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(court.keys / "owner.pem"))
    return court
