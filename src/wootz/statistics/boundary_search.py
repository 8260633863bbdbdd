"""Search for the decision boundaries of suspects that return labels only, along paths out of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from wootz.statistics.queries import query_labels, to_labels
from wootz.types import Predict

PathEnds: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Images [N, C, H, W] in [0, 1] and one class per image [N] -> the end of each image's path, [N, C, H, W] in [0, 1]."""

BATCH = 250
"""The number of paths that are searched at once."""


class BoundarySearch(NamedTuple):
    """The paths along which a suspect is queried.

    Attributes:
        untargeted: The ends of paths that leave the given classes.
        targeted: The ends of paths that lead to the given classes.
        pairwise: The ends of short paths that lead to one of two classes of about equal probability.
        guide: The model whose classes the untargeted paths leave.
        grid: The grid points of an untargeted path, as rising fractions of its length.
        queries: The maximal number of queries per mark.
    """

    untargeted: PathEnds
    targeted: PathEnds
    pairwise: PathEnds
    guide: Predict
    grid: Sequence[float]
    queries: int


class Bisection(NamedTuple):
    """The decision boundaries on n paths with S grid points each.

    Attributes:
        steps: The first grid point at which the answer was found changed, int64 [n]; S if it did not change, -1 if an
            answer was missing or the queries were used up.
        answers: The label there, int64 [n].
        points: The image there, uint8 [n, C, H, W].
        queries: The number of queries spent.
    """

    steps: Tensor
    answers: Tensor
    points: Tensor
    queries: int


class Crossings(NamedTuple):
    """The m images whose class a suspect left along their path.

    Attributes:
        rows: The row of each image, int64 [m].
        steps: The grid point at which its class was left, int64 [m].
        answers: The label there, int64 [m].
        points: The image there, uint8 [m, C, H, W].
        queries: The number of queries spent, including those on images whose class was not left.
    """

    rows: Tensor
    steps: Tensor
    answers: Tensor
    points: Tensor
    queries: int


def bisect_boundary(
    predict: Predict,
    x: Tensor,
    ends: Tensor,
    grid: Sequence[float],
    changed: Callable[[Tensor, Tensor], Tensor],
    queries: int,
) -> Bisection:
    """Bisect the grid of each path until the answer is changed at one grid point and unchanged at the one before.

    With S grid points an image costs at most ceil(log2(S + 1)) queries. Queried images have whole gray levels. If the
    answer changes more than once along a path, one of the changes is found.

    Args:
        predict: The suspect.
        x: The starts of n paths, [n, C, H, W] in [0, 1].
        ends: The ends of the paths, in the same format.
        grid: The grid points, as rising fractions of a path.
        changed: A function from rows int64 [m] and their labels int64 [m] to whether each label is a change, bool [m].
        queries: The maximal number of queries.
    """
    count, fractions = len(x), x.new_tensor(grid)
    low, high = torch.full((count,), -1), torch.full((count,), len(fractions))
    answers, stopped, left = torch.full((count,), -1), torch.zeros(count, dtype=torch.bool), queries

    def points_at(rows: Tensor, step: Tensor) -> Tensor:
        fraction = fractions[step].view(-1, *[1] * (x.dim() - 1))
        return (x[rows] + fraction * (ends[rows] - x[rows])).mul_(255).round_().to(torch.uint8)

    while len(rows := ((high - low > 1) & ~stopped).nonzero().flatten()):
        stopped[rows[left:]] = True
        rows = rows[:left]
        middle = (low[rows] + high[rows]) // 2
        labels = query_labels(predict, points_at(rows, middle)).cpu() if len(rows) else rows
        left -= len(rows)
        beyond = changed(rows, labels)
        low[rows], high[rows] = torch.where(beyond, low[rows], middle), torch.where(beyond, middle, high[rows])
        answers[rows] = torch.where(beyond, labels, answers[rows])
        stopped[rows] |= labels < 0
    points = points_at(torch.arange(count), high.clamp_max(len(fractions) - 1))
    return Bisection(high.masked_fill(stopped, -1), answers, points, queries - left)


def find_crossings(predict: Predict, pixels: Tensor, y: Tensor, boundary_search: BoundarySearch) -> Crossings:
    """Search the untargeted paths of images, in order, until all are searched or the queries are used up.

    Images whose class the guide itself leaves by the second grid point are skipped: the class beyond such an early
    boundary is common to all models. The queried points depend on no key, so a test that is exact for any answers is
    exact for these.

    Args:
        predict: The suspect.
        pixels: The images, uint8 [N, C, H, W].
        y: Their classes, int64 [N].
        boundary_search: The paths and the number of queries.
    """
    crossings: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    left, early = boundary_search.queries, boundary_search.grid[:2][-1]
    for rows in torch.arange(len(pixels)).split(BATCH):
        if left <= 0:
            break
        x = pixels[rows].float().div_(255)
        ends = boundary_search.untargeted(x, y[rows])
        stable = to_labels(boundary_search.guide(x + early * (ends - x))).cpu() == y[rows]
        rows, x, ends = rows[stable], x[stable], ends[stable]

        def left_class(now: Tensor, labels: Tensor, classes: Tensor = y[rows]) -> Tensor:
            return labels != classes[now]

        bisection = bisect_boundary(predict, x, ends, boundary_search.grid, left_class, left)
        left -= bisection.queries
        crossed = (bisection.steps >= 0) & (bisection.steps < len(boundary_search.grid))
        crossings.append(
            (rows[crossed], bisection.steps[crossed], bisection.answers[crossed], bisection.points[crossed])
        )
    if not crossings:
        empty = torch.empty(0, dtype=torch.int64)
        return Crossings(empty, empty, empty, pixels[:0], 0)
    row, step, answer, point = (torch.cat(parts) for parts in zip(*crossings, strict=True))
    return Crossings(row, step, answer, point, boundary_search.queries - left)
