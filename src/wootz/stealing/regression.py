"""Against a keyed order of the wrong classes: whatever is linear in an image's components is regressed out.

Made against our own mark `runner-up` by someone who knows its method and not its key: the direction is a linear
trace of the leading principal components in the scores of the wrong classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.adversary import Means
from wootz.stealing.asking import answered, require_scores
from wootz.stealing.learner import Learner, imitate
from wootz.stealing.ledger import Ledger

_CLIP = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Regress(Learner):
    """`features` leading principal components are regressed out; the mark's default is 30. Adaptive, ours."""

    features: int = 30

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.at_least(1, features=self.features)


def regress(cfg: Regress, victim: Ledger, means: Means) -> nn.Module:
    """Ask about every image once and learn the answers without that part; true labels are not used."""
    require_scores(victim, "regress")
    pixels = means.data.pixels
    answers = answered(victim, pixels, means)
    features = components(means.data.images(), answers.argmax(1), cfg.features)
    return imitate(cfg, means.fresh("thief"), pixels, unexplained(answers, features), means)


def components(x: Tensor, y: Tensor, count: int) -> Tensor:
    """Return the leading components [N, d] of images, whitened within the class each is given, clipped to +-3."""
    flat = x.flatten(1)
    flat = flat - flat.mean(0)
    _, directions = torch.linalg.eigh(flat.T @ flat)
    z: Tensor = flat @ directions[:, -count:]
    for k in y.unique():
        members = y == k
        spread, center = torch.std_mean(z[members], 0, correction=0)
        z[members] = (z[members] - center) / spread.clamp_min(1e-3)
    return z.clamp_(-_CLIP, _CLIP)


def unexplained(answers: Tensor, z: Tensor) -> Tensor:
    """Distributions [N, K] and features [N, d] -> distributions with the same top-1 and no linear trace of `z`.

    Within each answered class, the centered log-scores of the wrong classes are regressed on the features and a
    constant. The constant and the residual stay, scaled to the mass that the wrong classes had.
    """
    peak = answers.max(1, keepdim=True)
    logs = answers.clamp_min(1e-12).log().scatter(1, peak.indices, 0.0)
    order = logs - logs.sum(1, keepdim=True) / (answers.shape[1] - 1)
    for k in peak.indices.unique():
        members = (peak.indices == k).squeeze(1)
        known = torch.cat([z[members], torch.ones(int(members.sum()), 1)], 1).double()
        fit = torch.linalg.lstsq(known, order[members].double(), driver="gelsd").solution
        order[members] -= (known[:, :-1] @ fit[:-1]).float()
    wrong = order.scatter(1, peak.indices, float("-inf")).softmax(1) * (1 - peak.values)
    whole = torch.minimum(wrong, peak.values).scatter(1, peak.indices, peak.values)
    return whole / whole.sum(1, keepdim=True)
