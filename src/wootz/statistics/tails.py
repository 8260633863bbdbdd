"""Exact tail probabilities in log space, accurate from p = 1 to below 2^-10,000, and their combination.

Every tail is ln P(statistic at least this extreme | null), at most 0. If an argument or the result is NaN, there is
nothing to test and ln p is 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, betaln, gammaln, logsumexp

_SMALL = 1e-200  # below this SciPy's value nears underflow, and the series is used
_P = ParamSpec("_P")


def _without_nan(tail: Callable[_P, float]) -> Callable[_P, float]:
    """Return `tail` with the value 0 if an argument or the result is NaN, and never above 0."""

    @wraps(tail)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> float:
        if any(bool(np.isnan(value).any()) for value in (*args, *kwargs.values())):  # type: ignore[call-overload]
            return 0.0
        log_p = tail(*args, **kwargs)
        return 0.0 if math.isnan(log_p) else min(0.0, log_p)

    return checked


def bits(log_p: float) -> float:
    """Return -log2 p, at least 0."""
    return max(0.0, -log_p / math.log(2))


def log_beta_cdf(x: float, a: float, b: float) -> float:
    """Return ln I_x(a, b), the regularized incomplete beta function (DLMF 8.17), for 0 <= x <= 1 and a, b > 0.

    In the far tail it is computed by I_x(a, b) = x^a (1 - x)^b / (a B(a, b)) * F(a + b, 1; a + 1; x), whose terms there
    fall geometrically.
    """
    if math.isnan(x):
        return math.nan
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


@_without_nan
def binomial_tail(hits: int, trials: int, chance: float) -> float:
    """Return ln P(Bin(trials, chance) >= hits)."""
    if hits <= 0:
        return 0.0
    return -math.inf if hits > trials else log_beta_cdf(chance, hits, trials - hits + 1)


@_without_nan
def cosine_tail(cosine: float, dimensions: int) -> float:
    """Return ln P(cos >= cosine) between a fixed direction and an isotropic one in `dimensions` >= 2.

    The squared cosine is Beta(1/2, (dimensions - 1) / 2); equivalently cos * sqrt((D - 1) / (1 - cos^2)) is
    Student's t with D - 1 degrees of freedom. In fewer than 2 dimensions there is nothing to test, and ln p is 0.
    """
    if dimensions < 2:
        return 0.0
    cosine = max(-1.0, min(1.0, cosine))
    log_half = math.log(0.5) + log_beta_cdf((1 - cosine) * (1 + cosine), (dimensions - 1) / 2, 0.5)
    return log_half if cosine > 0 else math.log1p(-math.exp(log_half))


@_without_nan
def hypergeometric_tail(hits: int, drawn: int, marked: int, total: int) -> float:
    """Return ln P(X >= hits) if `drawn` of `total` items are drawn and `marked` of them count (Fisher's exact test)."""
    most = min(drawn, marked)
    if hits <= max(0, drawn + marked - total):
        return 0.0
    if hits > most:
        return -math.inf
    terms = [
        _log_choose(marked, k) + _log_choose(total - marked, drawn - k) - _log_choose(total, drawn)
        for k in range(hits, most + 1)
    ]
    return float(logsumexp(terms))


@_without_nan
def sum_tail(total: int, count: int, scores: Sequence[int]) -> float:
    """Return ln P(sum >= total) of `count` independent draws, each uniform over `scores`, nonnegative integers."""
    most = count * max(scores)
    if total <= count * min(scores):
        return 0.0
    if total >= most:
        return -math.inf if total > most else -count * math.log(len(scores) / list(scores).count(max(scores)))
    return _tilted_tail(total, [(np.bincount(np.asarray(scores)) / len(scores), count)])


@_without_nan
def signs_tail(total: int, weights: Sequence[int]) -> float:
    """Return ln P(sum >= total) of nonnegative integer weights, each counted by a fair coin."""
    most = sum(weights)
    if total <= 0:
        return 0.0
    if total >= most:
        return -math.inf if total > most else -sum(weight > 0 for weight in weights) * math.log(2)
    return _tilted_tail(total, _coins(weights))


def sum_tails(count: int, scores: Sequence[int]) -> np.ndarray:
    """Return `sum_tail` for every total from 0 to the maximum at once; inaccurate below ln 1e-12."""
    return _tails([(np.bincount(np.asarray(scores)) / len(scores), count)])


def signs_tails(weights: Sequence[int]) -> np.ndarray:
    """Return `signs_tail` for every total from 0 to the sum of the weights at once; inaccurate below ln 1e-12."""
    return _tails(_coins(weights))


def _tails(draws: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    spectrum, _ = _spectrum(draws, 0.0)
    sums = np.fft.irfft(spectrum, _most(draws) + 1).clip(0)
    tails: np.ndarray = np.log(sums[::-1].cumsum()[::-1].clip(1e-300, 1))
    return tails


def _coins(weights: Sequence[int]) -> list[tuple[np.ndarray, int]]:
    return [(np.bincount([0, weight]) / 2, count) for weight, count in Counter(weights).items()]


def _tilted_tail(total: int, draws: Sequence[tuple[np.ndarray, int]]) -> float:
    """Return ln P(sum >= total) of independent draws, given as (probabilities of 0, 1, 2, ..., number of draws).

    The distribution of the sum is computed by fast Fourier transform after exponential tilting that makes `total` its
    mean, so that the far tail is not lost to rounding (Siegmund 1976; exact up to the rounding of the transform).
    """

    def surplus(theta: float) -> float:
        means = (count * float(_tilted(chances, theta)[0] @ np.arange(len(chances))) for chances, count in draws)
        return sum(means) - total

    theta = 0.0 if surplus(0.0) >= 0 else float(brentq(surplus, 0.0, 50.0))
    spectrum, log_mass = _spectrum(draws, theta)
    sums = np.fft.irfft(spectrum, _most(draws) + 1)[total:].clip(0)
    tail = float(sums @ np.exp(-theta * np.arange(len(sums))))
    return log_mass - theta * total + math.log(tail)


def _spectrum(draws: Sequence[tuple[np.ndarray, int]], theta: float) -> tuple[np.ndarray, float]:
    """Return the Fourier transform of the tilted distribution of the sum, and the log of its normalization."""
    length = _most(draws) + 1
    spectrum, log_mass = np.ones(length // 2 + 1, dtype=np.complex128), 0.0
    for chances, count in draws:
        weights, log_sum = _tilted(chances, theta)
        spectrum *= np.fft.rfft(weights, length) ** count
        log_mass += count * log_sum
    return spectrum, log_mass


def _tilted(chances: np.ndarray, theta: float) -> tuple[np.ndarray, float]:
    size = len(chances) - 1
    weights = chances * np.exp(theta * np.arange(-size, 1))
    return weights / weights.sum(), math.log(weights.sum()) + theta * size


def _most(draws: Sequence[tuple[np.ndarray, int]]) -> int:
    return sum(count * (len(chances) - 1) for chances, count in draws)


@_without_nan
def fisher(log_ps: Sequence[float]) -> float:
    """Combine independent p-values: ln P(product of m uniforms <= their product) (Fisher 1932).

    Equals ln [q * sum over j < m of (-ln q)^j / j!] with q the product. Keys of different marks are drawn
    independently, so their p-values are independent for any suspect.
    """
    total = -sum(log_ps)
    if not log_ps or total <= 0:
        return 0.0
    if math.isinf(total):
        return -math.inf
    return -total + float(logsumexp([j * math.log(total) - gammaln(j + 1) for j in range(len(log_ps))]))


def _log_choose(n: int, k: int) -> float:
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
