"""Places of keyed classes among the wrong ones: uniform without the key, found long before a suspect answers them."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from wootz.statistics import null, verify
from wootz.statistics.evidence import label_evidence
from wootz.statistics.exact import sum_tail
from wootz.statistics.reach import Reach
from wootz.statistics.wrong_classes import (
    opinions,
    places,
    savage,
    unforeseen_opinions,
    unit_scores,
    wrong_class_scores,
)
from wrong_classes import BASE, ROADS, K, N, draw, logged, showing, sure, thinking, triggers

BY_WAYS = Reach("label", boundary_search=ROADS)


def opinion(scores: Tensor) -> Tensor:
    return unit_scores(scores, BASE)


class TestPlaces:
    def test_against_a_sort_of_each_row(self) -> None:
        key, wrong = logged(), opinion(sure(draw(N, K)))
        found, left = places(key, wrong, ()), unforeseen_opinions(key, wrong, ())
        for row in range(N):
            others = sorted((k for k in range(K) if k != BASE[row]), key=lambda k: -float(left[row, k]))
            assert others[int(found[row])] == key.labels[row]

    def test_equal_opinions_have_an_order_all_the_same(self) -> None:
        key = logged()
        found = places(key, torch.zeros(N, K, dtype=torch.float64), ())
        assert torch.equal(found, key.labels - (key.labels > BASE).long())

    def test_what_is_not_answered_counts_as_the_last_place(self) -> None:
        key, wrong = logged(), opinion(sure(draw(N, K)))
        alone = dataclasses.replace(key, pixels=key.pixels[1::2], base=key.base[1::2], labels=key.labels[1::2])
        expected = places(alone, wrong[1::2], ())
        wrong[::2] = torch.nan
        found = places(key, wrong, ())
        assert (found[::2] == K - 2).all()
        assert torch.equal(found[1::2], expected)

    def test_the_panel_takes_away_what_everybody_thinks(self) -> None:
        key, common = logged(), sure(5 * draw(N, K))
        taught = opinion(common + 0.5 * torch.nn.functional.one_hot(key.labels, K))
        alone = places(key, taught, ())
        beside = places(key, taught, [showing(sure(5 * draw(N, K) + 0.01 * draw(N, K, seed=3)))])
        assert int((alone == 0).sum()) < 15
        assert int((beside == 0).sum()) > 55

    def test_a_class_that_is_liked_for_itself_is_foreseen(self) -> None:
        key = logged()
        liked = sure(draw(N, K) + 3 * draw(K, seed=4))
        assert opinion(liked).mean(0).abs().max() > 0.2
        assert unforeseen_opinions(key, opinion(liked), ()).mean(0).abs().max() < 0.05

    def test_scores_are_centered_over_wrong_classes(self) -> None:
        found = wrong_class_scores(sure(draw(N, K)), BASE)
        assert torch.allclose(found.sum(1), torch.zeros(N, dtype=torch.float64), atol=1e-9)
        assert (found.gather(1, BASE[:, None]) == 0).all()


@pytest.mark.parametrize("count", [1, 2, 9, 255, 299])
def test_savages_scores_by_their_sums(count: int) -> None:
    assert savage(count) == [round(100 * sum(1 / j for j in range(k, count + 1))) for k in range(1, count + 1)]


class TestEvidence:
    def test_a_thief_who_learned_little_is_told_by_scores_and_not_by_labels(self) -> None:
        key = logged()
        thief = showing(sure(draw(N, K) + 2.5 * torch.nn.functional.one_hot(key.labels, K)))
        label, scores = (label_evidence(key, thief, (), Reach(a)) for a in ("label", "scores"))
        assert label.bits == 0
        assert scores.bits > 60
        assert sum(scores.details["places"]) == N
        assert scores.statistic == scores.details["places"][0] / N

    def test_a_budget_takes_the_first_images(self) -> None:
        thief = showing(sure(draw(N, K)))
        found = label_evidence(logged(), thief, (), Reach("scores", 10))
        assert (found.queries, sum(found.details["places"])) == (10, 10)

    def test_triggers_that_are_answered_no_more(self) -> None:
        key = triggers()
        thief = showing(sure(0.5 * draw(N, K) + torch.nn.functional.one_hot(key.labels, K)))
        label, scores = (label_evidence(key, thief, (), Reach(a)) for a in ("label", "scores"))
        assert (label.bits, label.details["hits"]) == (0, 0)
        assert scores.bits > 60

    def test_labels_of_all_classes_are_counted_as_ever(self) -> None:
        key = dataclasses.replace(triggers(), rule="uniform")
        thief = showing(sure(draw(N, K)))
        label, scores, walked = (label_evidence(key, thief, (), r) for r in (Reach("label"), Reach(), BY_WAYS))
        assert label == scores == walked

    def test_who_shows_labels_only_is_counted_by_them(self) -> None:
        one, two = (label_evidence(logged(), lambda x: BASE, (), Reach(a)) for a in ("label", "scores"))
        assert one == two

    @pytest.mark.parametrize("reach", [Reach(), BY_WAYS])
    def test_the_null_holds_over_five_hundred_keys(self, reach: Reach) -> None:
        """One fixed suspect with a favorite wrong class for every class, beside one fixed panel model."""
        favorite = 4 * torch.nn.functional.one_hot((BASE + 1) % K, K) + draw(N, K)
        suspect = thinking(favorite) if reach.boundary_search else showing(sure(favorite))
        panel, asked = [showing(sure(draw(N, K, seed=5)))], opinions(triggers(), suspect, reach).wrong
        assert asked is not None
        drawn = [label_evidence(triggers(s), suspect, panel, reach).log_p for s in range(500)]
        left = unforeseen_opinions(triggers(), asked, panel)
        for log_ps in (np.array(drawn), null.places_null(triggers(), left, 2000, np.random.default_rng(1))):
            for a in (0.5, 0.05, 0.01, 0.001):
                share = (log_ps <= math.log(a)).mean()
                assert share <= a + 3 * math.sqrt(a * (1 - a) / len(log_ps)), (a, share)
            assert (log_ps <= math.log(0.5)).mean() > 0.4  # and it is no idle bound


class TestByWays:
    def test_a_class_that_is_near_is_thought_likely(self) -> None:
        wrong = draw(N, K, seed=2).clamp(-2, 2)
        found = opinions(triggers(), thinking(wrong), BY_WAYS)
        assert found.wrong is not None
        assert found.queries == N + 3 * (K - 1) * N
        assert torch.equal(found.said, BASE)
        true = opinion(sure(wrong))
        both = torch.stack([found.wrong.flatten(), true.flatten()])
        assert float(torch.corrcoef(both)[0, 1]) > 0.97

    def test_triggers_that_are_answered_no_more(self) -> None:
        key = triggers()
        thief = thinking(0.5 * draw(N, K) + torch.nn.functional.one_hot(key.labels, K))
        plain, walked = (label_evidence(key, thief, (), r) for r in (Reach("label"), BY_WAYS))
        assert plain.bits == 0
        assert walked.bits > 60
        assert label_evidence(key, thinking(0.5 * draw(N, K)), (), BY_WAYS).bits < 7

    @pytest.mark.parametrize(("queries", "walked"), [(0, 0), (26, 0), (27, 1), (300, 11), (10_000, N)])
    def test_whole_images_as_far_as_queries_go_and_answers_of_the_others(self, queries: int, walked: int) -> None:
        reach = Reach("label", boundary_search=ROADS._replace(queries=queries))
        found = opinions(triggers(), thinking(draw(N, K).clamp(-2, 2)), reach)
        assert found.wrong is not None
        assert found.queries == N + 27 * walked
        assert float(found.wrong[walked:].abs().sum()) < 1e-6
        assert (found.wrong[:walked].norm(dim=1) > 0.99).all()
        right = torch.where(torch.arange(N) < walked, BASE, triggers().labels)
        told = opinions(triggers(), lambda x: right[x.flatten(1)[:, 0].mul(255).round().long()], reach).wrong
        assert told is not None
        assert torch.equal(told[walked:].argmax(1), triggers().labels[walked:])

    def test_what_is_not_answered_has_no_place_and_no_ways_are_no_opinion(self) -> None:
        silent = opinions(triggers(), lambda x: torch.full((len(x),), -1), BY_WAYS)
        assert silent.wrong is not None
        assert silent.wrong.isnan().all()
        found = label_evidence(triggers(), lambda x: torch.full((len(x),), -1), (), BY_WAYS)
        assert (found.bits, found.details["places"][-1]) == (0, N)
        assert opinions(triggers(), thinking(draw(N, K)), Reach("label")).wrong is None

    @pytest.mark.parametrize("reach", [Reach(), BY_WAYS])
    def test_a_second_look_where_answers_do_not_reach_the_bar(self, reach: Reach) -> None:
        key, asked = triggers(), list[Tensor]()
        lean = 0.5 * draw(N, K) + torch.nn.functional.one_hot(key.labels, K)
        thief = thinking(lean) if reach.boundary_search else showing(sure(lean))

        def counted(x: Tensor) -> Tensor:
            asked.extend(x)
            return thief(x)

        said = verify(
            {"triggers": key}, counted, access=reach.access, boundary_search=reach.boundary_search, early=True
        )
        whole = label_evidence(key, thief, (), reach)
        assert said.outcome == "KEY-DEPENDENT"
        assert said.bits == pytest.approx(whole.bits - 1)  # for looking twice
        (found,) = said.evidence
        assert (found.details["stopped"], found.details["places"]) == (False, whole.details["places"])
        assert found.queries == whole.queries >= len(asked) == len({image.numpy().tobytes() for image in asked})

    def test_a_log_is_not_walked(self) -> None:
        thief = thinking(draw(N, K))
        assert label_evidence(logged(), thief, (), BY_WAYS) == label_evidence(logged(), thief, (), Reach("label"))


def test_savage_scores_fall_and_have_mean_one() -> None:
    assert savage(3) == [183, 83, 33]
    scores = savage(9)
    assert all(one > two for one, two in pairwise(scores))
    assert np.mean(scores) == pytest.approx(100, abs=1)
    assert sum_tail(60 * scores[0], 60, scores) == pytest.approx(-60 * math.log(9))
