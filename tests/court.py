"""Who stands before a judge in tests: an owner with a marked model, a thief with a copy and a mark of his own, others.

The fixtures are imported by `tests/conftest.py`, so that all folders share one court.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from _pytest.monkeypatch import MonkeyPatch
from torch import nn

from authority import Authority, serving
from helpers import CPU, settings_of
from wootz.data import Dataset
from wootz.keys import OwnerKeys, RegisteredMaterial, draw_keys, public_hex, public_pem, signing_key
from wootz.keys.timestamps import timestamp_request
from wootz.models import ModelSpec, build, write_model
from wootz.training import Recipe
from wootz.watermarks import Guard, RunnerUp, Triggers, weights_digest
from wootz.workflows.owner import References, protect
from wootz.workflows.register import register_run

OWNERS = {
    "triggers": Triggers(count=320, every=1, batch=64, recall=1.0, weight=1.0),
    "runner-up": RunnerUp(features=15, tau=3.0),
    "guard": Guard(cost=0.2, most=0.3),
}
THIEFS = {"triggers": Triggers(count=128, tranches=1, every=1, batch=64, recall=1.0, weight=1.0)}
RECIPE = Recipe(loss="natural", epochs=40, lr=5e-3)
EPS, WM_EPS = 0.1, 0.6


class Court(NamedTuple):
    """Folders: the owner's run, the thief's, a stranger's; who signs for whom; and whom a judge trusts.

    `stocked` is a key that was drawn and stamped before the owner's, and was embedded in no model yet; `stocker.pem`
    among the keys signs for it.
    """

    owner: Path
    thief: Path
    stranger: Path
    keys: Path
    authority: Authority
    stocked: OwnerKeys


def label_material(pixels: torch.Tensor, originals: torch.Tensor, classes: torch.Tensor) -> RegisteredMaterial:
    """Return images of anybody's choice as `triggers` in one tranche, as `protect` registers them."""
    facts = {
        "eps": str(EPS),
        "alpha": "0.02",
        "wm_eps": str(WM_EPS),
        "rule": "wrong",
        "count": len(pixels),
        "tranches": 1,
    }
    return RegisteredMaterial("labels", {"pixels": pixels, "base_pixels": originals, "base": classes}, facts)


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
    authority, panel = Authority(place / "clock"), [_robust, _plain]

    def stamp(digest: bytes) -> bytes:
        return authority.stamp(timestamp_request(digest))

    def key_of(patch: MonkeyPatch, name: str) -> str:
        patch.setenv("WOOTZ_SIGNING_KEY", str(place / f"{name}.pem"))
        key = signing_key()
        (place / f"{name}.pub").write_bytes(public_pem(key))
        return public_hex(key)

    def protected(name: str, start: nn.Module, byte: bytes, marks: dict[str, Any], recipe: Recipe) -> nn.Module:
        with MonkeyPatch.context() as patch:
            patch.setattr("wootz.workflows.owner.fresh_secret", lambda: byte * 32)
            key_of(patch, name)
            cfg = settings_of(marks, wm_eps=WM_EPS, recipe=replace(recipe, eps=EPS), seed=4)
            owner = protect(
                start, digits, config=cfg, references=References(robust=_robust, plain=_plain), execution=CPU, tsa=stamp
            )
            owner.save(place / name)
            with serving(authority) as url:
                register_run(place / name, tsa=url)
        return owner.model

    with MonkeyPatch.context() as patch:
        noise = torch.randint(0, 256, (96, *digits.shape), generator=torch.Generator().manual_seed(8))
        far = (noise.int() + torch.where(noise < 128, 100, -100)).to(torch.uint8)
        stocked = draw_keys(
            b"\x51" * 32,
            {"triggers": label_material(noise.to(torch.uint8), far, torch.arange(96) % 10)},
            classes=digits.classes,
            shape=digits.shape,
            panel=[weights_digest(model) for model in panel],
            owner=key_of(patch, "stocker"),
            fetch_token=stamp,
        )
    marked = protected("owner", build(small_spec, 4), b"\x5e", OWNERS, RECIPE)
    protected("thief", marked, b"\x77", THIEFS, replace(RECIPE, epochs=8, lr=1e-3))
    about = {"kind": "independent", "data": "mnist-5k", "eps": EPS, "seed": 9}
    write_model(place / "stranger", _robust, small_spec, about)
    return Court(place / "owner", place / "thief", place / "stranger", place, authority, stocked)


@pytest.fixture
def as_owner(court: Court, monkeypatch: pytest.MonkeyPatch) -> Court:
    """Sign as the owner, of whose key no part was opened yet; the thief's is whole too."""
    for run in (court.owner, court.thief):
        (run / "key/burnt.jsonl").unlink(missing_ok=True)
    monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(court.keys / "owner.pem"))
    return court
