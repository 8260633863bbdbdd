"""What a victim's service shows of its answers: everything, the top few, rounded figures, or the label alone."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz.errors import BudgetError, ConfigError

_PATTERN = re.compile(r"label|scores|top-([1-9]\d?)|rounded-(\d)")


def check_access(access: str) -> None:
    """Raise ConfigError unless `access` is `label`, `scores`, `top-K` or `rounded-D`."""
    if not _PATTERN.fullmatch(access):
        raise ConfigError(f"access = {access!r}: must be label, scores, top-K (top-3) or rounded-D (rounded-2 digits)")


def reveal(answers: Tensor, access: str) -> Tensor:
    """Turn a victim's answers into what its service shows.

    Args:
        answers: logits, log-probabilities or probabilities [N, K], or labels int64 [N].
        access: `scores` shows probabilities; `top-K` those of the K likeliest classes and 0 for the others;
            `rounded-D` probabilities rounded to D decimal digits; `label` the likeliest class alone.

    Returns:
        Probabilities float32 [N, K], or labels int64 [N].
    """
    if answers.dim() == 1:
        if access != "label":
            raise BudgetError(f"access = {access!r}: the victim answers with labels only")
        return answers.long()
    if access == "label":
        return answers.argmax(1)
    probabilities = answers if _sums_to_one(answers) else answers.float().softmax(1)
    kind, _, figure = access.partition("-")
    if kind == "top":
        top = probabilities.topk(min(int(figure), probabilities.shape[1]), dim=1)
        return torch.zeros_like(probabilities).scatter_(1, top.indices, top.values)
    return probabilities.round(decimals=int(figure)) if kind == "rounded" else probabilities


def complete(answers: Tensor, num_classes: int) -> Tensor:
    """Return whole distributions float32 [N, K] from what was shown.

    Labels become one-hot; mass that was hidden is spread evenly over the classes that show none, and what
    rounding added is scaled away.
    """
    if answers.dim() == 1:
        return F.one_hot(answers, num_classes).float()
    hidden = answers <= 0
    missing = (1 - answers.sum(1, keepdim=True)).clamp_min(0)
    whole = answers + hidden * missing / hidden.sum(1, keepdim=True).clamp_min(1)
    return whole / whole.sum(1, keepdim=True).clamp_min(1e-12)


def _sums_to_one(answers: Tensor) -> bool:
    sums = answers.sum(1)
    return bool(answers.min() >= 0) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
