"""Boundary search: crossings along paths, in order, within the queries."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from preferences import PAIR_PATHS, N, boundary_suspect, normal, preference_key
from wootz.errors import ConfigError
from wootz.statistics import verify
from wootz.statistics.boundary_search import BoundarySearch, bisect_boundary, find_crossings
from wootz.types import Predict
from wootz.workflows.suspects import QueryConfig

STOPS = (0.25, 0.5, 0.75, 1.0)


def columns(x: Tensor) -> Tensor:
    """Return the class, of three, whose column of an image [N, 1, 1, 3] is brightest."""
    return x.flatten(1).argmax(1)


class Counted:
    """A suspect that records its queries."""

    def __init__(self, answer: Predict) -> None:
        self.answer, self.asked = answer, list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        self.asked.append(x)
        return self.answer(x)

    @property
    def queries(self) -> int:
        return sum(map(len, self.asked))


def to(*end: float, queries: int = 1000, guide: Predict = columns) -> BoundarySearch:
    """Return paths that all end at one image."""

    def ends(x: Tensor, classes: Tensor) -> Tensor:
        return torch.tensor(end).expand_as(x)

    return BoundarySearch(ends, ends, ends, lambda x: F.one_hot(guide(x), 3), STOPS, queries)


def keeping(x: Tensor) -> Tensor:
    """Return the class of X for every moved image: a guide without boundaries."""
    return torch.zeros(len(x)).long()


X = torch.tensor([[255, 128, 51], [255, 51, 128], [0, 255, 102]], dtype=torch.uint8).view(3, 1, 1, 3)
Y = torch.tensor([0, 0, 1])


class TestFindCrossings:
    def test_the_answer_is_the_first_class_on_the_path(self) -> None:
        found = find_crossings(columns, X[:2], Y[:2], to(0.0, 0.6, 0.6, guide=keeping))
        assert dict(zip(found.rows.tolist(), found.answers.tolist(), strict=True)) == {0: 1, 1: 2}

    def test_the_first_class_is_found_by_bisection(self) -> None:
        """On the path from (1, 0.5, 0.2) to (0, 0.6, 0.9) the second column leads for a while, and then the third."""
        suspect = Counted(columns)
        found = find_crossings(suspect, X[:1], Y[:1], to(0.0, 0.6, 0.9, guide=keeping))
        assert (found.answers.tolist(), found.steps.tolist(), found.queries) == ([1], [1], 2)
        assert suspect.queries == 2
        assert columns(torch.tensor([[0.0, 0.6, 0.9]])).tolist() == [2]

    def test_the_points_are_the_queried_images(self) -> None:
        suspect = Counted(columns)
        found = find_crossings(suspect, X[:2], Y[:2], to(0.0, 0.6, 0.6, guide=keeping))
        assert torch.equal(columns(found.points / 255), found.answers)
        asked = torch.cat(suspect.asked)
        assert torch.allclose((asked * 255).round(), asked * 255, atol=1e-4)

    def test_a_path_without_a_boundary_costs_no_more(self) -> None:
        suspect = Counted(columns)
        found = find_crossings(suspect, X[:2], Y[:2], to(0.9, 0.1, 0.1))
        assert (len(found.rows), found.queries, suspect.queries) == (0, 6, 6)

    def test_a_wrong_answer_from_the_first_grid_point_on_counts(self) -> None:
        found = find_crossings(columns, X[:1], torch.tensor([2]), to(0.0, 0.6, 0.6, guide=lambda x: keeping(x) + 2))
        assert (found.answers.tolist(), found.steps.tolist()) == ([0], [0])

    def test_a_missing_answer_ends_the_search_of_its_path(self) -> None:
        suspect = Counted(lambda x: torch.full((len(x),), -1))
        found = find_crossings(suspect, X[:2], Y[:2], to(0.0, 0.6, 0.6, guide=keeping))
        assert (len(found.rows), found.queries, suspect.queries) == (0, 2, 2)

    def test_images_whose_class_the_guide_leaves_early_are_skipped(self) -> None:
        """Halfway to (0, 0.6, 0.2) the first image is of the second class, by 0.05, and the others are as they were."""
        suspect = Counted(lambda x: torch.full((len(x),), 2))
        found = find_crossings(suspect, X, Y, to(0.0, 0.6, 0.2))
        assert found.rows.tolist() == [1, 2]
        assert find_crossings(suspect, X, Y, to(0.0, 0.6, 0.2, guide=lambda x: keeping(x) + 2)).queries == 0

    @pytest.mark.parametrize("queries", range(10))
    def test_never_more_queries_than_allowed(self, queries: int) -> None:
        suspect = Counted(columns)
        found = find_crossings(
            suspect, X[:2].repeat(2, 1, 1, 1)[:3], torch.zeros(3).long(), to(0.9, 0.1, 0.1, queries=queries)
        )
        assert found.queries == suspect.queries == min(queries, 3 * 3)

    def test_many_images_are_searched_in_order(self) -> None:
        pixels, y = X[:1].repeat(1200, 1, 1, 1), torch.zeros(1200).long()
        found = find_crossings(columns, pixels, y, to(0.0, 0.6, 0.6, queries=1500, guide=keeping))
        assert (len(found.rows), int(found.rows.max())) == (750, 749)


class TestBisectBoundary:
    @pytest.mark.parametrize("stops", range(1, 12))
    def test_each_grid_point_is_found_within_the_logarithm(self, stops: int) -> None:
        """Suspect number i changes its answer at i / stops of the path from black to white."""
        x, ends = torch.zeros(stops + 1, 1, 1, 1), torch.ones(stops + 1, 1, 1, 1)
        parts = [(number + 1) / stops for number in range(stops)]
        limits, asked = torch.arange(1, stops + 2) / stops - 0.02, Counted(lambda x: x.flatten())

        def changed(rows: Tensor, said: Tensor) -> Tensor:
            return asked.asked[-1].flatten() > limits[rows]

        found = bisect_boundary(lambda x: (asked(x) > 2).long(), x, ends, parts, changed, 1000)
        assert found.steps.tolist() == list(range(stops + 1))
        assert found.queries == asked.queries <= (stops + 1) * math.ceil(math.log2(stops + 1))

    def test_a_path_without_queries_left_has_no_step(self) -> None:
        x = torch.zeros(4, 1, 1, 1)
        found = bisect_boundary(lambda x: torch.zeros(len(x)), x, x + 1, STOPS, lambda rows, said: said > 0, 10)
        assert (found.steps.tolist(), found.queries) == ([4, 4, -1, -1], 10)


def test_preferences_are_measured_by_boundary_search() -> None:
    key = preference_key()
    suspect = boundary_suspect(normal(N, seed=6) - 2 + 2 * key.preferred.double() - 1)
    labels, walked = (
        verify({"guard": key}, suspect, access="label", boundary_search=boundary_search)
        for boundary_search in (None, PAIR_PATHS)
    )
    assert walked.bits > labels.bits + 15


def test_boundary_search_is_for_labels_only() -> None:
    with pytest.raises(ConfigError, match="access = 'label'"):
        QueryConfig(boundary_queries=10)
