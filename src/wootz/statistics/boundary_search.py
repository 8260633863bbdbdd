"""Suspects that show labels only: ask along a way out of an image where their answer changes, and to what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from wootz.statistics.answers import labels_of, top_one
from wootz.types import Predict

PathEnds: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Images [N, C, H, W] in [0, 1] and a class of each [N] -> where ways away from it, or towards it, end, alike."""

TOGETHER = 250  # images that walk side by side


class BoundarySearch(NamedTuple):
    """Where suspects are asked.

    Attributes:
        away: where ways away from classes end.
        towards: where ways towards classes end.
        between: the same for one of two classes that are about as likely: short ways.
        guide: whose classes the ways lead away from.
        stops: parts of a way away, rising, at which a suspect may be asked.
        queries: at most, for each mark.
    """

    away: PathEnds
    towards: PathEnds
    between: PathEnds
    guide: Predict
    stops: Sequence[float]
    queries: int


class Bisection(NamedTuple):
    """Where a suspect's answers changed along n ways.

    Attributes:
        stops: at which stop they were first found changed, int64 [n]; as many as there are stops where they were not,
            -1 where an answer was missing, or queries ran out.
        answers: what was said there, int64 [n].
        points: what was asked there, uint8 [n, C, H, W].
        queries: spent.
    """

    stops: Tensor
    answers: Tensor
    points: Tensor
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


def bisect_boundary(
    predict: Predict,
    x: Tensor,
    ends: Tensor,
    stops: Sequence[float],
    changed: Callable[[Tensor, Tensor], Tensor],
    queries: int,
) -> Bisection:
    """Halve the stops of each way until answers are known to be changed at one and not at the one before.

    With S stops an image costs at most ceil(log2(S + 1)) queries, and one that never changes no more. Points are whole
    gray levels. Where answers change more than once on a way, one of the changes is found.

    Args:
        predict: the suspect.
        x: where n ways begin, [n, C, H, W] in [0, 1].
        ends: where they end, alike.
        stops: parts of a way, rising.
        changed: rows int64 [m] and what the suspect said there int64 [m] -> whether that is a change, bool [m].
        queries: at most.
    """
    count, parts = len(x), x.new_tensor(stops)
    low, high = torch.full((count,), -1), torch.full((count,), len(parts))
    answers, lost, left = torch.full((count,), -1), torch.zeros(count, dtype=torch.bool), queries

    def at(rows: Tensor, stop: Tensor) -> Tensor:
        part = parts[stop].view(-1, *[1] * (x.dim() - 1))
        return (x[rows] + part * (ends[rows] - x[rows])).mul_(255).round_().to(torch.uint8)

    while len(rows := ((high - low > 1) & ~lost).nonzero().flatten()):
        lost[rows[left:]] = True
        rows = rows[:left]
        middle = (low[rows] + high[rows]) // 2
        said = labels_of(predict, at(rows, middle)).cpu() if len(rows) else rows
        left -= len(rows)
        there = changed(rows, said)
        low[rows], high[rows] = torch.where(there, low[rows], middle), torch.where(there, middle, high[rows])
        answers[rows] = torch.where(there, said, answers[rows])
        lost[rows] |= said < 0
    points = at(torch.arange(count), high.clamp_max(len(parts) - 1))
    return Bisection(high.masked_fill(lost, -1), answers, points, queries - left)


def follow(predict: Predict, pixels: Tensor, y: Tensor, boundary_search: BoundarySearch) -> Crossings:
    """Walk images away from their classes, in order, until all have been or no query is left.

    Images whose class the guide leaves itself by the second stop are passed over: what comes next there is what all
    models think, and says little of this one. Nothing in the points depends on a key unless the suspect's answers do:
    a test that is exact for whatever answers is exact for these.

    Args:
        predict: the suspect.
        pixels: images uint8 [N, C, H, W].
        y: their classes int64 [N].
        boundary_search: away from them.
    """
    met: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    left, early = boundary_search.queries, boundary_search.stops[:2][-1]
    for rows in torch.arange(len(pixels)).split(TOGETHER):
        if left <= 0:
            break
        x = pixels[rows].float().div_(255)
        ends = boundary_search.away(x, y[rows])
        kept = top_one(boundary_search.guide(x + early * (ends - x))).cpu() == y[rows]
        rows, x, ends = rows[kept], x[kept], ends[kept]

        def left_it(now: Tensor, said: Tensor, classes: Tensor = y[rows]) -> Tensor:
            return said != classes[now]

        found = bisect_boundary(predict, x, ends, boundary_search.stops, left_it, left)
        left -= found.queries
        there = (found.stops >= 0) & (found.stops < len(boundary_search.stops))
        met.append((rows[there], found.stops[there], found.answers[there], found.points[there]))
    if not met:
        none = torch.empty(0, dtype=torch.int64)
        return Crossings(none, none, none, pixels[:0], 0)
    row, stop, answer, point = (torch.cat(parts) for parts in zip(*met, strict=True))
    return Crossings(row, stop, answer, point, boundary_search.queries - left)
