"""What an attack may learn from answers alone: labels, scores, and a slope made of many answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from wootz.errors import ModelError
from wootz.modes import eval_mode
from wootz.types import Predict

_BATCH = 1000


@contextmanager
def asking(predict: Predict) -> Iterator[Predict]:
    """Without gradients, and in eval mode if `predict` is a module, which is given back as it was."""
    with torch.no_grad(), eval_mode(predict) if isinstance(predict, nn.Module) else nullcontext():
        yield predict


def labels_of(answers: Tensor) -> Tensor:
    """Return labels int64 [N], from labels [N] or from scores [N, K]."""
    return answers.argmax(1) if answers.dim() == 2 else answers.long()


def scores_of(answers: Tensor) -> Tensor:
    """Return scores float32 [N, K].

    Raises:
        ModelError: the answers are labels.
    """
    if answers.dim() != 2:
        raise ModelError("the target answers with labels only; take an attack that needs no more, as hop-skip-jump")
    return answers.float()


def slope(value: Callable[[Tensor], Tensor], point: Tensor, directions: Tensor, reach: Tensor) -> Tensor:
    """Estimate the gradient of `value` at each point, up to a factor, by looking around.

    It is the covariance of what is met with the way there, so that a constant met everywhere counts nothing.

    Args:
        value: images [M, C, H, W] in [0, 1] -> one value each [M]; images come point by point.
        point: where to look around, [N, C, H, W] in [0, 1].
        directions: shared by all points, [B, C, H, W].
        reach: how far along the directions each point looks, [N]; what leaves [0, 1] is clipped.

    Returns:
        [N, C, H, W].
    """
    met, total, way = torch.zeros_like(point), torch.zeros_like(reach), torch.zeros_like(point)
    for some in directions.split(max(1, _BATCH // len(point))):
        around = (point[:, None] + reach.view(-1, 1, 1, 1, 1) * some).clamp_(0, 1)
        values = value(around.flatten(0, 1)).view(len(point), len(some))
        moves = around - point[:, None]
        met += torch.einsum("nb,nbchw->nchw", values, moves)
        way += moves.sum(1)
        total += values.sum(1)
    return met - way * (total / len(directions)).view(-1, 1, 1, 1)
