"""Exact tails against naive re-derivations: rational sums, numerical integration, simulation."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wootz.statistics.tails import (
    binomial_tail,
    bits,
    cosine_tail,
    fisher,
    hypergeometric_tail,
    log_beta_cdf,
    signs_tail,
    sum_tail,
)

COUNTS = st.integers(-3, 60)
NUMBERS = st.floats(allow_nan=False)
TOTALS = COUNTS | st.sampled_from([math.inf, -math.inf])
TAILS = (
    st.tuples(st.just(binomial_tail), st.tuples(COUNTS | NUMBERS, st.integers(0, 60), st.floats(0, 1)))
    | st.tuples(st.just(cosine_tail), st.tuples(NUMBERS, st.integers(0, 3000)))
    | st.tuples(st.just(hypergeometric_tail), st.tuples(COUNTS, *[st.integers(0, 20)] * 2, st.integers(20, 60)))
    | st.tuples(st.just(sum_tail), st.tuples(TOTALS, st.integers(0, 9), st.sampled_from([(0,), (2, 1, 0)])))
    | st.tuples(st.just(signs_tail), st.tuples(TOTALS, st.lists(st.integers(0, 9), max_size=9)))
    | st.tuples(st.just(fisher), st.tuples(st.lists(NUMBERS, max_size=5)))
)
"""A tail, and arguments of it: no NaN, but infinities, and statistics beyond all that can be."""


def log_fraction(value: Fraction) -> float:
    return math.log(value.numerator) - math.log(value.denominator)


@pytest.mark.parametrize("trials", [1, 2, 7, 20, 64])
@pytest.mark.parametrize("chance", [Fraction(1, 2), Fraction(1, 9), Fraction(1, 10)])
def test_binomial_tail_equals_the_sum_of_its_terms(trials: int, chance: Fraction) -> None:
    for hits in range(trials + 1):
        naive = sum(
            (math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(hits, trials + 1)),
            Fraction(0),
        )
        assert binomial_tail(hits, trials, float(chance)) == pytest.approx(log_fraction(naive), rel=1e-12, abs=1e-12)


def test_binomial_tail_at_ten_thousand_bits() -> None:
    assert binomial_tail(4000, 4000, 0.1) == pytest.approx(4000 * math.log(0.1), rel=1e-12)
    assert bits(binomial_tail(4000, 4000, 0.1)) > 13_000
    naive = sum(math.comb(3500, k) * Fraction(1, 10) ** k * Fraction(9, 10) ** (3500 - k) for k in range(3300, 3501))
    assert binomial_tail(3300, 3500, 0.1) == pytest.approx(log_fraction(Fraction(naive)), rel=1e-10)


@pytest.mark.parametrize("scores", [[1, 0, 0], [283, 183, 133, 100], [5, 5, 2, 0]])
def test_sum_tail_equals_a_count_of_all_draws(scores: list[int]) -> None:
    draws = Counter(map(sum, product(scores, repeat=6)))
    for total in range(6 * min(scores), 6 * max(scores) + 1, 7):
        naive = sum(count for reached, count in draws.items() if reached >= total) / len(scores) ** 6
        assert sum_tail(total, 6, scores) == pytest.approx(math.log(naive), rel=1e-9, abs=1e-9)
    assert sum_tail(6 * max(scores) + 1, 6, scores) == -math.inf


@pytest.mark.parametrize("hits", [0, 1, 20, 90, 300, 399, 400])
def test_sum_tail_of_ones_and_zeros_is_the_binomial_one(hits: int) -> None:
    assert sum_tail(hits, 400, [1] + [0] * 8) == pytest.approx(binomial_tail(hits, 400, 1 / 9), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dimensions", [2, 3, 30, 2400])
def test_cosine_tail_is_students_t(dimensions: int) -> None:
    for cosine in (-0.9, -0.1, 0.0, 0.01, 0.1, 0.3, 0.6):
        t = cosine * math.sqrt((dimensions - 1) / (1 - cosine**2))
        expected = stats.t.logsf(t, dimensions - 1)
        if expected > -600:
            assert cosine_tail(cosine, dimensions) == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_cosine_tail_where_the_library_underflows() -> None:
    # In odd dimension 3 the cosine is uniform on [-1, 1]: P(cos >= c) = (1 - c) / 2.
    assert cosine_tail(0.25, 3) == pytest.approx(math.log(0.375), rel=1e-12)
    # Leading term of the tail for large dimensions: (1 - c^2)^((D - 1) / 2) / (c sqrt(2 pi D)).
    for cosine, dimensions in ((0.6, 4000), (0.9, 8000)):
        leading = (dimensions - 1) / 2 * math.log1p(-(cosine**2)) - math.log(
            cosine * math.sqrt(2 * math.pi * dimensions)
        )
        assert cosine_tail(cosine, dimensions) == pytest.approx(leading, rel=1e-3)
    assert bits(cosine_tail(0.9, 12_000)) > 10_000
    assert cosine_tail(1.0, 2400) == -math.inf


def test_cosine_tail_by_simulation() -> None:
    draws = np.random.default_rng(0).standard_normal((200_000, 5))
    cosines = draws[:, 0] / np.linalg.norm(draws, axis=1)
    for cosine in (0.2, 0.6, 0.9):
        share = (cosines >= cosine).mean()
        assert math.exp(cosine_tail(cosine, 5)) == pytest.approx(share, abs=4 * math.sqrt(share / 200_000) + 1e-6)


@pytest.mark.parametrize(("drawn", "marked", "total"), [(5, 4, 9), (10, 10, 20), (3, 8, 20), (100, 100, 200)])
def test_hypergeometric_tail_equals_the_sum_of_its_terms(drawn: int, marked: int, total: int) -> None:
    for hits in range(min(drawn, marked) + 1):
        naive = sum(
            (
                Fraction(math.comb(marked, k) * math.comb(total - marked, drawn - k), math.comb(total, drawn))
                for k in range(hits, min(drawn, marked) + 1)
                if drawn - k <= total - marked
            ),
            Fraction(0),
        )
        assert hypergeometric_tail(hits, drawn, marked, total) == pytest.approx(log_fraction(naive), rel=1e-9, abs=1e-9)


def test_fisher_is_fishers() -> None:
    for ps in ([0.5], [0.03, 0.2], [1e-5, 0.9, 0.4]):
        expected = stats.combine_pvalues(ps, "fisher").pvalue
        assert math.exp(fisher([math.log(p) for p in ps])) == pytest.approx(expected, rel=1e-10)
    assert fisher([]) == 0
    assert fisher([0.0, 0.0]) == 0
    assert bits(fisher([-5000.0, -2000.0])) > 10_000


def test_log_beta_agrees_on_both_sides_of_the_switch() -> None:
    for a in (600.0, 640.0, 680.0, 720.0):
        below = a * math.log(0.5) - 0.5 * math.log(a) + 0.5 * math.log(2 / math.pi)
        assert log_beta_cdf(0.5, a, 0.5) == pytest.approx(below, rel=1e-3)
    steps = [log_beta_cdf(0.5, a, 0.5) for a in np.linspace(640, 690, 200)]
    falls = np.diff(steps)
    assert (falls < 0).all()
    assert np.abs(np.diff(falls)).max() < 1e-5  # no jump where the series takes over


def test_the_ends() -> None:
    assert binomial_tail(0, 10, 0.1) == 0
    assert binomial_tail(0, 0, 0.1) == 0
    assert hypergeometric_tail(0, 5, 5, 20) == 0
    assert log_beta_cdf(0.0, 2, 3) == -math.inf
    assert bits(0.0) == 0


@given(TAILS)
def test_every_tail_is_the_logarithm_of_a_probability(drawn: tuple) -> None:
    tail, arguments = drawn
    assert -math.inf <= tail(*arguments) <= 0


@given(TAILS, st.data())
def test_a_liar_gains_nothing_by_nan(drawn: tuple, data: st.DataObject) -> None:
    tail, arguments = drawn
    at = data.draw(st.integers(0, len(arguments) - 1))
    spoilt = [*arguments[at], math.nan] if isinstance(arguments[at], list | tuple) else math.nan
    assert tail(*arguments[:at], spoilt, *arguments[at + 1 :]) == 0


@given(st.lists(st.floats(-1e4, 0), max_size=5))
def test_what_is_impossible_alone_is_impossible_together(log_ps: list[float]) -> None:
    assert fisher([*log_ps, -math.inf]) == -math.inf
    assert fisher([*log_ps, -math.inf, math.nan]) == 0


def test_more_than_all_is_impossible() -> None:
    assert binomial_tail(6, 5, 0.5) == hypergeometric_tail(6, 5, 5, 20) == -math.inf


def test_without_dimensions_there_is_nothing_to_test() -> None:
    assert cosine_tail(1.0, 0) == cosine_tail(1.0, 1) == 0
