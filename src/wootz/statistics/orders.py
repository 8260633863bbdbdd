"""Which of two classes a suspect leans to, where a guarded service showed the one of them that its key preferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.special import ndtri
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from wootz.keys import PreferenceKey
from wootz.statistics.answers import ask, to_log_scores, top_one
from wootz.statistics.boundary_search import TOGETHER, BoundarySearch, bisect_boundary
from wootz.statistics.reach import Reach
from wootz.statistics.regression import CLASS_PENALTY, unexplained
from wootz.types import Predict

_RUNGS = tuple(part / 8 for part in range(1, 9))  # parts of a way towards the one of two classes that was not answered
_MIDDLING = 4.5


class Leanings(NamedTuple):
    """What a suspect says of logged images, and how far it leans to the second class and away from the first.

    Attributes:
        said: its labels int64 [n], -1 where unanswered.
        far: float64 [n], NaN where unanswered.
        queries: spent.
    """

    said: Tensor
    far: Tensor
    queries: int


def leanings(key: PreferenceKey, predict: Predict, reach: Reach) -> Leanings:
    """Ask a suspect about the images of a log.

    By scores the leaning is the difference of its log-scores; by labels 1 for the second class, -1 for the first, 0
    for another one. Where there are ways, it is how many eighths of a way it takes until an answer turns: above 0
    where that was the second class, on the way towards the first, and below 0 where it was not, on the way towards
    the second. An image whose way was not walked to the end counts as one of middling length.
    """
    answers = ask(predict, key.pixels[: reach.budget])
    first, second, said = key.first[: len(answers)], key.second[: len(answers)], top_one(answers).cpu()
    if reach.access != "label":
        scores = to_log_scores(answers)
        far = (scores.gather(1, second[:, None]) - scores.gather(1, first[:, None])).flatten()
        return Leanings(said, far, len(said))
    if reach.boundary_queries is not None:
        far, spent = _by_ways(key, predict, said, reach.boundary_queries)
        return Leanings(said, far, len(said) + spent)
    far = ((said == second).double() - (said == first).double()).masked_fill(said < 0, torch.nan)
    return Leanings(said, far, len(said))


def _by_ways(key: PreferenceKey, predict: Predict, said: Tensor, boundary_search: BoundarySearch) -> tuple[Tensor, int]:
    """Return how far a suspect leans by where its answers turn, and the queries spent on that."""
    spent, far = 0, torch.full((len(said),), torch.nan, dtype=torch.float64)
    for rows in (said >= 0).nonzero().flatten().split(TOGETHER):
        second, rising = key.second[rows], said[rows] != key.second[rows]
        x = key.pixels[rows].float().div_(255)
        ends = boundary_search.between(x, torch.where(rising, second, key.first[rows]))

        def turned(now: Tensor, said: Tensor, second: Tensor = second, rising: Tensor = rising) -> Tensor:
            return (said == second[now]) == rising[now]

        found = bisect_boundary(predict, x, ends, _RUNGS, turned, boundary_search.queries - spent)
        spent += found.queries
        length = torch.where(found.stops < 0, _MIDDLING, found.stops + 1.0).double()
        far[rows] = torch.where(rising, -length, length)
    return far, spent


def unforeseen(key: PreferenceKey, far: Tensor, panel: Sequence[Predict]) -> Tensor:
    """Return what a suspect's leanings [n] are less what follows without the key; NaN where unanswered.

    Less their regression on the panel's leanings by scores, on a constant (the first class is the served model's own),
    and on how much each class is liked for itself. Which class was shown has no part in it.
    """
    count = len(far)
    first, second = key.first[:count], key.second[:count]
    seen, numbers = torch.cat([first, second]).unique(return_inverse=True)
    kinds = max(1, len(seen))
    liked = F.one_hot(numbers[count:], kinds) - F.one_hot(numbers[:count], kinds)
    others = [leanings(key, member, Reach(budget=count)).far[:, None] for member in panel]
    known = torch.cat([torch.ones(count, 1, dtype=torch.float64), *others, liked.double()], 1)
    doubt = torch.tensor([1e-9] * (1 + len(others)) + [CLASS_PENALTY] * kinds, dtype=torch.float64)
    rows = ~far.isnan()
    found = torch.full_like(far, torch.nan)
    found[rows] = unexplained(far[rows], known[rows], doubt)
    return found


def votes(unforeseen: Tensor) -> list[int]:
    """Return how much each image counts [n]: normal scores (van der Waerden) of the absolute values, in tenths.

    An image that was not answered counts as much as the median one, and can only be lost.
    """
    sizes = unforeseen.abs().nan_to_num(float(unforeseen.abs().nanmedian().nan_to_num(1.0)))
    ranks = rankdata(sizes.numpy())
    return [round(10 * float(ndtri(0.5 + rank / (2 * len(ranks) + 2)))) for rank in ranks]
