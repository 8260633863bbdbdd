"""Which of two classes a suspect leans to, where a guarded service showed the one of them that its key preferred."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.special import ndtri
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from wootz.ownership import OrderKey
from wootz.types import Predict
from wootz.verify.answers import ask, to_log_scores, top_one
from wootz.verify.regression import unexplained

_CLASS_PENALTY = 4.0  # images' worth of doubt that a class is liked for itself


def leanings(key: OrderKey, answers: Tensor, *, by_scores: bool) -> Tensor:
    """Return how far a suspect leans to the second class and away from the first, float64 [n], NaN where unanswered.

    By scores, the difference of its log-scores; by labels 1 for the second, -1 for the first, 0 for another class.
    """
    first, second = key.first[: len(answers)], key.second[: len(answers)]
    if by_scores:
        scores = to_log_scores(answers)
        return (scores.gather(1, second[:, None]) - scores.gather(1, first[:, None])).flatten()
    said = top_one(answers)
    return ((said == second).double() - (said == first).double()).masked_fill(said < 0, torch.nan)


def unforeseen(key: OrderKey, leaning: Tensor, panel: Sequence[Predict]) -> Tensor:
    """Return what a suspect's leanings [n] are less what follows without the key; NaN where unanswered.

    Less their regression on the panel's leanings by scores, on a constant (the first class is the served model's own),
    and on how much each class is liked for itself. Which class was shown has no part in it.
    """
    count = len(leaning)
    pixels, first, second = key.pixels[:count], key.first[:count], key.second[:count]
    liked = F.one_hot(second, key.num_classes) - F.one_hot(first, key.num_classes)
    others = [leanings(key, ask(member, pixels), by_scores=True)[:, None] for member in panel]
    known = torch.cat([torch.ones(count, 1, dtype=torch.float64), *others, liked.double()], 1)
    doubt = torch.tensor([1e-9] * (1 + len(others)) + [_CLASS_PENALTY] * key.num_classes, dtype=torch.float64)
    rows = ~leaning.isnan()
    found = torch.full_like(leaning, torch.nan)
    found[rows] = unexplained(leaning[rows], known[rows], doubt)
    return found


def votes(unforeseen: Tensor) -> list[int]:
    """Return how much each image counts [n]: normal scores (van der Waerden) of the absolute values, in tenths.

    An image that was not answered counts as much as the median one, and can only be lost.
    """
    sizes = unforeseen.abs().nan_to_num(float(unforeseen.abs().nanmedian().nan_to_num(1.0)))
    ranks = rankdata(sizes.numpy())
    return [round(10 * float(ndtri(0.5 + rank / (2 * len(ranks) + 2)))) for rank in ranks]
