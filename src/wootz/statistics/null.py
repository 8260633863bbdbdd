"""How often a key that a suspect never met looks as if it had: many random keys on the answers of one suspect.

Every function draws keys anew as the owner's were drawn, all else equal, and returns ln p of the exact test (or of
the e-process) for each. A judge runs a thousand; the published null a million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from wootz.keys import DirectionKey, HalfKey, LabelKey, WeightKey
from wootz.statistics.exact import (
    binomial_tail,
    cosine_tail,
    hypergeometric_tail,
    signs_tail,
    signs_tails,
    sum_tail,
    sum_tails,
)
from wootz.statistics.orders import votes
from wootz.statistics.sequential import log_e_value
from wootz.statistics.wrong_classes import savage

Logs: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.float64]]"
_CHUNK = 2000
_NUMBERS = 1 << 24  # normal values that are drawn at once
_FAR = -20.0  # ln p below which tails are computed one by one


def label_null(key: LabelKey, answers: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the exact tail under redrawn labels, for top-1 answers int64 [n] to the first n images."""
    trials, chance = counted(key, answers).sum(), _chance(key)
    tails = np.array([binomial_tail(hits, int(trials), chance) for hits in range(int(trials) + 1)])
    return np.concatenate([tails[hits.sum(1)] for hits in _redrawn(key, answers, draws, stream)])


def places_null(key: LabelKey, left: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the test of places under redrawn labels, for a suspect's unforeseen opinions [n, K]."""
    count, scores = len(left), savage(key.num_classes - 1)
    base = key.base[:count, None]
    liked = left.nan_to_num(nan=torch.finfo(left.dtype).min).scatter(1, base, -torch.inf)
    order = torch.sort(liked, dim=1, descending=True, stable=True).indices
    worth = np.array(scores)[order.argsort(dim=1).scatter(1, base, 0).numpy()]
    worth[left.isnan().any(1).numpy()] = scores[-1]
    steps = (stream.integers(1, key.num_classes, (size, count)) for size in _chunks(draws, _CHUNK))
    labels = ((base.numpy().T + step) % key.num_classes for step in steps)
    totals = np.concatenate([worth[np.arange(count), label].sum(1) for label in labels])
    return _looked_up(totals, sum_tails(count, scores), lambda total: sum_tail(total, count, scores))


def early_null(key: LabelKey, answers: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln (1 / highest e-value on the way) [draws] under redrawn labels, over all n answers in order."""
    seen = counted(key, answers)
    trials, chance = int(seen.sum()), _chance(key)
    values = np.full((trials + 1, trials + 1), -np.inf)
    for m in range(trials + 1):
        values[m, : m + 1] = [log_e_value(hits, m, chance) for hits in range(m + 1)]
    along = np.arange(1, trials + 1)
    paths = (values[along, hits[:, seen].cumsum(1)] for hits in _redrawn(key, answers, draws, stream))
    highest: Logs = np.concatenate([path.max(1, initial=0.0) for path in paths])
    return -highest


def direction_null(key: DirectionKey, v: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the cosine test under redrawn directions, for a suspect's leaning v [K, K, d].

    All 0 for a suspect that leans nowhere, as in the test.
    """
    if not v.norm() > 0:
        return np.zeros(draws)
    random = torch.Generator().manual_seed(int(stream.integers(2**62)))
    wrong, others = 1 - torch.eye(key.num_classes).unsqueeze(2), key.num_classes - 1
    v = (v / v.norm()).float() * wrong
    v = (v - v.sum(1, keepdim=True) / others) * wrong  # centering v and not w leaves their product as it is
    found = []
    for count in _chunks(draws, max(1, min(500, _NUMBERS // v.numel()))):
        w = torch.randn(count, *v.shape, generator=random).mul_(wrong)
        squares = w.flatten(1).norm(dim=1) ** 2 - w.sum(2).flatten(1).norm(dim=1) ** 2 / others  # of w when centered
        cosines = w.flatten(1) @ v.flatten() / squares.sqrt()
        found += [cosine_tail(cosine, key.dimensions) for cosine in cosines.tolist()]
    return np.array(found)


def order_null(unforeseen: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the test of signs under redrawn coins, for a suspect's unforeseen leanings [n]."""
    counts, signs = np.array(votes(unforeseen)), unforeseen.nan_to_num().sign().numpy()
    coins = (stream.integers(0, 2, (count, len(signs))) * 2 - 1 for count in _chunks(draws, _CHUNK))
    won = np.concatenate([((signs * coin > 0) * counts).sum(1) for coin in coins])
    return _looked_up(won, signs_tails(counts.tolist()), lambda total: signs_tail(total, counts.tolist()))


def half_null(key: HalfKey, right: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of Fisher's exact test under redrawn halves, for which answers were right, bool [n]."""
    total, drawn, marked = len(right), int(right.sum()), len(right) // 2
    tails = np.array([hypergeometric_tail(hits, drawn, marked, total) for hits in range(drawn + 1)])
    return tails[stream.hypergeometric(marked, total - marked, drawn, draws)]


def weight_null(key: WeightKey, read: Tensor, draws: int, stream: np.random.Generator) -> Logs:
    """Return ln p [draws] of the exact tail under redrawn messages, for the bits int64 [T] in a suspect's weights."""
    trials = len(key.message)
    tails = np.array([binomial_tail(hits, trials, 0.5) for hits in range(trials + 1)])
    messages = (stream.integers(0, 2, (count, trials)) for count in _chunks(draws, _CHUNK))
    return np.concatenate([tails[(message == read.numpy()).sum(1)] for message in messages])


def too_many(log_p: Logs, level: float = 0.01) -> bool:
    """Return whether more p-values lie at or below `level` than chance gives but once in a million such tests."""
    return int((log_p <= np.log(level) + 1e-12).sum()) > int(binom.isf(1e-6, len(log_p), level))


def counted(key: LabelKey, answers: Tensor) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which answers count as trials: all, or those that are not the base class."""
    said = answers.numpy()
    return np.ones(len(said), bool) if key.rule == "uniform" else said != key.base[: len(said)].numpy()


def _redrawn(
    key: LabelKey, answers: Tensor, draws: int, stream: np.random.Generator
) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    """Give, chunk by chunk, which answers [chunk, n] hit labels drawn anew."""
    said, base = answers.numpy(), key.base[: len(answers)].numpy()
    for count in _chunks(draws, _CHUNK):
        if key.rule == "uniform":
            labels = stream.integers(0, key.num_classes, (count, len(said)))
        else:
            labels = (base + stream.integers(1, key.num_classes, (count, len(said)))) % key.num_classes
        yield labels == said


def _looked_up(totals: np.ndarray, tails: np.ndarray, far: Callable[[int], float]) -> Logs:
    """Return the tails of totals, the far ones one by one."""
    return np.array([tails[total] if tails[total] > _FAR else far(total) for total in totals.tolist()])


def _chance(key: LabelKey) -> float:
    return 1 / (key.num_classes if key.rule == "uniform" else key.num_classes - 1)


def _chunks(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)
