"""Suspects that show labels only: walk away from a class, and see which one comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from wootz.types import Predict
from wootz.verify.answers import labels_of

Away: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Images [N, C, H, W] in [0, 1] and their classes [N] -> where a walk away from these classes ends, [N, C, H, W]."""

_TOGETHER = 250  # images that walk side by side


class Ways(NamedTuple):
    """Where suspects are asked.

    Attributes:
        away: where ways end.
        stops: parts of a way, rising, at which a suspect is asked until its answer is another class.
        queries: at most, over all images.
    """

    away: Away
    stops: Sequence[float]
    queries: int


class Crossings(NamedTuple):
    """Where a suspect left the classes of m images.

    Attributes:
        rows: which images, int64 [m].
        stops: at which stop of their ways, int64 [m].
        answers: what it said there, int64 [m].
        points: what it was asked there, uint8 [m, C, H, W].
        queries: spent, on these images and on those whose class it did not leave.
    """

    rows: Tensor
    stops: Tensor
    answers: Tensor
    points: Tensor
    queries: int


def follow(predict: Predict, pixels: Tensor, y: Tensor, ways: Ways) -> Crossings:
    """Walk images away from their classes, in order, until all have been or no query is left.

    An image whose answer is missing at a stop is left alone from there on. Points are whole gray levels. Nothing in
    them depends on a key unless the suspect's answers do: a test that is exact for whatever answers is exact for these.

    Args:
        predict: the suspect.
        pixels: images uint8 [N, C, H, W].
        y: their classes int64 [N].
        ways: away from them.
    """
    met: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    left = ways.queries
    for rows in torch.arange(len(pixels)).split(_TOGETHER):
        if left <= 0:
            break
        x = pixels[rows].float().div_(255)
        way = ways.away(x, y[rows]) - x
        for number, part in enumerate(ways.stops):
            rows, x, way = rows[:left], x[:left], way[:left]
            points = (x + part * way).mul_(255).round_().to(torch.uint8)
            if len(points) == 0:
                break
            said = labels_of(predict, points).cpu()
            left -= len(points)
            crossed, still = (said != y[rows]) & (said >= 0), said == y[rows]
            met.append((rows[crossed], torch.full_like(rows[crossed], number), said[crossed], points[crossed]))
            rows, x, way = rows[still], x[still], way[still]
    if not met:
        none = torch.empty(0, dtype=torch.int64)
        return Crossings(none, none, none, pixels[:0], 0)
    row, stop, answer, point = (torch.cat(parts) for parts in zip(*met, strict=True))
    return Crossings(row, stop, answer, point, ways.queries - left)
