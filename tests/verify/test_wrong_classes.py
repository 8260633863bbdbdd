"""Places of keyed classes among the wrong ones: uniform without the key, found long before a suspect answers them."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from wootz.errors import ModelError
from wootz.verify.evidence import label_evidence
from wootz.verify.exact import sum_tail
from wootz.verify.reach import Reach
from wootz.verify.wrong_classes import places, savage, wrong_class_scores
from wrong_classes import BASE, K, N, draw, logged, showing, sure


class TestPlaces:
    def test_against_a_sort_of_each_row(self) -> None:
        key, scores = logged(), sure(draw(N, K))
        found = places(key, scores, ())
        for row in range(N):
            others = sorted((k for k in range(K) if k != BASE[row]), key=lambda k: -float(scores[row, k]))
            assert others[int(found[row])] == key.labels[row]

    def test_equal_scores_have_an_order_all_the_same(self) -> None:
        key = logged()
        found = places(key, sure(torch.zeros(N, K, dtype=torch.float64)), ())
        assert torch.equal(found, key.labels - (key.labels > BASE).long())

    def test_what_is_not_answered_counts_as_the_last_place(self) -> None:
        key, scores = logged(), sure(draw(N, K))
        scores[::2] = torch.nan
        found = places(key, scores, ())
        assert (found[::2] == K - 2).all()
        assert torch.equal(found[1::2], places(key, sure(draw(N, K)), ())[1::2])

    def test_the_panel_takes_away_what_everybody_thinks(self) -> None:
        key, common = logged(), sure(5 * draw(N, K))
        taught = 0.5 * torch.nn.functional.one_hot(key.labels, K)
        alone = places(key, common + taught, ())
        beside = places(key, common + taught, [showing(sure(5 * draw(N, K) + 0.01 * draw(N, K, seed=3)))])
        assert int((alone == 0).sum()) < 15
        assert int((beside == 0).sum()) > 55

    def test_scores_are_centered_over_wrong_classes(self) -> None:
        found = wrong_class_scores(sure(draw(N, K)), BASE)
        assert torch.allclose(found.sum(1), torch.zeros(N, dtype=torch.float64), atol=1e-9)
        assert (found.gather(1, BASE[:, None]) == 0).all()


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

    def test_triggers_are_counted_as_ever(self) -> None:
        key = dataclasses.replace(logged(), logged=False)
        thief = showing(sure(draw(N, K)))
        one, two = (label_evidence(key, thief, (), Reach(a)) for a in ("label", "scores"))
        assert one == two

    def test_labels_have_no_places(self) -> None:
        with pytest.raises(ModelError, match="--access label"):
            label_evidence(logged(), lambda x: torch.zeros(len(x)), (), Reach("scores"))

    def test_the_null_holds_over_five_hundred_keys(self) -> None:
        """One fixed suspect with a favorite wrong class for every class, beside one fixed panel model."""
        favorite = 4 * torch.nn.functional.one_hot((BASE + 1) % K, K) + draw(N, K)
        suspect, panel = showing(sure(favorite)), [showing(sure(draw(N, K, seed=5)))]
        log_ps = np.array([label_evidence(logged(s), suspect, panel, Reach("scores")).log_p for s in range(500)])
        for a in (0.5, 0.05, 0.01, 0.001):
            share = (log_ps <= math.log(a)).mean()
            assert share <= a + 3 * math.sqrt(a * (1 - a) / len(log_ps)), (a, share)
        assert (log_ps <= math.log(0.5)).mean() > 0.4  # and it is no idle bound


def test_savage_scores_fall_and_have_mean_one() -> None:
    assert savage(3) == [183, 83, 33]
    scores = savage(9)
    assert all(one > two for one, two in pairwise(scores))
    assert np.mean(scores) == pytest.approx(100, abs=1)
    assert sum_tail(60 * scores[0], 60, scores) == pytest.approx(-60 * math.log(9))
