"""Measure which of two classes a suspect prefers, on images for which a guarded service's key preferred one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.special import ndtri
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from wootz.keys import PreferenceKey
from wootz.statistics.boundary_search import BATCH, BoundarySearch, bisect_boundary
from wootz.statistics.queries import SuspectAccess, query, to_labels, to_log_scores
from wootz.statistics.regression import CLASS_PENALTY, residuals
from wootz.types import Predict

_GRID = tuple(part / 8 for part in range(1, 9))  # fractions of a path towards the class of the pair not answered
_MEDIUM = 4.5  # the distance of an image whose path was not searched to the end, in grid points


class PreferenceAnswers(NamedTuple):
    """A suspect's answers to logged images.

    Attributes:
        labels: The labels int64 [n], -1 for a missing answer.
        preferences: How strongly the suspect prefers the second class to the first, float64 [n]; NaN for a missing
            answer.
        queries: The number of queries spent.
    """

    labels: Tensor
    preferences: Tensor
    queries: int


def query_preferences(key: PreferenceKey, predict: Predict, access: SuspectAccess) -> PreferenceAnswers:
    """Query a suspect about the images of a log.

    From scores, the preference is the difference of the log-scores of the second and the first class. From labels, it
    is 1 for the second class, -1 for the first, and 0 for any other. With boundary search, its magnitude is the step
    (of 8) at which the label changes. It is positive if the suspect answered the second class and was moved towards the
    first, negative if it did not and was moved towards the second. An image whose path was not searched to the end has
    a medium magnitude.
    """
    answers = query(predict, key.pixels[: access.budget])
    first, second, labels = key.first[: len(answers)], key.second[: len(answers)], to_labels(answers).cpu()
    if access.level != "label":
        scores = to_log_scores(answers)
        differences = (scores.gather(1, second[:, None]) - scores.gather(1, first[:, None])).flatten()
        return PreferenceAnswers(labels, differences, len(labels))
    if access.boundary_queries is not None:
        distances, spent = _boundary_distances(key, predict, labels, access.boundary_queries)
        return PreferenceAnswers(labels, distances, len(labels) + spent)
    signs = ((labels == second).double() - (labels == first).double()).masked_fill(labels < 0, torch.nan)
    return PreferenceAnswers(labels, signs, len(labels))


def _boundary_distances(
    key: PreferenceKey, predict: Predict, labels: Tensor, boundary_search: BoundarySearch
) -> tuple[Tensor, int]:
    """Return the signed steps float64 [n] at which the labels change, and the number of queries spent."""
    spent, distances = 0, torch.full((len(labels),), torch.nan, dtype=torch.float64)
    for rows in (labels >= 0).nonzero().flatten().split(BATCH):
        second, to_second = key.second[rows], labels[rows] != key.second[rows]
        x = key.pixels[rows].float().div_(255)
        ends = boundary_search.pairwise(x, torch.where(to_second, second, key.first[rows]))

        def changed(now: Tensor, labels: Tensor, second: Tensor = second, to_second: Tensor = to_second) -> Tensor:
            return (labels == second[now]) == to_second[now]

        bisection = bisect_boundary(predict, x, ends, _GRID, changed, boundary_search.queries - spent)
        spent += bisection.queries
        length = torch.where(bisection.steps < 0, _MEDIUM, bisection.steps + 1.0).double()
        distances[rows] = torch.where(to_second, -length, length)
    return distances, spent


def preference_residuals(key: PreferenceKey, preferences: Tensor, panel: Sequence[Predict]) -> Tensor:
    """Return the residuals [n] of a suspect's preferences [n]; NaN for a missing answer.

    The regressors are the preferences of the panel models by scores, a constant (the first class is the served model's
    own answer), and a bias per class. The key's coins are not used.
    """
    count = len(preferences)
    first, second = key.first[:count], key.second[:count]
    classes, numbers = torch.cat([first, second]).unique(return_inverse=True)
    biases = max(1, len(classes))
    class_indicators = F.one_hot(numbers[count:], biases) - F.one_hot(numbers[:count], biases)
    others = [query_preferences(key, model, SuspectAccess(budget=count)).preferences[:, None] for model in panel]
    regressors = torch.cat([torch.ones(count, 1, dtype=torch.float64), *others, class_indicators.double()], 1)
    penalty = torch.tensor([1e-9] * (1 + len(others)) + [CLASS_PENALTY] * biases, dtype=torch.float64)
    rows = ~preferences.isnan()
    result = torch.full_like(preferences, torch.nan)
    result[rows] = residuals(preferences[rows], regressors[rows], penalty)
    return result


def rank_weights(preference_residuals: Tensor) -> list[int]:
    """Return the weight of each image [n]: van der Waerden scores of the absolute residuals, times 10, rounded.

    An image that was not answered has the weight of the median one, and never agrees with the key.
    """
    sizes = preference_residuals.abs()
    sizes = sizes.nan_to_num(float(sizes.nanmedian().nan_to_num(1.0)))
    ranks = rankdata(sizes.numpy())
    return [round(10 * float(ndtri(0.5 + rank / (2 * len(ranks) + 2)))) for rank in ranks]
