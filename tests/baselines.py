"""Baseline marks in a small size, prepared and embedded."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from helpers import CPU, mark_context, settings_of
from wootz.data import Dataset
from wootz.keys import RegisteredMaterial
from wootz.models import ModelSpec, build
from wootz.rng import generator
from wootz.training import Recipe
from wootz.watermarks import (
    MARKS,
    App,
    Blackmarks,
    Content,
    Dawn,
    Entangled,
    Frontier,
    Guard,
    KeyedContent,
    Margin,
    Noise,
    OutOfDistribution,
    Paper,
    RunnerUp,
    Triggers,
    Uchida,
    Unrelated,
)
from wootz.workflows.owner import Owner, References, protect

EPS, WM_EPS = 0.1, 0.6


def small_config(mark: str, foreign: str) -> Any:
    """Return settings that a small net learns in a dozen epochs."""
    return {
        "triggers": Triggers(count=32),
        "runner-up": RunnerUp(features=6, probes=100),
        "guard": Guard(),
        "paper": Paper(count=60),
        "ood": OutOfDistribution(count=30, batch=5, source=foreign),
        "content": Content(count=60, every=2),
        "noise": Noise(count=60, every=2),
        "unrelated": Unrelated(count=60, every=2, source="fields"),
        "content-keyed": KeyedContent(patches=24, every=1),
        "frontier": Frontier(count=30),
        "entangled": Entangled(count=60, every=4),
        "margin": Margin(count=40, weight=1.0, steps=2),
        "blackmarks": Blackmarks(length=60, weight=1.0, every=1),
        "app": App(count=30, weight=0.3, source=foreign),
        "dawn": Dawn(),
        "uchida": Uchida(bits=32),
    }[mark]


def prepare_small(
    mark: str, data: Dataset, panel: list[nn.Module], foreign: str, *, seed: int = 0, cfg: Any = None
) -> RegisteredMaterial:
    base = mark_context(data, *panel, eps=EPS, wm_eps=WM_EPS)
    return MARKS[mark].prepare(cfg or small_config(mark, foreign), base, generator(seed, "pick"))


def train_embedded(mark: str, digits: Dataset, spec: ModelSpec, panel: list[nn.Module], cfg: Any) -> Owner:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wootz.workflows.owner.fresh_secret", lambda: b"\x5e" * 32)
        recipe = Recipe(loss="natural", eps=EPS, epochs=16, lr=5e-3)
        settings = settings_of({mark: cfg}, wm_eps=WM_EPS, recipe=recipe, seed=4)
        return protect(build(spec, 4), digits, config=settings, references=References(*panel), execution=CPU)
