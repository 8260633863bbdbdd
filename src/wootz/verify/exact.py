"""Exact tails, in log space: valid from p = 1 down to ten thousand bits and below.

Every function returns ln P(statistic at least this extreme | null), at most 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, betaln, gammaln, logsumexp

_SMALL = 1e-200  # below this the library's value nears underflow and the series takes over


def bits(log_p: float) -> float:
    """Return -log2 p, at least 0."""
    return max(0.0, -log_p / math.log(2))


def log_beta_cdf(x: float, a: float, b: float) -> float:
    """Return ln I_x(a, b), the regularized incomplete beta function (DLMF 8.17), for 0 <= x <= 1 and a, b > 0.

    In the far tail by I_x(a, b) = x^a (1 - x)^b / (a B(a, b)) * F(a + b, 1; a + 1; x), whose terms there
    fall geometrically.
    """
    if x <= 0:
        return -math.inf
    value = float(betainc(a, b, x))
    if value > _SMALL:
        return math.log(value)
    term = total = 1.0
    for k in range(100_000):
        term *= (a + b + k) / (a + 1 + k) * x
        total += term
        if term < 1e-17 * total:
            break
    return a * math.log(x) + b * math.log1p(-x) - math.log(a) - float(betaln(a, b)) + math.log(total)


def binomial_tail(hits: int, trials: int, chance: float) -> float:
    """Return ln P(Bin(trials, chance) >= hits)."""
    return 0.0 if hits <= 0 else min(0.0, log_beta_cdf(chance, hits, trials - hits + 1))


def cosine_tail(cosine: float, dimensions: int) -> float:
    """Return ln P(cos >= cosine) between a fixed direction and an isotropic one in `dimensions` >= 2.

    The squared cosine is Beta(1/2, (dimensions - 1) / 2); equivalently cos * sqrt((D - 1) / (1 - cos^2)) is
    Student t with D - 1 degrees of freedom.
    """
    cosine = max(-1.0, min(1.0, cosine))
    log_half = math.log(0.5) + log_beta_cdf((1 - cosine) * (1 + cosine), (dimensions - 1) / 2, 0.5)
    return log_half if cosine > 0 else math.log1p(-math.exp(log_half))


def hypergeometric_tail(hits: int, drawn: int, marked: int, total: int) -> float:
    """Return ln P(X >= hits) when `drawn` of `total` items are drawn and `marked` of them count (Fisher's exact)."""
    most = min(drawn, marked)
    if hits <= max(0, drawn + marked - total):
        return 0.0
    terms = [
        _log_choose(marked, k) + _log_choose(total - marked, drawn - k) - _log_choose(total, drawn)
        for k in range(hits, most + 1)
    ]
    return min(0.0, float(logsumexp(terms))) if terms else -math.inf


def sum_tail(total: int, count: int, scores: Sequence[int]) -> float:
    """Return ln P(sum of `count` independent draws >= total), each uniform over `scores`, whole numbers of 0 and more.

    The sum's distribution by fast Fourier transform, tilted so that `total` is its mean: there it is largest, and
    nothing of the far tail is lost to rounding (Siegmund 1976; exact up to the transform's rounding).
    """
    values, size = np.asarray(scores, dtype=np.float64), max(scores)
    if total <= count * min(scores):
        return 0.0
    if total >= count * size:
        return -math.inf if total > count * size else -count * math.log(len(values) / values.tolist().count(size))
    drawn = np.bincount(np.asarray(scores)) / len(values)
    grid = np.arange(size + 1, dtype=np.float64)

    def tilted(theta: float) -> np.ndarray:
        weights: np.ndarray = drawn * np.exp(theta * (grid - size))
        return weights

    def surplus(theta: float) -> float:
        return float(tilted(theta) @ grid / tilted(theta).sum()) - total / count

    theta = 0.0 if surplus(0.0) >= 0 else float(brentq(surplus, 0.0, 50.0))
    mass = tilted(theta).sum()
    spectrum = np.fft.rfft(tilted(theta) / mass, length := count * size + 1)
    sums = np.fft.irfft(spectrum**count, length)[total:].clip(0)
    tail = float(sums @ np.exp(-theta * np.arange(len(sums))))
    return min(0.0, count * (math.log(mass) + theta * size) - theta * total + math.log(tail))


def signs_tail(total: int, weights: Sequence[int]) -> float:
    """Return ln P(sum of the weights, whole numbers of 0 and more, whose fair coins fall heads >= total).

    By the same transform and tilt as `sum_tail`, equal weights taken together.
    """
    most = sum(weights)
    if total <= 0:
        return 0.0
    if total >= most:
        return -math.inf if total > most else -sum(weight > 0 for weight in weights) * math.log(2)
    values, counts = np.unique(np.asarray(weights, dtype=np.float64), return_counts=True)

    def surplus(theta: float) -> float:
        return float(counts @ (values / (1 + np.exp(-theta * values)))) - total

    theta = 0.0 if surplus(0.0) >= 0 else float(brentq(surplus, 0.0, 50.0))
    heads = 1 / (1 + np.exp(-theta * values))
    turns = np.exp(-2j * np.pi * np.outer(np.arange((most + 1) // 2 + 1) / (most + 1), values))
    spectrum = np.prod((1 - heads + heads * turns) ** counts, axis=1)
    sums = np.fft.irfft(spectrum, most + 1)[total:].clip(0)
    mass = float(counts @ (np.logaddexp(0.0, theta * values) - math.log(2)))
    tail = float(sums @ np.exp(-theta * np.arange(len(sums))))
    return min(0.0, mass - theta * total + math.log(tail))


def fisher(log_ps: Sequence[float]) -> float:
    """Combine independent p-values: ln P(product of m uniforms <= their product) (Fisher 1932).

    Equals ln [q * sum over j < m of (-ln q)^j / j!] with q the product. Keys of different marks are drawn
    independently, so their p-values are independent whatever the suspect is.
    """
    total = -sum(log_ps)
    if not log_ps or total <= 0:
        return 0.0
    return min(0.0, -total + float(logsumexp([j * math.log(total) - gammaln(j + 1) for j in range(len(log_ps))])))


def _log_choose(n: int, k: int) -> float:
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
