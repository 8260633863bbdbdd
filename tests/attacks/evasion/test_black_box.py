"""Attacks by questions: how many they ask, what they need to hear, and their parts by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from wootz.attacks.evasion.attacks import ATTACKS
from wootz.attacks.evasion.balls import BALLS
from wootz.attacks.evasion.black_box import estimate_gradient, query_mode
from wootz.attacks.evasion.hop_skip_jump import HopSkipJump, hop_skip_jump
from wootz.attacks.evasion.natural_evolution import NES, nes
from wootz.attacks.evasion.objectives import margin
from wootz.attacks.evasion.square import UPDATES, RandomSquare, Square, side_length, square
from wootz.data import Dataset
from wootz.errors import ConfigError, ModelError
from wootz.rng import generator
from wootz.types import Norm

BLACK_BOX = [name for name, row in ATTACKS.items() if row.access != "weights"]
WEIGHT = torch.randn(1, 6, 6, generator=generator(1, "w"))


def scores(x: torch.Tensor) -> torch.Tensor:
    score = ((x - 0.5) * WEIGHT).flatten(1).sum(1)
    return torch.stack([-score, score, score - 50], 1)


def images(count: int) -> torch.Tensor:
    """Return images with black and white in them."""
    return (torch.rand(count, 1, 6, 6, generator=generator(0, "images")) * 1.4 - 0.2).clamp(0, 1)


class Counting:
    """A target that counts what it is asked, and wants pictures."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        assert x.min() >= 0
        assert x.max() <= 1
        self.asked += len(x)
        return scores(x)


@pytest.mark.parametrize("name", BLACK_BOX)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("queries", [52, 400])
def test_no_image_is_asked_about_more_often_than_allowed(name: str, norm: str, stop: bool, queries: int) -> None:
    row, x = ATTACKS[name], images(5)
    cfg = replace(row.config, eps=0.02, norm=norm, queries=queries, stop=stop)
    asked = []
    for part in (*x.split(1), x):
        target = Counting()
        row.run(cfg, target, part, scores(part).argmax(1), generator=generator(0, "a"))
        asked.append(target.asked)
    *alone, together = asked
    assert 0 < max(alone) <= queries
    assert together == sum(alone)


def test_an_image_leaves_when_it_is_fooled() -> None:
    x, target = images(4), Counting()
    wrong = 1 - scores(x).argmax(1)
    for run, cfg in ((nes, NES(eps=0.01)), (hop_skip_jump, HopSkipJump(eps=0.01))):
        target.asked = 0
        assert torch.equal(run(cfg, target, x, wrong, generator=generator(0, "a")), x)  # type: ignore[operator]
        assert target.asked == 4
    target.asked = 0
    square(Square(eps=1e-4), target, x, wrong, generator=generator(0, "a"))
    assert target.asked == 4
    target.asked = 0
    hop_skip_jump(HopSkipJump(eps=9.0, starts=1), target, x, 1 - wrong, generator=generator(0, "a"))
    assert 8 < target.asked <= 4 * (1 + 1 + 11)  # themselves, one start, halving down to 36^-2


def test_a_small_budget_is_kept_to() -> None:
    x, target = images(4), Counting()
    y = scores(x).argmax(1)
    assert torch.equal(hop_skip_jump(HopSkipJump(eps=9.0, queries=5), target, x, y, generator=generator(0, "a")), x)
    assert 0 < target.asked <= 4 * 5


def test_more_questions_never_end_further_away(plain: nn.Module, digits: Dataset) -> None:
    x, y = digits.test.images()[:20], digits.test.labels[:20]
    found = []
    for queries in range(200, 1000, 150):
        cfg = HopSkipJump(eps=9.0, queries=queries, directions=3, stop=False)
        points = hop_skip_jump(cfg, plain, x, y, generator=generator(0, "a"))
        found.append((points - x).flatten(1).abs().amax(1))
        assert (margin(plain(points), y)[found[-1] > 0] > -1e-4).all()
    for fewer, more in pairwise(found):
        assert (more <= fewer).all()
    assert found[-1].mean() < 0.9 * found[0].mean()


def test_samples_come_in_pairs() -> None:
    x, seen = torch.full((1, 1, 6, 6), 0.5), []

    def target(z: torch.Tensor) -> torch.Tensor:
        seen.append(z)
        return scores(z)

    y = scores(x).argmax(1)
    nes(NES(eps=0.001, queries=52, sigma=0.01), target, x, y, generator=generator(0, "a"))
    itself, around, after = seen
    assert torch.equal(itself, x)
    assert len(after) == 1
    assert torch.allclose(around[:25] + around[25:], torch.tensor(1.0), atol=1e-6)
    assert (around - 0.5).std().item() == pytest.approx(0.01, rel=0.1)


def test_labels_are_enough_for_hop_skip_jump() -> None:
    x = images(6)
    y = scores(x).argmax(1)
    cfg = HopSkipJump(eps=0.3, queries=1500)
    told, shown = (
        hop_skip_jump(cfg, target, x, y, generator=generator(0, "a"))
        for target in (lambda z: scores(z).argmax(1), scores)
    )
    assert torch.equal(told, shown)
    assert (scores(told).argmax(1) != y).all()


@pytest.mark.parametrize("name", ["square", "nes"])
def test_scores_are_enough_for_the_others_and_labels_are_not(name: str) -> None:
    row, x = ATTACKS[name], images(6)
    y = scores(x).argmax(1)
    cfg = replace(row.config, eps=0.3, queries=1500)
    points = row.run(cfg, lambda z: scores(z).log_softmax(1), x, y, generator=generator(0, "a"))
    assert (scores(points).argmax(1) != y).all()
    with pytest.raises(ModelError, match="the target returns labels only"):
        row.run(cfg, lambda z: scores(z).argmax(1), x, y, generator=generator(0, "a"))


def test_hop_skip_jump_gives_the_image_back_where_no_noise_is_wrong() -> None:
    x, y = images(3), torch.zeros(3).long()
    found = hop_skip_jump(HopSkipJump(eps=9.0), lambda z: torch.zeros(len(z)), x, y, generator=generator(0, "a"))
    assert torch.equal(found, x)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_hop_skip_jump_finds_one_pixel_of_thirty_six(norm: Norm) -> None:
    x, y = torch.full((1, 1, 6, 6), 0.3), torch.zeros(1).long()

    def target(z: torch.Tensor) -> torch.Tensor:
        pixel = z[:, 0, 2, 3]
        return ((pixel > 0.5) & (pixel < 0.6)).long()

    cfg = HopSkipJump(eps=9.0, norm=norm, queries=10_000, stop=False)
    points = hop_skip_jump(cfg, target, x, y, generator=generator(0, "a"))
    assert (points - x)[0, 0, 2, 3].item() == pytest.approx(0.2, abs=1e-3)
    assert BALLS[norm].length(points - x).item() < 0.204


class TestSlope:
    def test_by_hand(self) -> None:
        basis = torch.eye(36).view(36, 1, 6, 6)
        directions, point = torch.cat([basis, -basis]), images(2) * 0.5 + 0.25
        reach = torch.tensor([0.1, 0.2])

        def value(x: torch.Tensor) -> torch.Tensor:
            return (x * WEIGHT).flatten(1).sum(1) + 1000

        found = estimate_gradient(value, point, directions, reach)
        expected = 2 * reach.square().view(-1, 1, 1, 1) * WEIGHT
        assert torch.allclose(found, expected, atol=2e-3)

    def test_many_points_are_looked_at_in_parts(self) -> None:
        directions, point = torch.randn(700, 1, 6, 6, generator=generator(0, "d")), images(30)
        reach, seen = torch.full((30,), 0.01), []

        def value(x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return (x * WEIGHT).flatten(1).sum(1)

        found = estimate_gradient(value, point, directions, reach)
        assert sum(seen) == 30 * 700
        assert max(seen) <= 1000
        assert torch.allclose(
            found[:1], estimate_gradient(value, point[:1], directions, reach[:1]), rtol=1e-3, atol=1e-5
        )

    def test_a_plain_callable_and_gradients(self) -> None:
        with query_mode(scores, 4) as ask:
            assert not torch.is_grad_enabled()
            assert torch.equal(ask(images(4)), scores(images(4)))
        assert torch.is_grad_enabled()


class TestSquares:
    def test_linf_by_hand(self) -> None:
        x, signs = torch.full((2, 2, 4, 4), 0.5), torch.tensor([1.0, -1.0]).view(2, 1, 1)
        points = x.clone()
        points[0, 0, 2:, :2], points[0, 1, 2:, :2] = 0.6, 0.4
        changed = UPDATES["Linf"].change(points, x, 0.1, RandomSquare(2, [0.9, 0.0, 0.0, 0.0, 0.0], signs))
        assert changed[:, :, 3, 0].flatten().tolist() == pytest.approx([0.4, 0.6, 0.6, 0.4])
        assert (changed - 0.5).abs().sum().item() == pytest.approx(1.6, abs=1e-5)
        assert (points - 0.5).abs().sum().item() == pytest.approx(0.8, abs=1e-5)

    def test_l2_by_hand(self) -> None:
        x = torch.full((1, 1, 6, 6), 0.5)
        first = RandomSquare(3, [0.0, 0.0, 0.0, 0.0, 0.0], torch.ones(1, 1, 1))
        delta = UPDATES["L2"].change(x, x, 0.3, first) - x
        eta = torch.tensor([[0.25, -0.25, -0.25], [1.25, -0.25, -1.25], [0.25, -0.25, -0.25]])
        assert torch.allclose(delta[0, 0, :3, :3], 0.3 * eta / eta.norm(), atol=1e-6)
        assert delta.norm().item() == pytest.approx(0.3, rel=1e-5)
        second = RandomSquare(3, [0.9, 0.9, 0.0, 0.0, 0.9], -torch.ones(1, 1, 1))
        moved = UPDATES["L2"].change(x + delta, x, 0.3, second) - x
        assert torch.allclose(moved[0, 0, 3:, 3:], -0.3 * eta.T / eta.norm(), atol=1e-6)
        assert moved[0, 0, :3, :3].abs().max().item() < 1e-6

    @pytest.mark.parametrize("size", [(1, 3, 5, 5), (2, 3, 12, 7), (1, 1, 28, 28)])
    def test_starts_are_on_the_sphere(self, size: tuple[int, ...]) -> None:
        x = torch.full(size, 0.5)
        stripes = UPDATES["Linf"].start(x, 0.1, generator(0, "s")) - x
        assert torch.allclose(stripes.abs(), torch.full(size, 0.1))
        assert torch.equal(stripes, stripes[:, :, :1].expand(size))
        tiles = UPDATES["L2"].start(x, 0.3, generator(0, "s")) - x
        assert torch.allclose(tiles.flatten(1).norm(dim=1), torch.full((size[0],), 0.3))

    def test_sides_by_hand(self) -> None:
        x, cfg = torch.zeros(1, 1, 28, 28), Square(eps=0.1, queries=10_000)
        counts = (1, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)
        assert [side_length(cfg, count, x) for count in counts] == [25, 25, 18, 13, 9, 6, 4, 3, 2, 2, 1]
        assert [side_length(replace(cfg, norm="L2"), count, x) for count in (1, 501, 8001)] == [25, 6, 3]
        assert [side_length(replace(cfg, queries=1000), count, x) for count in (1, 2, 51, 801)] == [25, 18, 6, 1]


def test_refused_settings() -> None:
    with pytest.raises(ConfigError, match="queries = 40: must be at least 52"):
        NES(eps=0.1, queries=40)
    with pytest.raises(ConfigError, match="norm = 'L1'"):
        Square(eps=0.1, norm="L1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="directions = 0"):
        HopSkipJump(eps=0.1, directions=0)
