"""The second choice of a suspect that shows labels only: walk away from its answer and see which class comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from wootz.types import Predict
from wootz.verify.answers import top_one

Away: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Images [N, C, H, W] and their classes [N] -> where a walk away from these classes ends, [N, C, H, W]."""

_HALVINGS = 4
STOPS = _HALVINGS + 2
"""Queries an image takes at most: itself, the end of its walk, and four points between."""


class Walked(NamedTuple):
    """A suspect and the panel as `second_choices` shows them, and how many images a mark may walk with."""

    suspect: Predict
    panel: Sequence[Predict]
    images: int


def second_choices(predict: Predict, away: Away, num_classes: int) -> Predict:
    """Return `predict` as something that shows its first two choices, at up to `STOPS` queries an image.

    The first is its answer. The second is what it says where the way from the image to `away` of it leaves that answer,
    which halving the way finds. Points are rounded to whole gray levels. An image whose way never leaves its answer
    has no second choice; one that was not answered is NaN.

    The answers are those of a model that gives the first 0.51 and the second 0.49: on an image that the suspect gets
    wrong both say as much of the wrong classes. Nothing in them depends on a key unless the suspect does: a test that
    is exact for whatever answers is exact for them.
    """

    def answer(x: Tensor) -> Tensor:
        said = top_one(predict(x)).cpu()
        way = away(x, said.clamp_min(0)) - x
        second = _crossing(predict, x, way, said)
        scores = torch.zeros(len(x), num_classes)
        for choice, share in ((second, 0.49), (said, 0.51)):
            scores[choice >= 0, choice[choice >= 0]] = share
        return scores.masked_fill((said < 0)[:, None], torch.nan)

    return answer


def _crossing(predict: Predict, x: Tensor, way: Tensor, said: Tensor) -> Tensor:
    """Return the class int64 [N] met first where the way leaves what was said; -1 where it does not."""
    near, far = torch.zeros(len(x)), torch.ones(len(x))
    second = torch.full_like(said, -1)
    rows = torch.arange(len(x))[said >= 0]
    for turn in range(_HALVINGS + 1):
        at = far[rows] if turn == 0 else (near[rows] + far[rows]) / 2
        points = x[rows] + way[rows] * at.view(-1, 1, 1, 1)
        now = top_one(predict(points.mul(255).round().div(255))).cpu()
        left = (now != said[rows]) & (now >= 0)
        second[rows[left]], far[rows[left]], near[rows[~left]] = now[left], at[left], at[~left]
        if turn == 0:
            rows = rows[left]
        if len(rows) == 0:
            break
    return second
