"""Measure the rank of each keyed label among the wrong classes of its image, from scores or decision boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wootz.keys import LabelKey
from wootz.statistics.boundary_search import BATCH, BoundarySearch, bisect_boundary
from wootz.statistics.queries import SuspectAccess, query, query_log_scores, to_labels, to_log_scores
from wootz.statistics.regression import class_score_residuals
from wootz.types import Predict

_GRID = tuple(part / 7 for part in range(1, 8))  # fractions of a path towards a wrong class
_QUERIES_PER_PATH = len(_GRID).bit_length()  # to bisect it


class WrongClassAnswers(NamedTuple):
    """A suspect's answers to images with keyed labels.

    Attributes:
        labels: The labels int64 [n], -1 for a missing answer.
        scores: The scores of the wrong classes float64 [n, K], centered over them and of norm 1, 0 at the base class;
            NaN for a missing answer; None if only the labels are used.
        queries: The number of queries spent.
    """

    labels: Tensor
    scores: Tensor | None
    queries: int


def wrong_class_scores(scores: Tensor, y: Tensor) -> Tensor:
    """Return log-scores [N, K] centered over the wrong classes of each row, and 0 at the true class y [N]."""
    own = torch.zeros_like(scores).scatter_(1, y[:, None], 1.0)
    wrong = scores * (1 - own)
    return (wrong - wrong.sum(1, keepdim=True) / (scores.shape[1] - 1)) * (1 - own)


def unit_scores(scores: Tensor, y: Tensor) -> Tensor:
    """Return `wrong_class_scores` with rows of norm 1, so that the confidence of a suspect does not matter."""
    wrong = wrong_class_scores(scores, y)
    unit: Tensor = wrong / wrong.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return unit


def ranks_available(key: LabelKey, access: SuspectAccess) -> bool:
    """Return whether keyed labels exclude the base class, and scores or boundary search show ranks of wrong classes."""
    by_boundaries = access.boundary_queries is not None and not key.logged
    return key.rule == "wrong" and (access.level != "label" or by_boundaries)


def query_wrong_classes(key: LabelKey, predict: Predict, access: SuspectAccess) -> WrongClassAnswers:
    """Query a suspect about images with keyed labels.

    If ranks are not available (uniform labels, or label-only answers despite access to scores), return labels only.
    From scores, the score of a wrong class is its log-score. With boundary search, it is minus the step (of 7) on the
    path towards that class at which the suspect answers with it; if too few queries are left for all wrong classes of
    an image, its label alone counts. Boundary search is not used for a service's log, of which an extracted model
    learned the answers only.
    """
    answers = query(predict, key.pixels[: access.budget])
    base, labels = key.base[: len(answers)], to_labels(answers).cpu()
    if not ranks_available(key, access) or (access.boundary_queries is None and answers.dim() == 1):
        return WrongClassAnswers(labels, None, len(labels))
    if access.boundary_queries is None:
        return WrongClassAnswers(labels, unit_scores(to_log_scores(answers), base), len(labels))
    distances, spent = _boundary_distances(key, predict, labels, access.boundary_queries)
    return WrongClassAnswers(labels, unit_scores(-distances, base), len(labels) + spent)


def keyed_label_ranks(key: LabelKey, scores: Tensor, panel: Sequence[Predict]) -> Tensor:
    """Return the rank int64 [n] of each keyed label among the K - 1 wrong classes, from 0, by residual scores [n, K].

    The scores are those of `query_wrong_classes`. They do not depend on which class is keyed unless the suspect does,
    so each rank is uniform under the null. A missing answer has the last rank.
    """
    left = wrong_class_residuals(key, scores, panel)
    count, keyed = len(left), key.labels[: len(left)]
    own = left.gather(1, keyed[:, None])
    before = (left > own) | ((left == own) & (torch.arange(key.num_classes) < keyed[:, None]))
    ranks = (before & (torch.arange(key.num_classes) != key.base[:count, None])).sum(1)
    return ranks.masked_fill(left.isnan().any(1), key.num_classes - 2)


def wrong_class_residuals(key: LabelKey, scores: Tensor, panel: Sequence[Predict]) -> Tensor:
    """Return the residuals of a suspect's wrong-class scores [n, K] after a regression; NaN for a missing answer.

    The regressors are the wrong-class scores of the panel models and a bias per class.
    """
    base = key.base[: len(scores)]
    answered = ~scores.isnan().any(1)
    others = [unit_scores(query_log_scores(model, key.pixels[: len(scores)]), base)[answered] for model in panel]
    regressors = torch.stack(others, 2) if others else scores.new_empty(int(answered.sum()), key.num_classes, 0)
    counted = torch.arange(key.num_classes) != base[answered, None]
    result = torch.full_like(scores, torch.nan)
    result[answered] = class_score_residuals(scores[answered], regressors, counted)
    return result


def savage_scores(count: int) -> list[int]:
    """Return the Savage scores of ranks 0 to count - 1, times 100, rounded.

    They are the expected order statistics of exponential variables, optimal against a suspect in which the keyed class
    has become more likely (Savage 1956).
    """
    parts = 100 / np.arange(count, 0, -1)
    return [round(score) for score in reversed(parts.cumsum().tolist())]


def _boundary_distances(
    key: LabelKey, predict: Predict, labels: Tensor, boundary_search: BoundarySearch
) -> tuple[Tensor, int]:
    """Return the distance to each class float64 [n, K], in grid steps, NaN if unanswered, and the queries spent.

    It is 0 for the answered class, and one more than the number of grid points for a class that is not reached.
    """
    count, not_reached = len(labels), float(len(_GRID) + 1)
    distances = torch.full((count, key.num_classes), not_reached, dtype=torch.float64)
    searched = min(count, boundary_search.queries // (_QUERIES_PER_PATH * (key.num_classes - 1)))
    spent = 0
    for rows in torch.arange(searched).split(BATCH):
        x, base = key.pixels[rows].float().div_(255), key.base[rows]
        for step in range(1, key.num_classes):
            target = (base + step) % key.num_classes

            def reached(now: Tensor, labels: Tensor, target: Tensor = target) -> Tensor:
                return labels == target[now]

            bisection = bisect_boundary(
                predict, x, boundary_search.targeted(x, target), _GRID, reached, boundary_search.queries - spent
            )
            spent += bisection.queries
            distance = torch.where(bisection.steps < 0, not_reached, bisection.steps + 1.0)
            distances[rows, target] = distance.double()
    distances[labels >= 0, labels[labels >= 0]] = 0.0
    distances[labels < 0] = torch.nan
    return distances, spent
