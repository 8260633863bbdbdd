"""Ask a suspect, and read what it says: labels or scores of whatever scale."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.errors import ModelError
from wootz.types import Predict

_BATCH = 1000


def ask(predict: Predict, pixels: Tensor) -> Tensor:
    """Send images uint8 [N, C, H, W] as float32 in [0, 1], in batches, each image once; return the answers."""
    return torch.cat([predict(batch.float().div_(255)) for batch in pixels.split(_BATCH)])


def labels_of(predict: Predict, pixels: Tensor) -> Tensor:
    """Return top-1 labels int64 [N], from scores or from labels."""
    answers = ask(predict, pixels)
    return answers.argmax(1) if answers.dim() == 2 else answers.long()


def log_scores(predict: Predict, pixels: Tensor) -> Tensor:
    """Return log-scores float64 [N, K], up to a constant a row, from logits, log-probabilities or probabilities.

    Zero probabilities (rounded, or cut off after the top few) count as half the smallest one that was seen.
    """
    answers = ask(predict, pixels).double()
    if answers.dim() != 2:
        raise ModelError("the suspect answers with labels only; ask with --access label")
    if answers.min() >= 0 and answers.sum(1).max() <= 1.01:
        seen = answers[answers > 0]
        floor = float(seen.min()) / 2 if len(seen) else 0.5
        return answers.clamp_min(floor).log()
    return answers
