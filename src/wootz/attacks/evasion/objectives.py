"""Objectives that attacks maximize: logits [N, K] and labels [N] -> one value per image [N].

A larger value is worse for the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional as F

Objective: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log p(y), in nats."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the largest wrong logit minus the logit of `y`; misclassified above 0 (Carlini, Wagner 2017)."""
    right = logits.gather(1, y[:, None]).squeeze(1)
    wrong = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    return wrong - right


def second_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the second largest wrong logit minus the logit of `y`.

    At its maximum two wrong classes are about equally likely. With fewer than 3 classes it does not exist; the plain
    margin is returned.
    """
    if logits.shape[1] < 3:
        return margin(logits, y)
    wrong = logits.scatter(1, y[:, None], float("-inf")).topk(2, dim=1).values[:, 1]
    return wrong - logits.gather(1, y[:, None]).squeeze(1)


def logit_ratio(logits: Tensor, y: Tensor) -> Tensor:
    """Return the margin over the spread of the three largest logits (DLR; Croce, Hein, arXiv 2003.01690, eq. 6).

    It is invariant to shifting and scaling the logits. With fewer than 3 classes it does not exist; the plain
    margin is returned.
    """
    if logits.shape[1] < 3:
        return margin(logits, y)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def targeted_logit_ratio(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return (logit of `target` - logit of `y`) over the spread of the largest logits (targeted DLR, eq. 7).

    With fewer than 4 classes the ratio does not exist; the difference is returned.
    """
    gap = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)
    if logits.shape[1] < 4:
        return gap
    top = logits.topk(4, dim=1).values
    return gap / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(1e-12)
