"""A test that may stop whenever it likes: the mixture e-process of keyed hits.

Under the null every counted answer hits with a known chance c. The likelihood ratio of a hit rate r > c, averaged
over r uniform on (c, 1], is a nonnegative martingale that starts at 1; by Ville's inequality it ever reaches 2^b
with probability at most 2^-b, so 1 / its highest value is a p-value under any stopping rule (Vovk and Wang,
arXiv 1912.06116).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from scipy.special import betaln

from wootz.statistics.exact import bits, log_beta_cdf


def log_e_value(hits: int, trials: int, chance: float) -> float:
    """Return ln of the mixture likelihood ratio after `hits` of `trials` counted answers.

    ln [ B(h+1, m-h+1) * P(r > c) / ((1-c) * c^h * (1-c)^(m-h)) ] with r ~ Beta(h+1, m-h+1). Where every answer hits by
    chance there is nothing to test, and it is 0.
    """
    if chance >= 1:
        return 0.0
    misses = trials - hits
    above = log_beta_cdf(1 - chance, misses + 1, hits + 1)
    null = hits * math.log(chance) + misses * math.log1p(-chance)
    return float(betaln(hits + 1, misses + 1)) + above - math.log1p(-chance) - null


class SequentialResult(NamedTuple):
    """Where a sequential test ended.

    Attributes:
        asked: answers taken, counted or not.
        trials: answers that counted.
        hits: counted answers with the keyed label.
        log_p: ln of 1 / the highest e-value on the way, at most 0.
        crossed: whether the bar was reached.
    """

    asked: int
    trials: int
    hits: int
    log_p: float
    crossed: bool


def run_sequential_test(answers: Iterable[tuple[bool, bool]], chance: float, bar: float) -> SequentialResult:
    """Follow the e-process over (counted, hit) answers, taken one by one, until it reaches `bar` bits or they end.

    `answers` may be lazy: what lies after the crossing is never asked.
    """
    asked = trials = hits = 0
    best = 0.0
    for counted, hit in answers:
        asked += 1
        trials += counted
        hits += counted and hit
        best = max(best, log_e_value(hits, trials, chance))
        if bits(-best) >= bar:
            return SequentialResult(asked, trials, hits, -best, True)
    return SequentialResult(asked, trials, hits, -best, False)
