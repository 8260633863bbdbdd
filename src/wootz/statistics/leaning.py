"""Where a suspect's opinions of the wrong classes lean, read from its scores or from walks away from its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz.keys import DirectionKey
from wootz.statistics.answers import labels_of, log_scores
from wootz.statistics.boundary_search import BoundarySearch, follow
from wootz.statistics.reach import Reach
from wootz.statistics.regression import slope, unexplained
from wootz.statistics.wrong_classes import unit_scores
from wootz.types import Predict

_LOOK = 100  # images that a walked suspect is asked as they are, to see whether it knows them at all
_RARE = -10.0  # a log-share below this says no more than this
_DOUBT = 2.0  # of slopes by scores, for each probe: what models have in common by nature does not shrink with probes
_DOUBT_OF_LABELS = 200.0  # of slopes by labels
_ROUNDING = 1e-6  # what is left of less than this share of what was shown is rounding
_TOGETHER = 1 << 23  # features of regressions that are solved at once


class Leaning(NamedTuple):
    """Where a suspect leans.

    Attributes:
        v: slopes of what it shows of class k, on images of class y, along their features, float64 [K, K, d]; centered
            over the wrong classes k of each y.
        probes: images that went into it.
        queries: spent.
        known: how the suspect answered ordinary images.
    """

    v: Tensor
    probes: int
    queries: int
    known: Answered


class Answered(NamedTuple):
    """How many ordinary images were asked as they are, how many of these were answered, and how many rightly."""

    asked: int
    answered: int
    right: int

    @property
    def accuracy(self) -> float:
        """Share of the answered images that were answered rightly, 0 where none was answered."""
        return self.right / max(1, self.answered)


def leaning(key: DirectionKey, predict: Predict, panel: Sequence[Predict], reach: Reach) -> Leaning | None:
    """Ask a suspect about probes, by scores or by walks; None where neither is to be had.

    The keyed direction itself is not used.
    """
    if reach.boundary_queries is not None:
        return _by_walks(key, predict, panel, reach.boundary_queries)
    return None if reach.access == "label" else _by_scores(key, predict, panel, reach.budget)


def _by_scores(key: DirectionKey, predict: Predict, panel: Sequence[Predict], budget: int | None) -> Leaning:
    """Ask for the scores of the first probes.

    What is shown of the wrong classes are an image's log-scores, centered and of length 1: how sure the suspect is as a
    whole says nothing.
    """
    pixels, y = key.probes[:budget], key.probe_labels[:budget]
    scores = log_scores(predict, pixels)
    answered = ~scores.isnan().any(1)
    shown = unit_scores(scores, y)
    members = [unit_scores(log_scores(member, pixels), y) for member in panel]
    known = torch.stack([torch.ones_like(shown), *members], 2)
    v = _slopes(key, pixels[answered], y[answered], shown[answered], known[answered], labels=False)
    right = int((scores.argmax(1) == y)[answered].sum())
    return Leaning(v, len(y), len(y), Answered(len(y), int(answered.sum()), right))


def _by_walks(
    key: DirectionKey, predict: Predict, panel: Sequence[Predict], boundary_search: BoundarySearch
) -> Leaning:
    """Ask for labels along ways from the probes.

    What is shown of the wrong classes is 1 for the one that comes next and 0 for the others. What is known: at which
    stop, and what share of the wrong classes' probability each panel model gives to each of them at that very point,
    and its logarithm.
    """
    look = min(_LOOK, boundary_search.queries)
    said = labels_of(predict, key.probes[:look])
    ordinary = Answered(look, int((said >= 0).sum()), int((said == key.probe_labels[:look]).sum()))
    met = follow(
        predict, key.probes, key.probe_labels, boundary_search._replace(queries=boundary_search.queries - look)
    )
    y = key.probe_labels[met.rows]
    shown = F.one_hot(met.answers, key.num_classes).double()
    stops = F.one_hot(met.stops, len(boundary_search.stops)).double()
    known = [stops[:, None].expand(-1, key.num_classes, -1)]
    for member in panel if len(y) else ():
        scores = log_scores(member, met.points).scatter(1, y[:, None], -torch.inf)
        known += [scores.softmax(1)[..., None], scores.log_softmax(1).clamp_min(_RARE)[..., None]]
    v = _slopes(key, key.probes[met.rows], y, shown, torch.cat(known, 2), labels=True)
    return Leaning(v, len(y), look + met.queries, ordinary)


def _slopes(key: DirectionKey, pixels: Tensor, y: Tensor, shown: Tensor, known: Tensor, *, labels: bool) -> Tensor:
    """Return the slopes along features of what is shown [n, K], beside what is known [n, K, m].

    A label is worth p (1 - p) of a score where its regression on what is known says p: next to nothing where everybody
    says the same. Slopes are 0 where what is known leaves nothing but rounding, as of a suspect that shows the same of
    all images.
    """
    z = key.features(pixels.float().div_(255), y).double()
    v = torch.zeros(key.direction.shape, dtype=torch.float64)
    classes = torch.arange(key.num_classes)
    for own in y.unique().tolist():
        rows = y == own
        size = int(rows.sum()) * (z.shape[1] + known.shape[2])
        for k in classes[classes != own].split(max(1, _TOGETHER // size)):
            told, beside = shown[rows][:, k].T, known[rows][:, k].transpose(0, 1)
            v[own, k] = _slopes_of(told, z[rows], beside, labels=labels)
    return _centered(_evened(_centered(v)))


def _slopes_of(told: Tensor, z: Tensor, known: Tensor, *, labels: bool) -> Tensor:
    """Return the slopes [k, d] of what is shown of k classes [k, n], beside what is known [k, n, m], along z [n, d]."""
    both = unexplained(torch.cat([told[..., None], z.expand(len(told), -1, -1)], 2), known)
    left, far = both[..., 0], both[..., 1:]
    chance = (told - left).clamp(0.002, 0.998)
    weights = chance * (1 - chance) if labels else torch.ones_like(chance)
    something = left.norm(dim=1) > _ROUNDING * told.norm(dim=1)
    slopes = slope(left, far, weights, _DOUBT_OF_LABELS if labels else _DOUBT * len(z))
    return slopes.masked_fill(~something[:, None], 0.0)


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
