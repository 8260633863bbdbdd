"""Walks: a suspect is followed out of a class, in order, within its queries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from orders import FIRST, SECOND, N, ordered, showing
from wootz.errors import ConfigError
from wootz.stages.suspects import Asking
from wootz.types import Predict
from wootz.verify import verify
from wootz.verify.walks import Ways, follow

STOPS = (0.25, 0.5, 0.75, 1.0)


def columns(x: Tensor) -> Tensor:
    """Return the class, of three, whose column of an image [N, 1, 1, 3] is brightest."""
    return x.flatten(1).argmax(1)


class Counted:
    """A suspect that keeps what it was asked."""

    def __init__(self, answer: Predict) -> None:
        self.answer, self.asked = answer, list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        self.asked.append(x)
        return self.answer(x)

    @property
    def queries(self) -> int:
        return sum(map(len, self.asked))


def towards(*ends: float, queries: int = 1000) -> Ways:
    """Return ways that all end at one image."""
    return Ways(lambda x, classes: torch.tensor(ends).expand_as(x), STOPS, queries)


X = torch.tensor([[255, 128, 51], [255, 51, 128], [0, 255, 102]], dtype=torch.uint8).view(3, 1, 1, 3)
Y = torch.tensor([0, 0, 1])


class TestFollow:
    def test_it_is_what_is_met_first_on_the_way(self) -> None:
        found = follow(columns, X[:2], Y[:2], towards(0.0, 0.6, 0.6))
        assert dict(zip(found.rows.tolist(), found.answers.tolist(), strict=True)) == {0: 1, 1: 2}

    def test_a_class_met_later_is_not_taken(self) -> None:
        """On the way from (1, 0.5, 0.2) to (0, 0.6, 0.9) the second column leads for a while, and then the third."""
        suspect = Counted(columns)
        found = follow(suspect, X[:1], Y[:1], towards(0.0, 0.6, 0.9))
        assert (found.answers.tolist(), found.stops.tolist(), found.queries) == ([1], [1], 2)
        assert suspect.queries == 2
        assert columns(torch.tensor([[0.0, 0.6, 0.9]])).tolist() == [2]

    def test_the_point_is_what_was_asked(self) -> None:
        suspect = Counted(columns)
        found = follow(suspect, X, Y, towards(0.0, 0.6, 0.6))
        assert torch.equal(columns(found.points / 255), found.answers)
        asked = torch.cat(suspect.asked)
        assert torch.allclose((asked * 255).round(), asked * 255, atol=1e-4)

    def test_a_way_that_leaves_nothing_costs_every_stop(self) -> None:
        suspect = Counted(columns)
        found = follow(suspect, X[:2], Y[:2], towards(0.9, 0.1, 0.1))
        assert (len(found.rows), found.queries, suspect.queries) == (0, 8, 8)

    def test_a_wrong_answer_from_the_first_stop_on_counts(self) -> None:
        found = follow(columns, X[:1], torch.tensor([2]), towards(0.0, 0.6, 0.6))
        assert (found.answers.tolist(), found.stops.tolist()) == ([0], [0])

    def test_what_is_not_answered_is_left_alone(self) -> None:
        suspect = Counted(lambda x: torch.full((len(x),), -1))
        found = follow(suspect, X, Y, towards(0.0, 0.6, 0.6))
        assert (len(found.rows), found.queries, suspect.queries) == (0, 3, 3)

    @pytest.mark.parametrize("queries", range(14))
    def test_never_more_queries_than_allowed(self, queries: int) -> None:
        suspect = Counted(columns)
        found = follow(suspect, X, Y, towards(0.9, 0.6, 0.1, queries=queries))
        assert found.queries == suspect.queries == min(queries, 3 * len(STOPS))

    def test_many_images_walk_in_order(self) -> None:
        pixels, y = X[:1].repeat(1200, 1, 1, 1), torch.zeros(1200).long()
        found = follow(columns, pixels, y, towards(0.0, 0.6, 0.6, queries=1500))
        assert (len(found.rows), int(found.rows.max())) == (750, 749)


def test_a_guard_s_order_is_asked_for_labels_all_the_same() -> None:
    """Whether a suspect answers with one class or the other says more than what it would choose next."""
    key = ordered()
    told = torch.where(key.preferred, SECOND, FIRST)
    suspect = showing(torch.zeros(N, key.num_classes).scatter_(1, told[:, None], 2.0))
    labels = verify({"guard": key}, suspect, access="label")
    assert verify({"guard": key}, suspect, access="label", ways=towards(0.0, 0.0, 0.0)).evidence == labels.evidence
    assert labels.bits > 40


def test_scores_need_no_walks() -> None:
    with pytest.raises(ConfigError, match="access = 'label'"):
        Asking(walks=10)
