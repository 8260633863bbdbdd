"""Where a suspect's opinions of the wrong classes lean, read from its scores or from walks away from its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz.ownership import DirectionKey
from wootz.types import Predict
from wootz.verify.answers import labels_of, log_scores
from wootz.verify.regression import unexplained
from wootz.verify.walks import Ways, follow
from wootz.verify.wrong_classes import wrong_class_scores

_LOOK = 100  # images that a walked suspect is asked as they are, to see whether it knows them at all
_RARE = -10.0  # a log-share below this says no more than this


class Leaning(NamedTuple):
    """Where a suspect leans.

    Attributes:
        v: covariance of what it shows of class k, on images of class y, with their features, float64 [K, K, d];
            centered over the wrong classes k of each y.
        probes: images that went into it.
        queries: spent.
        accuracy: on ordinary images.
    """

    v: Tensor
    probes: int
    queries: int
    accuracy: float


def leaning_by_scores(key: DirectionKey, predict: Predict, panel: Sequence[Predict], count: int) -> Leaning:
    """Ask for the scores of the first `count` probes; the keyed direction itself is not used.

    What is shown of the wrong classes are an image's log-scores, centered and of length 1: how sure the suspect is as a
    whole says nothing.
    """
    pixels, y = key.probes[:count], key.probe_labels[:count]
    scores = log_scores(predict, pixels)
    answered = ~scores.isnan().any(1)
    shown = _unit(wrong_class_scores(scores, y))
    known = [_unit(wrong_class_scores(log_scores(member, pixels), y)) for member in panel]
    constant = torch.ones_like(shown)
    v = _covariance(key, pixels[answered], y[answered], shown[answered], torch.stack([constant, *known], 2)[answered])
    return Leaning(v, count, count, float(((scores.argmax(1) == y) & answered).float().mean()))


def leaning_by_walks(key: DirectionKey, predict: Predict, panel: Sequence[Predict], ways: Ways) -> Leaning:
    """Ask for labels along ways from the probes; the keyed direction itself is not used.

    What is shown of the wrong classes is 1 for the one that comes next and 0 for the others. What is known: at which
    stop, and what share of the wrong classes' probability each panel model gives to each of them at that very point,
    and its logarithm.
    """
    look = min(_LOOK, ways.queries)
    accuracy = float((labels_of(predict, key.probes[:look]) == key.probe_labels[:look]).float().mean())
    met = follow(predict, key.probes, key.probe_labels, ways._replace(queries=ways.queries - look))
    y = key.probe_labels[met.rows]
    shown = F.one_hot(met.answers, key.num_classes).double()
    stops = F.one_hot(met.stops, len(ways.stops)).double()
    known = [stops[:, None].expand(-1, key.num_classes, -1)]
    for member in panel if len(y) else ():
        scores = log_scores(member, met.points).scatter(1, y[:, None], -torch.inf)
        known += [scores.softmax(1)[..., None], scores.log_softmax(1).clamp_min(_RARE)[..., None]]
    v = _covariance(key, key.probes[met.rows], y, shown, torch.cat(known, 2))
    return Leaning(v, len(y), look + met.queries, accuracy)


def _unit(scores: Tensor) -> Tensor:
    unit: Tensor = scores / scores.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return unit


def _covariance(key: DirectionKey, pixels: Tensor, y: Tensor, shown: Tensor, known: Tensor) -> Tensor:
    """Return the covariance with features of what is shown [n, K] less its regression on what is known [n, K, m]."""
    z = key.features(pixels.float().div_(255), y).double()
    v = torch.zeros(key.direction.shape, dtype=torch.float64)
    for own in y.unique().tolist():
        rows = y == own
        far = z[rows] - z[rows].mean(0)
        for k in range(key.num_classes):
            if k != own:
                v[own, k] = unexplained(shown[rows, k], known[rows, k]) @ far
    return _centered(_evened(_centered(v)))


def _evened(v: Tensor) -> Tensor:
    """Divide each row v[y, k] by the root of its length.

    What natural structure the panel does not know gathers in few pairs of classes; so it drowns the others less.
    """
    even: Tensor = v / v.norm(dim=2, keepdim=True).clamp_min(1e-12).sqrt()
    return even


def _centered(v: Tensor) -> Tensor:
    """Take away the mean over the wrong classes k of each y, and keep k = y at zero."""
    wrong = 1 - torch.eye(len(v), dtype=v.dtype).unsqueeze(2)
    return (v - (v * wrong).sum(1, keepdim=True) / (len(v) - 1)) * wrong
