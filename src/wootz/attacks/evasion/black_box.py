"""What attacks by queries share: queries without gradients and their number, labels, margins, gradient estimates.

A target is a module or any other `Predict`. An image without an answer (NaN, or the label -1) is not misclassified.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from wootz.attacks.evasion.objectives import margin
from wootz.errors import ModelError
from wootz.modes import device_of, eval_mode
from wootz.types import Predict

_BATCH, _BATCH_VALUES = 1000, 1 << 22  # limits of one batch: images, and values of their pixels


class QueryCounter:
    """A target that counts the queries about each of the images under attack.

    Args:
        predict: the target.
        count: the number of images under attack.

    Attributes:
        predict: the target.
        spent: the number of queries about each image, int64 [count].
    """

    def __init__(self, predict: Predict, count: int) -> None:
        self.predict, self.spent = predict, torch.zeros(count, dtype=torch.int64)

    def __call__(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Query images [M, C, H, W] that belong to the images `rows` [M], which may repeat; None is all in order."""
        if rows is None:
            self.spent += 1
        else:
            self.spent += torch.bincount(rows, minlength=len(self.spent)).cpu()
        return self.predict(images)


@contextmanager
def query_mode(predict: Predict, count: int) -> Iterator[QueryCounter]:
    """Disable gradients, and set `predict` to eval mode if it is a module; its mode is restored.

    Args:
        predict: the target; if it is a `QueryCounter`, it is the one that counts.
        count: the number of images under attack.
    """
    counter = predict if isinstance(predict, QueryCounter) else QueryCounter(predict, count)
    target = counter.predict
    with torch.no_grad(), eval_mode(target) if isinstance(target, nn.Module) else nullcontext():
        yield counter


def predict_logits(model: nn.Module, x: Tensor) -> Tensor:
    """Return logits float32 [N, K] of images [N, C, H, W], on their device; in eval mode and without gradients.

    Raises:
        ModelError: a logit is NaN or infinite, which is no answer.
    """
    device = device_of(model)
    with eval_mode(model), torch.no_grad():
        logits = torch.cat([model(batch.to(device)).float().to(x.device) for batch in x.split(_images_per_batch(x))])
    if invalid := int((~logits.isfinite().flatten(1).all(1)).sum()):
        raise ModelError(f"the model returns NaN or infinity for {invalid} of {len(x)} images")
    return logits


def _images_per_batch(x: Tensor) -> int:
    return max(1, min(_BATCH, _BATCH_VALUES // math.prod(x.shape[1:])))


def answers_to(target: Predict, x: Tensor) -> Tensor:
    """Return what a target answers to images [N, C, H, W], in batches: scores float32 [N, K], or labels int64 [N].

    Raises:
        ModelError: a module's logit is NaN or infinite.
    """
    if isinstance(target, nn.Module):
        return predict_logits(target, x)
    with torch.no_grad():
        answers = torch.cat([target(batch) for batch in x.split(_images_per_batch(x))])
    return answers.float() if answers.dim() == 2 else answers.long()


def top_labels(answers: Tensor) -> Tensor:
    """Return labels int64 [N], from labels [N] or from scores [N, K]; -1 for an image without an answer."""
    if answers.dim() == 2:
        return answers.argmax(1).masked_fill(answers.isnan().any(1), -1)
    return answers.long().clamp_min(-1)


def misclassified(answers: Tensor, y: Tensor) -> Tensor:
    """Return which answers, labels [N] or scores [N, K], are a class other than `y`, bool [N]."""
    labels = top_labels(answers)
    return (labels != y) & (labels >= 0)


def margins_of(answers: Tensor, y: Tensor) -> Tensor:
    """Return the margins of scores [N, K], see `margin`; the lowest, -inf, for an image without an answer.

    Raises:
        ModelError: the answers are labels.
    """
    if answers.dim() != 2:
        raise ModelError("the target returns labels only; use an attack that needs no scores, such as hop-skip-jump")
    scores = answers.float()
    return margin(scores, y).masked_fill(scores.isnan().any(1), float("-inf"))


def log_scores(predict: Predict) -> Predict:
    """Return a target of probabilities as one of log-probabilities, whose margins differ also where one class is sure.

    A probability of 0 counts as the smallest normal float32.
    """
    return lambda x: predict(x).float().clamp_min(torch.finfo(torch.float32).tiny).log()


def estimate_gradient(value: Callable[[Tensor], Tensor], point: Tensor, directions: Tensor, radius: Tensor) -> Tensor:
    """Estimate the gradient of `value` at each point, up to a factor, from its values at random neighbors.

    The estimate is the covariance of values and displacements, to which a constant contributes nothing.

    Args:
        value: images [M, C, H, W] in [0, 1] -> one value per image [M]; the neighbors of a point are adjacent. A value
            of -inf stands for no answer, and counts as the mean of the others.
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
        known = values.masked_fill(values.isinf(), torch.nan)
        values = torch.where(known.isnan(), known.nanmean(1, keepdim=True).nan_to_num(), known)
        steps = neighbors - point[:, None]
        products += torch.einsum("nb,nbchw->nchw", values, steps)
        displacement += steps.sum(1)
        total += values.sum(1)
    return products - displacement * (total / len(directions)).view(-1, 1, 1, 1)
