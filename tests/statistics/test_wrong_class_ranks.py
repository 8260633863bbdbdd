"""Ranks of keyed labels among the wrong classes: uniform without the key, and informative before labels change."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from wootz.statistics import null, verify
from wootz.statistics.exact_tests import label_evidence
from wootz.statistics.queries import SuspectAccess
from wootz.statistics.tails import sum_tail
from wootz.statistics.wrong_class_ranks import (
    keyed_label_ranks,
    query_wrong_classes,
    savage_scores,
    unit_scores,
    wrong_class_residuals,
    wrong_class_scores,
)
from wrong_classes import (
    BASE,
    PATHS,
    K,
    N,
    boundary_suspect,
    confident,
    logged_key,
    normal,
    scores_suspect,
    trigger_key,
)

BY_BOUNDARIES = SuspectAccess("label", boundary_search=PATHS)


def opinion(scores: Tensor) -> Tensor:
    return unit_scores(scores, BASE)


class TestRanks:
    def test_against_a_sort_of_each_row(self) -> None:
        key, wrong = logged_key(), opinion(confident(normal(N, K)))
        found, left = keyed_label_ranks(key, wrong, ()), wrong_class_residuals(key, wrong, ())
        for row in range(N):
            others = sorted((k for k in range(K) if k != BASE[row]), key=lambda k: -float(left[row, k]))
            assert others[int(found[row])] == key.labels[row]

    def test_ties_are_broken_by_class_number(self) -> None:
        key = logged_key()
        found = keyed_label_ranks(key, torch.zeros(N, K, dtype=torch.float64), ())
        assert torch.equal(found, key.labels - (key.labels > BASE).long())

    def test_a_missing_answer_has_the_last_rank(self) -> None:
        key, wrong = logged_key(), opinion(confident(normal(N, K)))
        alone = dataclasses.replace(key, pixels=key.pixels[1::2], base=key.base[1::2], labels=key.labels[1::2])
        expected = keyed_label_ranks(alone, wrong[1::2], ())
        wrong[::2] = torch.nan
        found = keyed_label_ranks(key, wrong, ())
        assert (found[::2] == K - 2).all()
        assert torch.equal(found[1::2], expected)

    def test_panel_models_remove_common_scores(self) -> None:
        key, common = logged_key(), confident(5 * normal(N, K))
        taught = opinion(common + 0.5 * torch.nn.functional.one_hot(key.labels, K))
        alone = keyed_label_ranks(key, taught, ())
        beside = keyed_label_ranks(
            key, taught, [scores_suspect(confident(5 * normal(N, K) + 0.01 * normal(N, K, seed=3)))]
        )
        assert int((alone == 0).sum()) < 15
        assert int((beside == 0).sum()) > 55

    def test_residuals_lack_class_biases(self) -> None:
        key = logged_key()
        liked = confident(normal(N, K) + 3 * normal(K, seed=4))
        assert opinion(liked).mean(0).abs().max() > 0.2
        assert wrong_class_residuals(key, opinion(liked), ()).mean(0).abs().max() < 0.05

    def test_scores_are_centered_over_wrong_classes(self) -> None:
        found = wrong_class_scores(confident(normal(N, K)), BASE)
        assert torch.allclose(found.sum(1), torch.zeros(N, dtype=torch.float64), atol=1e-9)
        assert (found.gather(1, BASE[:, None]) == 0).all()


@pytest.mark.parametrize("count", [1, 2, 9, 255, 299])
def test_savages_scores_by_their_sums(count: int) -> None:
    assert savage_scores(count) == [round(100 * sum(1 / j for j in range(k, count + 1))) for k in range(1, count + 1)]


class TestEvidence:
    def test_an_extracted_model_of_little_training_shows_in_scores_but_not_in_labels(self) -> None:
        key = logged_key()
        thief = scores_suspect(confident(normal(N, K) + 2.5 * torch.nn.functional.one_hot(key.labels, K)))
        label, scores = (label_evidence(key, thief, (), SuspectAccess(a)) for a in ("label", "scores"))
        assert label.bits == 0
        assert scores.bits > 60
        assert sum(scores.details["places"]) == N
        assert scores.statistic == scores.details["places"][0] / N

    def test_a_budget_takes_the_first_images(self) -> None:
        thief = scores_suspect(confident(normal(N, K)))
        found = label_evidence(logged_key(), thief, (), SuspectAccess("scores", 10))
        assert (found.queries, sum(found.details["places"])) == (10, 10)

    def test_triggers_that_are_no_longer_answered(self) -> None:
        key = trigger_key()
        thief = scores_suspect(confident(0.5 * normal(N, K) + torch.nn.functional.one_hot(key.labels, K)))
        label, scores = (label_evidence(key, thief, (), SuspectAccess(a)) for a in ("label", "scores"))
        assert (label.bits, label.details["hits"]) == (0, 0)
        assert scores.bits > 60

    def test_uniform_labels_are_counted_by_answers(self) -> None:
        key = dataclasses.replace(trigger_key(), rule="uniform")
        thief = scores_suspect(confident(normal(N, K)))
        label, scores, walked = (
            label_evidence(key, thief, (), r) for r in (SuspectAccess("label"), SuspectAccess(), BY_BOUNDARIES)
        )
        assert label == scores == walked

    def test_label_only_answers_are_counted(self) -> None:
        one, two = (label_evidence(logged_key(), lambda x: BASE, (), SuspectAccess(a)) for a in ("label", "scores"))
        assert one == two

    @pytest.mark.parametrize(
        ("access", "keys"),
        [(SuspectAccess(), 500), (BY_BOUNDARIES, 100), pytest.param(BY_BOUNDARIES, 1000, marks=pytest.mark.slow)],
    )
    def test_the_null_holds_over_hundreds_of_keys(self, access: SuspectAccess, keys: int) -> None:
        """One fixed suspect with a favorite wrong class for every class, beside one fixed panel model."""
        favorite = 4 * torch.nn.functional.one_hot((BASE + 1) % K, K) + normal(N, K)
        suspect = boundary_suspect(favorite) if access.boundary_search else scores_suspect(confident(favorite))
        panel, asked = (
            [scores_suspect(confident(normal(N, K, seed=5)))],
            query_wrong_classes(trigger_key(), suspect, access).scores,
        )
        assert asked is not None
        drawn = [label_evidence(trigger_key(s), suspect, panel, access).log_p for s in range(keys)]
        left = wrong_class_residuals(trigger_key(), asked, panel)
        for log_ps in (np.array(drawn), null.rank_null(trigger_key(), left, 2000, np.random.default_rng(1))):
            for a in (0.5, 0.05, 0.01, 0.001):
                share = (log_ps <= math.log(a)).mean()
                assert share <= a + 3 * math.sqrt(a * (1 - a) / len(log_ps)), (a, share)
            assert (log_ps <= math.log(0.5)).mean() > 0.4  # and it is no idle bound


class TestByBoundarySearch:
    def test_scores_follow_the_distance_to_the_boundary(self) -> None:
        wrong = normal(N, K, seed=2).clamp(-2, 2)
        found = query_wrong_classes(trigger_key(), boundary_suspect(wrong), BY_BOUNDARIES)
        assert found.scores is not None
        assert found.queries == N + 3 * (K - 1) * N
        assert torch.equal(found.labels, BASE)
        true = opinion(confident(wrong))
        both = torch.stack([found.scores.flatten(), true.flatten()])
        assert float(torch.corrcoef(both)[0, 1]) > 0.97

    def test_triggers_that_are_no_longer_answered(self) -> None:
        key = trigger_key()
        thief = boundary_suspect(0.5 * normal(N, K) + torch.nn.functional.one_hot(key.labels, K))
        plain, walked = (label_evidence(key, thief, (), r) for r in (SuspectAccess("label"), BY_BOUNDARIES))
        assert plain.bits == 0
        assert walked.bits > 60
        assert label_evidence(key, boundary_suspect(0.5 * normal(N, K)), (), BY_BOUNDARIES).bits < 7

    @pytest.mark.parametrize(("queries", "walked"), [(0, 0), (26, 0), (27, 1), (300, 11), (10_000, N)])
    def test_images_without_queries_left_count_by_their_label(self, queries: int, walked: int) -> None:
        access = SuspectAccess("label", boundary_search=PATHS._replace(queries=queries))
        found = query_wrong_classes(trigger_key(), boundary_suspect(normal(N, K).clamp(-2, 2)), access)
        assert found.scores is not None
        assert found.queries == N + 27 * walked
        assert float(found.scores[walked:].abs().sum()) < 1e-6
        assert (found.scores[:walked].norm(dim=1) > 0.99).all()
        right = torch.where(torch.arange(N) < walked, BASE, trigger_key().labels)
        told = query_wrong_classes(
            trigger_key(), lambda x: right[x.flatten(1)[:, 0].mul(255).round().long()], access
        ).scores
        assert told is not None
        assert torch.equal(told[walked:].argmax(1), trigger_key().labels[walked:])

    def test_missing_answers_have_no_scores_and_labels_alone_give_none(self) -> None:
        silent = query_wrong_classes(trigger_key(), lambda x: torch.full((len(x),), -1), BY_BOUNDARIES)
        assert silent.scores is not None
        assert silent.scores.isnan().all()
        found = label_evidence(trigger_key(), lambda x: torch.full((len(x),), -1), (), BY_BOUNDARIES)
        assert (found.bits, found.details["places"][-1]) == (0, N)
        assert query_wrong_classes(trigger_key(), boundary_suspect(normal(N, K)), SuspectAccess("label")).scores is None

    @pytest.mark.parametrize("access", [SuspectAccess(), BY_BOUNDARIES])
    def test_a_second_look_where_answers_do_not_reach_the_bar(self, access: SuspectAccess) -> None:
        key, asked = trigger_key(), list[Tensor]()
        lean = 0.5 * normal(N, K) + torch.nn.functional.one_hot(key.labels, K)
        thief = boundary_suspect(lean) if access.boundary_search else scores_suspect(confident(lean))

        def counted(x: Tensor) -> Tensor:
            asked.extend(x)
            return thief(x)

        said = verify(
            {"triggers": key}, counted, access=access.level, boundary_search=access.boundary_search, sequential=True
        )
        whole = label_evidence(key, thief, (), access)
        assert said.outcome == "KEY-DEPENDENT"
        assert said.bits == pytest.approx(whole.bits - 1)  # for looking twice
        (found,) = said.evidence
        assert (found.details["stopped"], found.details["places"]) == (False, whole.details["places"])
        assert found.queries == whole.queries >= len(asked) == len({image.numpy().tobytes() for image in asked})

    def test_a_log_is_tested_without_boundary_search(self) -> None:
        thief = boundary_suspect(normal(N, K))
        assert label_evidence(logged_key(), thief, (), BY_BOUNDARIES) == label_evidence(
            logged_key(), thief, (), SuspectAccess("label")
        )


def test_savage_scores_fall_and_have_mean_one() -> None:
    assert savage_scores(3) == [183, 83, 33]
    scores = savage_scores(9)
    assert all(one > two for one, two in pairwise(scores))
    assert np.mean(scores) == pytest.approx(100, abs=1)
    assert sum_tail(60 * scores[0], 60, scores) == pytest.approx(-60 * math.log(9))
