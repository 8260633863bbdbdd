"""Monte Carlo check of the null: test one suspect's fixed answers against many random keys.

Every function draws keys from the distribution of the owner's key, everything else equal, and returns ln p of the exact
test (or of the e-process) for each. A judge draws a thousand keys; the published null rests on a million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from wootz.keys import DirectionKey, HalfKey, LabelKey, WeightKey
from wootz.statistics.exact_tests import hit_chance
from wootz.statistics.pairwise_preferences import rank_weights
from wootz.statistics.sequential import log_e_value
from wootz.statistics.tails import (
    binomial_tail,
    cosine_tail,
    fisher,
    hypergeometric_tail,
    signs_tail,
    signs_tails,
    sum_tail,
    sum_tails,
)
from wootz.statistics.wrong_class_ranks import savage_scores

Logs: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.float64]]"
_CHUNK = 2000
_MAX_VALUES = 1 << 24  # normal values that are drawn at once
_FAR_TAIL = -20.0  # ln p below which tails are computed one by one


def label_null(key: LabelKey, answers: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the exact tail under redrawn labels, for top-1 labels int64 [n] of the first n images."""
    trials, chance = counted_answers(key, answers).sum(), hit_chance(key)
    tails = np.array([binomial_tail(hits, int(trials), chance) for hits in range(int(trials) + 1)])
    return np.concatenate([tails[hits.sum(1)] for hits in _redrawn(key, answers, draws, stream)])


def rank_null(key: LabelKey, residuals: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the rank test under redrawn labels, for a suspect's wrong-class residuals [n, K]."""
    count, scores = len(residuals), savage_scores(key.num_classes - 1)
    base = key.base[:count, None]
    scores_without_base = residuals.nan_to_num(nan=torch.finfo(residuals.dtype).min).scatter(1, base, -torch.inf)
    order = torch.sort(scores_without_base, dim=1, descending=True, stable=True).indices
    score_of_label = np.array(scores)[order.argsort(dim=1).scatter(1, base, 0).numpy()]
    score_of_label[residuals.isnan().any(1).numpy()] = scores[-1]
    steps = (stream.integers(1, key.num_classes, (size, count)) for size in _chunks(draws, _CHUNK))
    labels = ((base.numpy().T + step) % key.num_classes for step in steps)
    totals = np.concatenate([score_of_label[np.arange(count), label].sum(1) for label in labels])
    return _looked_up(totals, sum_tails(count, scores), lambda total: sum_tail(total, count, scores))


def sequential_null(key: LabelKey, answers: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln (1 / maximum of the e-process) [draws] under redrawn labels, over all n answers in order."""
    counts = counted_answers(key, answers)
    trials, chance = int(counts.sum()), hit_chance(key)
    values = np.full((trials + 1, trials + 1), -np.inf)
    for m in range(trials + 1):
        values[m, : m + 1] = [log_e_value(hits, m, chance) for hits in range(m + 1)]
    along = np.arange(1, trials + 1)
    paths = (values[along, hits[:, counts].cumsum(1)] for hits in _redrawn(key, answers, draws, stream))
    highest: Logs = np.concatenate([path.max(1, initial=0.0) for path in paths])
    return -highest


def direction_null(key: DirectionKey, v: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the cosine test under redrawn directions, for a suspect's direction estimate v [C, C, d].

    All are 0 if the estimate is 0, as in the test.
    """
    random = torch.Generator().manual_seed(int(stream.integers(2**62)))
    parts = [_part_null(key, part, draws, random) for part in v.split(key.groups, 2)]
    return np.array([fisher(log_ps) for log_ps in zip(*parts, strict=True)])


def _part_null(key: DirectionKey, v: Tensor, draws: int, random: torch.Generator) -> list[float]:
    """Return ln p [draws] of the cosine of the part v [C, C, n] of an estimate with redrawn directions."""
    if not v.norm() > 0:
        return [0.0] * draws
    wrong, others = 1 - torch.eye(key.covered).unsqueeze(2), key.covered - 1
    v = (v / v.norm()).float() * wrong
    v = (v - v.sum(1, keepdim=True) / others) * wrong  # centering v instead of w gives the same inner product
    log_p: list[float] = []
    for count in _chunks(draws, max(1, min(500, _MAX_VALUES // v.numel()))):
        w = torch.randn(count, *v.shape, generator=random).mul_(wrong)
        squares = w.flatten(1).norm(dim=1) ** 2 - w.sum(2).flatten(1).norm(dim=1) ** 2 / others  # of the centered w
        cosines = w.flatten(1) @ v.flatten() / squares.sqrt()
        log_p += [cosine_tail(cosine, key.dimensions(v.shape[2])) for cosine in cosines.tolist()]
    return log_p


def preference_null(residuals: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the sign test under redrawn coins, for a suspect's preference residuals [n]."""
    weights, signs = np.array(rank_weights(residuals)), residuals.nan_to_num().sign().numpy()
    coins = (stream.integers(0, 2, (count, len(signs))) * 2 - 1 for count in _chunks(draws, _CHUNK))
    totals = np.concatenate([((signs * coin > 0) * weights).sum(1) for coin in coins])
    return _looked_up(totals, signs_tails(weights.tolist()), lambda total: signs_tail(total, weights.tolist()))


def half_null(key: HalfKey, correct: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of Fisher's exact test under redrawn halves, for the correct answers, bool [n]."""
    total, drawn, marked = len(correct), int(correct.sum()), len(correct) // 2
    tails = np.array([hypergeometric_tail(hits, drawn, marked, total) for hits in range(drawn + 1)])
    return tails[stream.hypergeometric(marked, total - marked, drawn, draws)]


def weight_null(key: WeightKey, bits: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the exact tail under redrawn messages, for the bits int64 [T] of a suspect."""
    trials = len(key.message)
    tails = np.array([binomial_tail(hits, trials, 0.5) for hits in range(trials + 1)])
    messages = (stream.integers(0, 2, (count, trials)) for count in _chunks(draws, _CHUNK))
    return np.concatenate([tails[(message == bits.numpy()).sum(1)] for message in messages])


def too_many(log_p: Logs, level: float = 0.01) -> bool:
    """Return whether there are more p-values up to `level` than chance gives with probability one in a million."""
    return int((log_p <= np.log(level) + 1e-12).sum()) > int(binom.isf(1e-6, len(log_p), level))


def counted_answers(key: LabelKey, answers: Tensor) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which answers count as trials, bool [n]: all of them, or those that are not the base class."""
    labels = answers.numpy()
    return np.ones(len(labels), bool) if key.rule == "uniform" else labels != key.base[: len(labels)].numpy()


def _redrawn(
    key: LabelKey, answers: Tensor, draws: int, stream: np.random.Generator
) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    """Yield, per chunk of draws, which answers [chunk, n] are the redrawn labels."""
    answered, base = answers.numpy(), key.base[: len(answers)].numpy()
    for count in _chunks(draws, _CHUNK):
        if key.rule == "uniform":
            labels = stream.integers(0, key.num_classes, (count, len(answered)))
        else:
            labels = (base + stream.integers(1, key.num_classes, (count, len(answered)))) % key.num_classes
        yield labels == answered


def _looked_up(totals: np.ndarray, tails: np.ndarray, far: Callable[[int], float]) -> Logs:
    """Return the tail of each total: from the table, or computed one by one in the far tail."""
    return np.array([tails[total] if tails[total] > _FAR_TAIL else far(total) for total in totals.tolist()])


def _chunks(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)
