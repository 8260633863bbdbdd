"""What a suspect thinks of the classes that it does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wootz.keys import LabelKey
from wootz.statistics.answers import ask, log_scores, to_log_scores, top_one
from wootz.statistics.boundary_search import TOGETHER, BoundarySearch, bisect_boundary
from wootz.statistics.reach import Reach
from wootz.statistics.regression import unexplained_scores
from wootz.types import Predict

_RUNGS = tuple(part / 7 for part in range(1, 8))  # parts of a way towards a wrong class
_QUERIES = len(_RUNGS).bit_length()  # for each way, to find a rung by halving


class Opinions(NamedTuple):
    """What a suspect says of images with keyed labels, and what it thinks of their wrong classes.

    Attributes:
        said: its labels int64 [n], -1 where unanswered.
        wrong: float64 [n, K], the higher the likelier, centered over the wrong classes and of length 1, zero at the
            base class; NaN where unanswered; None where only answers count.
        queries: spent.
    """

    said: Tensor
    wrong: Tensor | None
    queries: int


def wrong_class_scores(scores: Tensor, y: Tensor) -> Tensor:
    """Log-scores [N, K] -> the same, centered over the wrong classes of each row and zero at the true one."""
    own = torch.zeros_like(scores).scatter_(1, y[:, None], 1.0)
    wrong = scores * (1 - own)
    return (wrong - wrong.sum(1, keepdim=True) / (scores.shape[1] - 1)) * (1 - own)


def unit_scores(scores: Tensor, y: Tensor) -> Tensor:
    """Return `wrong_class_scores` of length 1 in each row: how sure a suspect is as a whole says nothing."""
    wrong = wrong_class_scores(scores, y)
    unit: Tensor = wrong / wrong.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return unit


def has_places(key: LabelKey, reach: Reach) -> bool:
    """Return whether keyed labels have places among wrong classes, and scores or walks show them."""
    return key.rule == "wrong" and (reach.access != "label" or (reach.boundary_queries is not None and not key.logged))


def opinions(key: LabelKey, predict: Predict, reach: Reach) -> Opinions:
    """Ask a suspect about images with keyed labels.

    Where there are no places to read, or a suspect shows labels only all the same, only answers count. Else its
    opinion of a wrong class is its log-score. By labels and ways, it is by how many sevenths of the way towards
    that class it answers with it; where too few queries are left to walk to all wrong classes of an image, its answer
    is its opinion. A service's log is not walked: there a suspect learned answers, and few of them.
    """
    answers = ask(predict, key.pixels[: reach.budget])
    base, said = key.base[: len(answers)], top_one(answers).cpu()
    if not has_places(key, reach) or (reach.boundary_queries is None and answers.dim() == 1):
        return Opinions(said, None, len(said))
    if reach.boundary_queries is None:
        return Opinions(said, unit_scores(to_log_scores(answers), base), len(said))
    lengths, spent = _lengths(key, predict, said, reach.boundary_queries)
    return Opinions(said, unit_scores(-lengths, base), len(said) + spent)


def places(key: LabelKey, wrong: Tensor, panel: Sequence[Predict]) -> Tensor:
    """Return each keyed class's place int64 [n], from 0, among the K - 1 wrong ones by a suspect's opinions [n, K].

    What the panel's opinions explain, and how much each class is liked for itself, is taken away first. No opinion
    depends on which class is keyed unless the suspect does, so that each place is uniform. An image that was not
    answered counts as the last place.
    """
    left = unforeseen_opinions(key, wrong, panel)
    count, keyed = len(left), key.labels[: len(left)]
    own = left.gather(1, keyed[:, None])
    before = (left > own) | ((left == own) & (torch.arange(key.num_classes) < keyed[:, None]))
    found = (before & (torch.arange(key.num_classes) != key.base[:count, None])).sum(1)
    return found.masked_fill(left.isnan().any(1), key.num_classes - 2)


def unforeseen_opinions(key: LabelKey, wrong: Tensor, panel: Sequence[Predict]) -> Tensor:
    """Return what a suspect's opinions [n, K] are less what follows without the key; NaN where unanswered."""
    base = key.base[: len(wrong)]
    answered = ~wrong.isnan().any(1)
    members = [unit_scores(log_scores(member, key.pixels[: len(wrong)]), base)[answered] for member in panel]
    known = torch.stack(members, 2) if members else wrong.new_empty(int(answered.sum()), key.num_classes, 0)
    counted = torch.arange(key.num_classes) != base[answered, None]
    left = torch.full_like(wrong, torch.nan)
    left[answered] = unexplained_scores(wrong[answered], known, counted)
    return left


def savage(places: int) -> list[int]:
    """Return Savage's scores of the places from the first on, in hundredths: the first says far more than the second.

    They are the expected order statistics of exponential variables, best against a suspect in which the keyed class
    has become more likely (Savage 1956).
    """
    parts = 100 / np.arange(places, 0, -1)
    return [round(score) for score in reversed(parts.cumsum().tolist())]


def _lengths(key: LabelKey, predict: Predict, said: Tensor, boundary_search: BoundarySearch) -> tuple[Tensor, int]:
    """Return how far it is to each class float64 [n, K], in rungs, NaN where unanswered, and the queries spent.

    0 for the class that is answered, one more than there are rungs for one that is not met.
    """
    count, far = len(said), float(len(_RUNGS) + 1)
    lengths = torch.full((count, key.num_classes), far, dtype=torch.float64)
    walked = min(count, boundary_search.queries // (_QUERIES * (key.num_classes - 1)))
    spent = 0
    for rows in torch.arange(walked).split(TOGETHER):
        x, base = key.pixels[rows].float().div_(255), key.base[rows]
        for step in range(1, key.num_classes):
            aim = (base + step) % key.num_classes

            def met(now: Tensor, said: Tensor, aim: Tensor = aim) -> Tensor:
                return said == aim[now]

            found = bisect_boundary(
                predict, x, boundary_search.towards(x, aim), _RUNGS, met, boundary_search.queries - spent
            )
            spent += found.queries
            lengths[rows, aim] = torch.where(found.stops < 0, far, found.stops + 1.0).double()
    lengths[said >= 0, said[said >= 0]] = 0.0
    lengths[said < 0] = torch.nan
    return lengths, spent
