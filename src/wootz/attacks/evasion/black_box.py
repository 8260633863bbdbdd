"""What score-based and decision-based attacks share: queries without gradients, labels, scores, gradient estimates."""

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
def query_mode(predict: Predict) -> Iterator[Predict]:
    """Disable gradients, and set `predict` to eval mode if it is a module; its mode is restored."""
    with torch.no_grad(), eval_mode(predict) if isinstance(predict, nn.Module) else nullcontext():
        yield predict


def top_labels(answers: Tensor) -> Tensor:
    """Return labels int64 [N], from labels [N] or from scores [N, K]."""
    return answers.argmax(1) if answers.dim() == 2 else answers.long()


def scores_of(answers: Tensor) -> Tensor:
    """Return scores float32 [N, K].

    Raises:
        ModelError: the answers are labels.
    """
    if answers.dim() != 2:
        raise ModelError("the target returns labels only; use an attack that needs no scores, such as hop-skip-jump")
    return answers.float()


def estimate_gradient(value: Callable[[Tensor], Tensor], point: Tensor, directions: Tensor, radius: Tensor) -> Tensor:
    """Estimate the gradient of `value` at each point, up to a factor, from its values at random neighbors.

    The estimate is the covariance of values and displacements, to which a constant contributes nothing.

    Args:
        value: images [M, C, H, W] in [0, 1] -> one value per image [M]; the neighbors of a point are adjacent.
        point: the points [N, C, H, W] in [0, 1].
        directions: the directions [B, C, H, W], shared by all points.
        radius: the step along the directions for each point, [N]; neighbors are clipped to [0, 1].

    Returns:
        Gradients [N, C, H, W].
    """
    products, total, displacement = torch.zeros_like(point), torch.zeros_like(radius), torch.zeros_like(point)
    for batch in directions.split(max(1, _BATCH // len(point))):
        neighbors = (point[:, None] + radius.view(-1, 1, 1, 1, 1) * batch).clamp_(0, 1)
        values = value(neighbors.flatten(0, 1)).view(len(point), len(batch))
        steps = neighbors - point[:, None]
        products += torch.einsum("nb,nbchw->nchw", values, steps)
        displacement += steps.sum(1)
        total += values.sum(1)
    return products - displacement * (total / len(directions)).view(-1, 1, 1, 1)
