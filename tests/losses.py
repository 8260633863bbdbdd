"""The value of one loss of the table, asked as the training loop asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from wootz.rng import generator, global_seed
from wootz.training import LOSSES, Batch, Recipe

EPS = 0.1


def recipe(name: str, **changes: Any) -> Recipe:
    return replace(Recipe(loss=name, eps=EPS, steps=2), **changes)


def value(
    name: str, model: nn.Module, batch: Batch, *, eps: float = EPS, cfg: Recipe | None = None, seed: int = 0
) -> torch.Tensor:
    with global_seed(seed):
        return LOSSES[name](cfg or recipe(name), model, model, batch, eps=eps, generator=generator(seed, "a"))
