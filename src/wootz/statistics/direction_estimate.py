"""Estimate how a suspect's wrong-class scores depend on image features, from scores or from decision boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz.keys import DirectionKey
from wootz.statistics.boundary_search import BoundarySearch, find_crossings
from wootz.statistics.queries import OrdinaryAnswers, SuspectAccess, query_labels, query_log_scores
from wootz.statistics.regression import residuals, ridge_coefficients
from wootz.statistics.wrong_class_ranks import unit_scores
from wootz.types import Predict

_PLAIN_QUERIES = 100  # probes that are queried unchanged before a boundary search, to measure the accuracy
_MIN_LOG_SHARE = -10.0  # smaller log-shares of probability are clamped
_SCORE_PENALTY = 2.0  # ridge penalty per probe: natural correlations do not shrink with the sample size
_LABEL_PENALTY = 200.0  # ridge penalty of regressions of labels
_ROUNDING = 1e-6  # residuals below this fraction of the target are rounding errors
_MAX_FEATURES = 1 << 23  # features of the regressions that are solved at once


class DirectionEstimate(NamedTuple):
    """An estimate of the direction that a suspect carries.

    Attributes:
        v: The coefficients, for images of class y, of the target of wrong class k on their features, float64 [C, C, d]
            (y, k, feature), of the C classes that the key covers; centered over the wrong classes k of each y.
        probes: The number of images that the regressions used.
        queries: The number of queries spent.
        ordinary: How the suspect answered ordinary images.
    """

    v: Tensor
    probes: int
    queries: int
    ordinary: OrdinaryAnswers


def estimate_direction(
    key: DirectionKey, predict: Predict, panel: Sequence[Predict], access: SuspectAccess
) -> DirectionEstimate | None:
    """Query a suspect about the probes, for scores or by boundary search; None if only plain labels are available.

    The keyed direction itself is not used.
    """
    if access.boundary_queries is not None:
        return _from_boundaries(key, predict, panel, access.boundary_queries)
    return None if access.level == "label" else _from_scores(key, predict, panel, access.budget)


def _from_scores(
    key: DirectionKey, predict: Predict, panel: Sequence[Predict], budget: int | None
) -> DirectionEstimate:
    """Regress the log-scores of the first probes, centered over the wrong classes and of norm 1."""
    pixels, labels = key.probes[:budget], key.probe_labels[:budget]
    scores, y = query_log_scores(predict, pixels), key.places(labels)
    answered = ~scores.isnan().any(1)
    target = unit_scores(key.columns(scores), y)
    others = [unit_scores(key.columns(query_log_scores(model, pixels)), y) for model in panel]
    regressors = torch.stack([torch.ones_like(target), *others], 2)
    v = _coefficients(key, pixels[answered], y[answered], target[answered], regressors[answered], labels=False)
    correct = int((scores.argmax(1) == labels)[answered].sum())
    return DirectionEstimate(v, len(y), len(y), OrdinaryAnswers(len(y), int(answered.sum()), correct))


def _from_boundaries(
    key: DirectionKey, predict: Predict, panel: Sequence[Predict], boundary_search: BoundarySearch
) -> DirectionEstimate:
    """Regress the labels beyond the decision boundaries on untargeted paths from the probes.

    The target is 1 for the wrong class that is answered there and 0 for the others; a boundary to a class that the key
    does not cover is left out. The regressors are the grid point,
    and for each panel model the share of the wrong classes' probability that it gives each class at that point, and its
    logarithm.
    """
    plain = min(_PLAIN_QUERIES, boundary_search.queries)
    labels = query_labels(predict, key.probes[:plain])
    ordinary = OrdinaryAnswers(plain, int((labels >= 0).sum()), int((labels == key.probe_labels[:plain]).sum()))
    crossings = find_crossings(
        predict, key.probes, key.probe_labels, boundary_search._replace(queries=boundary_search.queries - plain)
    )
    found = key.covers(crossings.answers)
    rows, points = crossings.rows[found], crossings.points[found]
    y = key.places(key.probe_labels[rows])
    target = F.one_hot(key.places(crossings.answers[found]), key.covered).double()
    steps = F.one_hot(crossings.steps[found], len(boundary_search.grid)).double()
    regressors = [steps[:, None].expand(-1, key.covered, -1)]
    for model in panel if len(y) else ():
        scores = key.columns(query_log_scores(model, points)).scatter(1, y[:, None], -torch.inf)
        regressors += [scores.softmax(1)[..., None], scores.log_softmax(1).clamp_min(_MIN_LOG_SHARE)[..., None]]
    v = _coefficients(key, key.probes[rows], y, target, torch.cat(regressors, 2), labels=True)
    return DirectionEstimate(v, len(y), plain + crossings.queries, ordinary)


def _coefficients(
    key: DirectionKey, pixels: Tensor, y: Tensor, target: Tensor, regressors: Tensor, *, labels: bool
) -> Tensor:
    """Return the coefficients [C, C, d] of targets [n, C] on features, beside regressors [n, C, m].

    They are 0 where the regressors leave rounding errors only, as for a suspect that answers all images alike.
    """
    z = key.features(pixels.float().div_(255), y).double()
    v = torch.zeros(key.direction.shape, dtype=torch.float64)
    classes = torch.arange(key.covered)
    for own in y.unique().tolist():
        rows = y == own
        size = int(rows.sum()) * (z.shape[1] + regressors.shape[2])
        for k in classes[classes != own].split(max(1, _MAX_FEATURES // size)):
            v[own, k] = _coefficients_of_classes(
                target[rows][:, k].T, z[rows], regressors[rows][:, k].transpose(0, 1), labels=labels
            )
    return torch.cat([_centered(_balanced(_centered(part))) for part in v.split(key.groups, 2)], 2)


def _coefficients_of_classes(target: Tensor, z: Tensor, regressors: Tensor, *, labels: bool) -> Tensor:
    """Return the coefficients [k, d] of targets [k, n] on features z [n, d], beside regressors [k, n, m].

    A label has the weight p (1 - p), with p its fitted probability: a label that the regressors predict says little.
    """
    both = residuals(torch.cat([target[..., None], z.expand(len(target), -1, -1)], 2), regressors)
    target_residuals, features = both[..., 0], both[..., 1:]
    p = (target - target_residuals).clamp(0.002, 0.998)
    weights = p * (1 - p) if labels else torch.ones_like(p)
    significant = target_residuals.norm(dim=1) > _ROUNDING * target.norm(dim=1)
    penalty = _LABEL_PENALTY if labels else _SCORE_PENALTY * len(z)
    coefficients = ridge_coefficients(target_residuals, features, weights, penalty)
    return coefficients.masked_fill(~significant[:, None], 0.0)


def _balanced(v: Tensor) -> Tensor:
    """Divide each row v[y, k] by the square root of its norm.

    Natural structure that the panel models do not share concentrates on few pairs of classes; this limits its share.
    """
    balanced: Tensor = v / v.norm(dim=2, keepdim=True).clamp_min(1e-12).sqrt()
    return balanced


def _centered(v: Tensor) -> Tensor:
    """Subtract the mean over the wrong classes k of each y, and set k = y to 0."""
    wrong = 1 - torch.eye(len(v), dtype=v.dtype).unsqueeze(2)
    return (v - (v * wrong).sum(1, keepdim=True) / (len(v) - 1)) * wrong
