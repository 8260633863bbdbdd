"""Second choices: read where a way leaves an answer, from labels alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from orders import FIRST, SECOND, ordered
from wootz.errors import ConfigError
from wootz.stages.suspects import Asking
from wootz.types import Predict
from wootz.verify import verify
from wootz.verify.walks import STOPS, Walked, second_choices
from wrong_classes import BASE, K, N, draw, logged, showing, sure


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


def towards(*ends: float):
    """Return ways that all end at one image."""
    return lambda x, classes: torch.tensor(ends).expand_as(x)


X = torch.tensor([[1.0, 0.5, 0.2], [1.0, 0.2, 0.5], [0.0, 1.0, 0.4]]).view(3, 1, 1, 3)


class TestSecondChoices:
    def test_it_is_what_is_met_first_on_the_way(self) -> None:
        found = second_choices(columns, towards(0.0, 0.6, 0.6), 3)(X[:2])
        assert found.topk(2).indices.tolist() == [[0, 1], [0, 2]]
        assert (found.sum(1) <= 1).all()

    def test_a_class_met_later_is_not_taken(self) -> None:
        """On the way from (1, 0.5, 0.2) to (0, 0.4, 0.9) the second column leads for a while, and then the third."""
        suspect = Counted(columns)
        found = second_choices(suspect, towards(0.0, 0.4, 0.9), 3)(X[:1])
        at = torch.linspace(0, 1, 1001).view(-1, 1, 1, 1)
        met = columns(X[:1] + (torch.tensor([0.0, 0.4, 0.9]) - X[:1]) * at)
        first = met[met != 0][0]
        assert found.topk(2).indices.tolist() == [[0, int(first)]]
        assert suspect.queries == STOPS

    def test_a_way_that_leaves_nothing_gives_no_second_choice(self) -> None:
        suspect = Counted(columns)
        found = second_choices(suspect, towards(0.9, 0.1, 0.1), 3)(X[:2])
        assert (found > 0).sum(1).tolist() == [1, 1]
        assert suspect.queries == 4  # themselves and the ends

    def test_what_is_not_answered_is_nan_and_costs_one_query(self) -> None:
        suspect = Counted(lambda x: torch.full((len(x),), -1))
        assert second_choices(suspect, towards(0.0, 0.6, 0.6), 3)(X).isnan().all()
        assert suspect.queries == 3

    def test_points_are_whole_gray_levels_within_the_way(self) -> None:
        suspect = Counted(columns)
        second_choices(suspect, towards(0.0, 0.6, 0.6), 3)(X)
        points = torch.cat(suspect.asked[1:])
        assert torch.allclose((points * 255).round(), points * 255, atol=1e-4)
        assert points.min() >= 0
        assert points.max() <= 1


def choices(scores: Tensor) -> Predict:
    """Return a suspect's first two choices of every image, as `second_choices` shows them."""
    first, second = scores.topk(2).indices.T
    shown = torch.zeros(N, K)
    shown[torch.arange(N), first], shown[torch.arange(N), second] = 0.51, 0.49
    return showing(shown)


class TestVerdict:
    thief = sure(draw(N, K) + 2.5 * torch.nn.functional.one_hot(logged().labels, K))
    stranger = sure(draw(N, K, seed=4))

    def test_a_guard_s_log_is_told_by_walks(self) -> None:
        keys = {"guard": logged()}
        walked = Walked(choices(self.thief), [choices(self.stranger)], N)
        panel = [showing(self.stranger)]
        labels = verify(keys, showing(self.thief), panel=panel, access="label")
        walks = verify(keys, showing(self.thief), panel=panel, access="label", walked=walked)
        assert (labels.word, walks.word) == ("NOT SHOWN", "KEY-DEPENDENT")
        assert (labels.evidence[0].queries, walks.evidence[0].queries) == (N, N * STOPS)

    def test_a_guard_s_order_is_asked_for_labels_all_the_same(self) -> None:
        """Whether a suspect answers with one class or the other says more than what it would choose next."""
        key = ordered()
        told = torch.where(key.preferred, SECOND, FIRST)
        scores = torch.zeros(N, K).scatter_(1, told[:, None], 2.0)
        labels = verify({"guard": key}, showing(scores), access="label")
        walks = verify({"guard": key}, showing(scores), access="label", walked=Walked(choices(scores), [], N))
        assert walks.evidence == labels.evidence
        assert labels.bits > 40

    def test_a_stranger_is_not(self) -> None:
        walked = Walked(choices(self.stranger), [], N)
        found = verify({"guard": logged()}, showing(self.stranger), access="label", walked=walked)
        assert found.word == "NOT SHOWN"
        assert found.bits < 7

    def test_triggers_are_asked_for_labels_all_the_same(self) -> None:
        key = dataclasses.replace(logged(), logged=False)
        walked = Walked(choices(self.thief), [], N)
        found = verify({"triggers": key}, showing(self.thief), access="label", walked=walked)
        assert found.evidence == verify({"triggers": key}, showing(self.thief), access="label").evidence

    def test_a_panel_model_that_knows_the_key_vetoes(self) -> None:
        walked = Walked(choices(self.thief), [choices(self.stranger), choices(self.thief)], N)
        panel = [showing(self.stranger), showing(self.thief)]
        found = verify({"guard": logged()}, showing(self.thief + draw(N, K, seed=7)), panel=panel, access="label",
                       walked=walked._replace(suspect=choices(self.thief + 0.3 * draw(N, K, seed=7))))  # fmt: skip
        assert found.word != "KEY-DEPENDENT"

    def test_the_base_class_is_the_first_choice(self) -> None:
        assert torch.equal(choices(self.thief)(logged().pixels / 255).argmax(1), BASE)


def test_scores_need_no_walks() -> None:
    with pytest.raises(ConfigError, match="access = 'label'"):
        Asking(walks=10)
