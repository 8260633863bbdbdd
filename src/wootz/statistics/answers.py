"""Ask a suspect, and read what it says: labels or scores of whatever scale."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.errors import ModelError
from wootz.store import tensor_digest
from wootz.types import Predict

_BATCH = 1000


def ask(predict: Predict, pixels: Tensor) -> Tensor:
    """Send images uint8 [N, C, H, W] as float32 in [0, 1], in batches, each image once; return the answers."""
    return torch.cat([predict(batch.float().div_(255)) for batch in pixels.split(_BATCH)])


def remembered(predict: Predict) -> Predict:
    """Return `predict` with a memory: what was asked once, in the same batch, is not asked again."""
    known: dict[str, Tensor] = {}

    def answer(x: Tensor) -> Tensor:
        digest = tensor_digest(x)
        if digest not in known:
            known[digest] = predict(x)
        return known[digest]

    return answer


def recalled(predict: Predict) -> Predict:
    """Return `predict` with a memory of single images: what was asked once, in whatever batch, is not asked again."""
    known: dict[str, Tensor] = {}

    def answer(x: Tensor) -> Tensor:
        names = [tensor_digest(image) for image in x]
        new = {name: row for row, name in enumerate(names) if name not in known}
        if new or not names:
            answers = predict(x[list(new.values())])
            known.update(zip(new, answers, strict=True))
        return torch.stack([known[name] for name in names]) if names else answers

    return answer


def labels_of(predict: Predict, pixels: Tensor) -> Tensor:
    """Return top-1 labels int64 [N], from scores or from labels; -1 where there was no answer."""
    return top_one(ask(predict, pixels))


def top_one(answers: Tensor) -> Tensor:
    """Return the labels in answers, scores [N, K] or labels [N]; -1 where there was none (NaN, or a label below 0)."""
    if answers.dim() == 2:
        return answers.argmax(1).masked_fill(answers.isnan().any(1), -1)
    return answers.long().clamp_min(-1)


def log_scores(predict: Predict, pixels: Tensor) -> Tensor:
    """Return log-scores float64 [N, K], up to a constant a row, from logits, log-probabilities or probabilities.

    Zero probabilities (rounded, or cut off after the top few) count as half the smallest one that was seen. A row
    that was not answered, or holds an infinity, is NaN.
    """
    return to_log_scores(ask(predict, pixels))


def to_log_scores(answers: Tensor) -> Tensor:
    """Return log-scores of what was answered, as `log_scores` does."""
    answers = answers.double()
    if answers.dim() != 2:
        raise ModelError("the suspect answers with labels only; ask with --access label")
    finite = answers.isfinite().all(1)
    answers, known = answers.masked_fill(~finite[:, None], torch.nan), answers[finite]
    if len(known) and known.min() >= 0 and known.sum(1).max() <= 1.01:
        seen = known[known > 0]
        floor = float(seen.min()) / 2 if len(seen) else 0.5
        return answers.clamp_min(floor).log()
    return answers
