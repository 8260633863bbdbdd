"""Query a suspect: what a test may use of it, batches, caches, and answers as labels or log-scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from wootz.errors import ModelError
from wootz.store import tensor_digest
from wootz.types import Access, Predict, Weights

if TYPE_CHECKING:
    from wootz.statistics.boundary_search import BoundarySearch

_BATCH_IMAGES, _BATCH_VALUES = 1000, 1 << 24  # limits of one batch


class SuspectAccess(NamedTuple):
    """What a test may use of a suspect.

    Attributes:
        level: Which of labels, scores and weights are visible.
        budget: The number of a mark's images to query, in registered order; None queries all of them.
        weights: The function that returns the suspect's weights, if it has one.
        boundary_search: The search for decision boundaries, used if only labels are visible; None queries the mark's
            images alone.
    """

    level: Access = "scores"
    budget: int | None = None
    weights: Weights | None = None
    boundary_search: BoundarySearch | None = None

    @property
    def boundary_queries(self) -> BoundarySearch | None:
        """The boundary search, if there is one and only labels are visible."""
        return self.boundary_search if self.level == "label" else None


class OrdinaryAnswers(NamedTuple):
    """The numbers of ordinary images that were queried, that were answered, and that were answered correctly."""

    queried: int
    answered: int
    correct: int

    @property
    def accuracy(self) -> float:
        """The fraction of the answered images that were answered correctly; 0 if none was answered."""
        return self.correct / max(1, self.answered)


class LabelledImages(NamedTuple):
    """Ordinary images uint8 [n, C, H, W] and their classes int64 [n]."""

    pixels: Tensor
    labels: Tensor


def query(predict: Predict, pixels: Tensor) -> Tensor:
    """Send images uint8 [N, C, H, W] as float32 in [0, 1], in batches, each image once; return the answers."""
    size = max(1, min(_BATCH_IMAGES, _BATCH_VALUES // math.prod(pixels.shape[1:])))
    return torch.cat([predict(batch.float().div_(255)) for batch in pixels.split(size)])


def cache_batches(predict: Predict) -> Predict:
    """Return `predict` with a cache of batches: an identical batch is not queried again."""
    cache: dict[str, Tensor] = {}

    def answer(x: Tensor) -> Tensor:
        digest = tensor_digest(x)
        if digest not in cache:
            cache[digest] = predict(x)
        return cache[digest]

    return answer


def cache_images(predict: Predict) -> Predict:
    """Return `predict` with a cache of single images: an image is queried once, whatever its batch."""
    cache: dict[str, Tensor] = {}

    def answer(x: Tensor) -> Tensor:
        digests = [tensor_digest(image) for image in x]
        new = {digest: row for row, digest in enumerate(digests) if digest not in cache}
        if new or not digests:
            answers = predict(x[list(new.values())])
            cache.update(zip(new, answers, strict=True))
        return torch.stack([cache[digest] for digest in digests]) if digests else answers

    return answer


def query_labels(predict: Predict, pixels: Tensor) -> Tensor:
    """Return top-1 labels int64 [N] of images uint8 [N, C, H, W], from scores or labels; -1 for a missing answer."""
    return to_labels(query(predict, pixels))


def to_labels(answers: Tensor) -> Tensor:
    """Return the top-1 labels int64 [N] of scores [N, K] or labels [N]; -1 for a missing answer (NaN, or below 0)."""
    if answers.dim() == 2:
        return answers.argmax(1).masked_fill(answers.isnan().any(1), -1)
    return answers.long().clamp_min(-1)


def query_log_scores(predict: Predict, pixels: Tensor) -> Tensor:
    """Return the log-scores float64 [N, K] of images uint8 [N, C, H, W], see `to_log_scores`."""
    return to_log_scores(query(predict, pixels))


def to_log_scores(answers: Tensor) -> Tensor:
    """Return log-scores float64 [N, K], up to a constant per row, of logits, log-probabilities or probabilities.

    Zero probabilities (rounded, or cut off after the top few) count as half the smallest positive one. A row that was
    not answered, or that holds an infinity, is NaN.

    Raises:
        ModelError: The answers are labels.
    """
    answers = answers.double()
    if answers.dim() != 2:
        raise ModelError("the suspect answers with labels only; test it with --access label")
    finite = answers.isfinite().all(1)
    answers, complete = answers.masked_fill(~finite[:, None], torch.nan), answers[finite]
    if len(complete) and complete.min() >= 0 and complete.sum(1).max() <= 1.01:
        positive = complete[complete > 0]
        floor = float(positive.min()) / 2 if len(positive) else 0.5
        return answers.clamp_min(floor).log()
    return answers
