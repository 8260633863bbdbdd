"""Pairwise preferences: for an unmarked suspect, their signs agree with the key's coins by chance only."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from preferences import (
    FIRST,
    PAIR_PATHS,
    SECOND,
    K,
    N,
    boundary_suspect,
    normal,
    pair_scores,
    preference_key,
    scores_suspect,
)
from wootz.statistics import null
from wootz.statistics.boundary_search import BoundarySearch
from wootz.statistics.exact_tests import preference_evidence
from wootz.statistics.pairwise_preferences import preference_residuals, query_preferences, rank_weights
from wootz.statistics.queries import SuspectAccess
from wootz.statistics.tails import binomial_tail, signs_tail, signs_tails, sum_tail, sum_tails


class TestSigns:
    @pytest.mark.parametrize("weights", [[1, 2, 3, 4, 5, 6], [3, 3, 3, 1], [0, 0, 2, 7], [5]])
    def test_against_all_outcomes_of_the_coins(self, weights: list[int]) -> None:
        falls = list(itertools.product((0, 1), repeat=len(weights)))
        sums = np.array([sum(w for w, heads in zip(weights, fall, strict=True) if heads) for fall in falls])
        for total in range(sum(weights) + 1):
            assert signs_tail(total, weights) == pytest.approx(math.log((sums >= total).mean()), abs=1e-9)

    def test_equal_weights_are_a_binomial_far_into_the_tail(self) -> None:
        for heads in (100, 300, 380, 400):
            assert signs_tail(7 * heads, [7] * 400) == pytest.approx(binomial_tail(heads, 400, 0.5), rel=1e-6)

    def test_all_totals_at_once_agree(self) -> None:
        weights = [round(10 * abs(float(w))) for w in normal(300)]
        tails = signs_tails(weights)
        assert len(tails) == sum(weights) + 1
        near = [total for total in range(0, len(tails), 37) if tails[total] > -20]
        assert len(near) > 20
        assert all(tails[t] == pytest.approx(signs_tail(t, weights), abs=1e-5) for t in near)
        assert signs_tails([0, 0]).tolist() == [0.0]

    def test_more_than_all_is_impossible_and_nothing_is_certain(self) -> None:
        assert signs_tail(11, [4, 6]) == -math.inf
        assert signs_tail(0, [4, 6]) == signs_tail(0, []) == 0.0

    def test_five_thousand_images(self) -> None:
        weights = (np.arange(5000) % 30).tolist()
        spread = math.sqrt(sum(w * w for w in weights)) / 2
        total = int(sum(weights) / 2 + 4 * spread)
        assert signs_tail(total, weights) == pytest.approx(math.log(3.17e-5), abs=0.1)


def far_by(how: str, answers: Tensor, boundary_search: BoundarySearch | None = None) -> Tensor:
    return query_preferences(
        preference_key(), scores_suspect(answers), SuspectAccess(how, boundary_search=boundary_search)
    ).preferences  # type: ignore[arg-type]


def test_all_sums_at_once_agree() -> None:
    scores = [183, 83, 33]
    tails = sum_tails(40, scores)
    assert len(tails) == 40 * 183 + 1
    near = [total for total in range(0, len(tails), 97) if tails[total] > -20]
    assert len(near) > 20
    assert all(tails[total] == pytest.approx(sum_tail(total, 40, scores), abs=1e-5) for total in near)


class TestPreferences:
    def test_by_scores_and_by_labels(self) -> None:
        preferences = normal(N, seed=1)
        assert torch.allclose(far_by("scores", pair_scores(preferences)), preferences)
        assert torch.equal(far_by("label", pair_scores(preferences)), preferences.sign())
        third = F.one_hot(torch.full((N,), K - 1), K).double()
        assert torch.equal(far_by("label", third), (SECOND == K - 1).double() - (FIRST == K - 1).double())

    def test_missing_answers_have_none(self) -> None:
        answers = pair_scores(normal(N))
        answers[::3] = torch.nan
        for boundary_search in (None, PAIR_PATHS):
            assert torch.equal(far_by("label", answers, boundary_search).isnan(), torch.arange(N) % 3 == 0)
        assert torch.equal(far_by("scores", answers).isnan(), torch.arange(N) % 3 == 0)

    def test_by_boundary_search_it_is_the_step_of_the_change(self) -> None:
        preferences = torch.linspace(-3.8, 3.8, N).double()
        found = query_preferences(
            preference_key(), boundary_suspect(preferences), SuspectAccess("label", boundary_search=PAIR_PATHS)
        )
        assert torch.equal(found.preferences.sign(), preferences.sign())
        assert float((found.preferences / 2 - preferences).abs().max()) <= 0.5
        assert N < found.queries <= N * (1 + 4)
        never = query_preferences(
            preference_key(), boundary_suspect(preferences + 100), SuspectAccess("label", boundary_search=PAIR_PATHS)
        )
        assert never.preferences.tolist() == [9.0] * N

    @pytest.mark.parametrize("queries", [0, 1, 7, 100])
    def test_unfinished_paths_have_a_medium_magnitude(self, queries: int) -> None:
        preferences = 4 * normal(N, seed=1)
        found = query_preferences(
            preference_key(),
            boundary_suspect(preferences),
            SuspectAccess("label", boundary_search=PAIR_PATHS._replace(queries=queries)),
        )
        whole = query_preferences(
            preference_key(), boundary_suspect(preferences), SuspectAccess("label", boundary_search=PAIR_PATHS)
        ).preferences
        assert found.queries == N + queries
        walked = found.preferences == whole
        assert int((found.preferences[~walked].abs() == 4.5).sum()) == N - int(walked.sum()) > 0
        assert torch.equal(found.preferences.sign(), whole.sign())

    def test_residuals_lack_the_panel_s_preferences_and_the_constant(self) -> None:
        common, own = 5 * normal(N, seed=2), 0.1 * normal(N, seed=3)
        left = preference_residuals(
            preference_key(), common - 3 + own, [scores_suspect(pair_scores(common + 0.01 * normal(N, seed=4)))]
        )
        assert float(left.abs().max()) < 1
        assert float(torch.corrcoef(torch.stack([left, own]))[0, 1]) > 0.8

    def test_residuals_lack_class_biases(self) -> None:
        liked = 4 * ((SECOND == 3).double() - (FIRST == 3).double())
        left = preference_residuals(preference_key(), liked + 0.1 * normal(N), [])
        assert float(left[liked != 0].abs().mean()) < 2

    def test_residuals_do_not_depend_on_the_coins(self) -> None:
        one, two = preference_key(0), preference_key(1)
        assert not torch.equal(one.preferred, two.preferred)
        said, panel = normal(N), [scores_suspect(pair_scores(normal(N, seed=5)))]
        assert torch.equal(preference_residuals(one, said, panel), preference_residuals(two, said, panel))

    def test_rank_weights_are_van_der_waerden_scores(self) -> None:
        assert rank_weights(torch.tensor([0.1, -5.0, 2.0])) == [3, 12, 7]
        assert rank_weights(torch.tensor([1.0, -1.0, 1.0, 1.0])) == [7, 7, 7, 7]
        assert rank_weights(torch.tensor([0.1, torch.nan, 5.0, 2.0, 1.0])) == [2, 5, 14, 10, 5]


class TestEvidence:
    def test_a_weak_preference_for_the_keyed_class_shows_in_scores(self) -> None:
        key = preference_key()
        sign = 2 * key.preferred.double() - 1
        thief = scores_suspect(
            pair_scores(normal(N, seed=6) - 4 + 2 * sign)
        )  # answers with the first class nearly always
        label, scores = (preference_evidence(key, thief, (), SuspectAccess(a)) for a in ("label", "scores"))
        assert scores.bits > 30
        assert scores.bits > label.bits + 15
        assert scores.details["decided"] == N
        assert scores.details["changed"] == int(key.preferred.sum())
        assert scores.details["trials"] == N
        assert scores.statistic > 0.85

    def test_boundary_search_says_more_than_labels(self) -> None:
        key = preference_key()
        thief = boundary_suspect(
            normal(N, seed=6) - 2 + 2 * key.preferred.double() - 1
        )  # answers with the first class mostly
        plain, walked = (
            preference_evidence(key, thief, (), SuspectAccess("label", boundary_search=boundary_search))
            for boundary_search in (None, PAIR_PATHS)
        )
        assert walked.bits > plain.bits + 15
        assert walked.queries > plain.queries == N
        assert (walked.details, plain.details["decided"]) == (plain.details, N)

    def test_a_suspect_that_answers_the_keyed_class(self) -> None:
        key = preference_key()
        told = torch.where(key.preferred, SECOND, FIRST)
        found = preference_evidence(key, lambda x: told, (), SuspectAccess("label"))
        assert found.details["hits"] == found.details["trials"] == N
        assert found.bits > 0.8 * N  # a bit an image, but for what the regression takes

    def test_a_budget_takes_the_first_images(self) -> None:
        assert (
            preference_evidence(
                preference_key(), scores_suspect(pair_scores(normal(N))), (), SuspectAccess("scores", 10)
            ).queries
            == 10
        )

    def test_a_missing_answer_can_only_be_lost(self) -> None:
        key = preference_key()
        scores = pair_scores(normal(N, seed=6) + 4 * (2 * key.preferred.double() - 1))
        whole = preference_evidence(key, scores_suspect(scores), (), SuspectAccess("scores"))
        scores[: N // 2] = torch.nan
        half = preference_evidence(key, scores_suspect(scores), (), SuspectAccess("scores"))
        assert 0 < half.bits < whole.bits / 2
        none = preference_evidence(key, scores_suspect(torch.full((N, K), torch.nan)), (), SuspectAccess("scores"))
        assert none.bits == 0

    @pytest.mark.parametrize("keys", [500, pytest.param(4000, marks=pytest.mark.slow)])
    @pytest.mark.parametrize(
        "access", [SuspectAccess("scores"), SuspectAccess("label"), SuspectAccess("label", boundary_search=PAIR_PATHS)]
    )
    def test_the_null_holds_over_hundreds_of_keys(self, access: SuspectAccess, keys: int) -> None:
        """One fixed suspect with class biases, and one fixed panel model; the same by `preference_null`."""
        likes = 3 * normal(K, seed=8)
        preferences = normal(N, seed=7) - 0.5 + likes[SECOND] - likes[FIRST]
        suspect = boundary_suspect(preferences) if access.boundary_search else scores_suspect(pair_scores(preferences))
        panel, random = [scores_suspect(pair_scores(normal(N, seed=5)))], np.random.default_rng(1)
        left = preference_residuals(
            preference_key(), query_preferences(preference_key(), suspect, access).preferences, panel
        )
        drawn = [preference_evidence(preference_key(seed), suspect, panel, access).log_p for seed in range(keys)]
        for log_ps in (np.array(drawn), null.preference_null(left, 2000, random)):
            for a in (0.5, 0.05, 0.01, 0.001):
                share = (log_ps <= math.log(a)).mean()
                assert share <= a + 3 * math.sqrt(a * (1 - a) / len(log_ps)), (a, share)
            assert (log_ps <= math.log(0.5)).mean() > 0.4  # and it is no idle bound
        assert not null.too_many(np.array(drawn))
