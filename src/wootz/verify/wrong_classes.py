"""What a suspect thinks of the classes that it does not answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wootz.ownership import LabelKey
from wootz.types import Predict
from wootz.verify.answers import log_scores
from wootz.verify.regression import unexplained


def wrong_class_scores(scores: Tensor, y: Tensor) -> Tensor:
    """Log-scores [N, K] -> the same, centered over the wrong classes of each row and zero at the true one."""
    own = torch.zeros_like(scores).scatter_(1, y[:, None], 1.0)
    wrong = scores * (1 - own)
    return (wrong - wrong.sum(1, keepdim=True) / (scores.shape[1] - 1)) * (1 - own)


def places(key: LabelKey, scores: Tensor, panel: Sequence[Predict]) -> Tensor:
    """Return each keyed class's place int64 [n], from 0, among the K - 1 wrong ones by a suspect's log-scores [n, K].

    What the panel's scores explain is taken away first. No score depends on which class is keyed unless the suspect
    does, so that each place is uniform. An image that was not answered counts as the last place.
    """
    count = len(scores)
    base, keyed = key.base[:count], key.labels[:count]
    answered = ~scores.isnan().any(1)
    others = [wrong_class_scores(log_scores(member, key.pixels[:count]), base)[answered] for member in panel]
    residual = torch.full_like(scores, -torch.inf)
    shown = wrong_class_scores(scores, base)[answered]
    known = [torch.empty(shown.numel(), 0, dtype=shown.dtype), *(other.flatten()[:, None] for other in others)]
    residual[answered] = unexplained(shown.flatten(), torch.cat(known, 1)).view_as(shown)
    residual.scatter_(1, base[:, None], -torch.inf)
    own = residual.gather(1, keyed[:, None])
    before = (residual > own) | ((residual == own) & (torch.arange(key.num_classes) < keyed[:, None]))
    found = (before & (torch.arange(key.num_classes) != base[:, None])).sum(1)
    return found.masked_fill(~answered, key.num_classes - 2)


def savage(places: int) -> list[int]:
    """Return Savage's scores of the places from the first on, in hundredths: the first says far more than the second.

    They are the expected order statistics of exponential variables, best against a suspect in which the keyed class
    has become more likely (Savage 1956).
    """
    return [round(100 * sum(1 / j for j in range(place, places + 1))) for place in range(1, places + 1)]
