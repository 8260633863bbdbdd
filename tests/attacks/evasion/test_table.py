"""What every attack of the table owes: the ball, no trace, no order, the optimum where it is known, success."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import Linear
from wootz.attacks.evasion import margin
from wootz.attacks.evasion.attacks import ATTACKS
from wootz.attacks.evasion.balls import BALLS, to_pixels
from wootz.attacks.evasion.minimum_norm import FMN, accuracy_at, distances, fmn
from wootz.data import Dataset
from wootz.rng import generator
from wootz.types import Norm

NORMS: tuple[Norm, ...] = ("Linf", "L2")
DUAL = {"Linf": 1, "L2": 2}
MINIMUM_NORM = ("fmn", "hop-skip-jump")

QUICK: Mapping[str, dict[str, Any]] = {
    "weights": {"steps": 5},
    "scores": {"queries": 30, "samples": 8},
    "label": {"queries": 150, "directions": 10},
}
"""Settings by access that take milliseconds."""

THOROUGH: Mapping[str, dict[str, Any]] = {
    "square": {"queries": 1500},
    "nes": {"queries": 20_000, "samples": 500},
    "hop-skip-jump": {"queries": 40_000},
}
"""Settings with which a black box comes within 1 % of a linear model's optimum; 100 gradients are enough for others."""

FALLS_SHORT = {("square", "L2"): 0.6}
"""An L2 square never covers less than 3 x 3 pixels, which is coarse in a picture of 5 x 5."""

STANDING = {"weights": 0.02, "scores": 0.1, "label": 0.15}
"""By access, the accuracy that an undefended model keeps at most."""

every_attack = pytest.mark.parametrize("name", ATTACKS)
every_norm = pytest.mark.parametrize("norm", NORMS)


def attack(
    name: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0, **changes: Any
) -> torch.Tensor:
    """Run a row with those of the changes that its config knows."""
    row = ATTACKS[name]
    known = {field.name for field in fields(row.config)}
    cfg = replace(row.config, **{key: value for key, value in changes.items() if key in known})
    points: torch.Tensor = row.run(cfg, model, x, y, generator=generator(seed, "attack"))
    return points


def quick(name: str) -> dict[str, Any]:
    return QUICK[ATTACKS[name].access]


def images(count: int, seed: int = 0, side: int = 5, channels: int = 1) -> torch.Tensor:
    """Return images in whole gray levels, black and white included."""
    levels = torch.randint(-40, 296, (count, channels, side, side), generator=generator(seed, "images"))
    return levels.clamp(0, 255).float().div_(255)


def network(seed: int = 0, classes: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Dropout(), nn.Linear(54, classes)
        )


@every_attack
@every_norm
@given(eps=st.floats(0.001, 1), seed=st.integers(0, 99), stop=st.booleans())
@settings(max_examples=20, deadline=None)
def test_points_stay_in_the_ball_and_in_the_picture(name: str, norm: Norm, eps: float, seed: int, stop: bool) -> None:
    model, x, y = network(seed), images(6, seed, channels=3), torch.arange(6) % 4
    points = attack(name, model, x, y, eps=eps, norm=norm, seed=seed, stop=stop, **quick(name))
    assert points.dtype == torch.float32
    assert (BALLS[norm].length(points - x) <= eps * (1 + 1e-5) + 1e-6).all()
    assert points.min() >= 0
    assert points.max() <= 1
    pixels = to_pixels(points, x).float() / 255
    assert (BALLS[norm].length(pixels - x) <= eps * (1 + 1e-5) + 1e-6).all()


@every_attack
def test_eps_zero_and_no_images_give_the_images_back(name: str) -> None:
    x, y = images(4, channels=3), torch.arange(4)
    same = attack(name, network(), x, y, eps=0, **quick(name))
    assert torch.equal(same, x)
    assert same.data_ptr() != x.data_ptr()
    assert attack(name, network(), x[:0], y[:0], eps=0.1, **quick(name)).shape == x[:0].shape


@every_attack
@every_norm
def test_no_trace_is_left(name: str, norm: Norm) -> None:
    model = network().train()
    model[1].eval()
    model[0].requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes, wanted = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    x, y = images(8, channels=3), torch.arange(8) % 4
    before, stream = x.clone(), torch.random.get_rng_state()
    attack(name, model, x, y, eps=0.1, norm=norm, **quick(name))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert [p.grad is None for p in model.parameters()] == [True, True, True, True, False, True]
    assert torch.equal(model[5].weight.grad, torch.ones_like(model[5].weight))
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert torch.is_grad_enabled()


@every_attack
@every_norm
def test_the_same_generator_finds_the_same_points(name: str, norm: Norm) -> None:
    x, y = images(6, channels=3), torch.arange(6) % 4
    one, two = (attack(name, network(), x, y, eps=0.2, norm=norm, **quick(name)) for _ in range(2))
    assert torch.equal(one, two)


@every_attack
@every_norm
@pytest.mark.parametrize("stop", [False, True])
def test_the_order_of_a_batch_does_not_matter(name: str, norm: Norm, stop: bool) -> None:
    model = Linear(torch.randn(1, 5, 5, generator=generator(1, "w")))
    x, order = images(20), torch.randperm(20, generator=generator(0, "order"))
    y = model(x).argmax(1)
    changes = {"eps": 0.4 if norm == "L2" else 0.1, "norm": norm, "stop": stop, "random_start": False} | quick(name)
    straight = attack(name, model, x, y, **changes)
    mixed = attack(name, model, x[order], y[order], **changes)
    assert (straight != x).any()
    assert torch.allclose(straight[order], mixed, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in MINIMUM_NORM])
@every_norm
def test_the_optimum_of_a_linear_model_is_reached(name: str, norm: Norm) -> None:
    model = Linear(torch.randn(1, 5, 5, generator=generator(1, "w")))
    x, y = images(16) * 0.4 + 0.3, torch.arange(16) % 2
    points = attack(name, model, x, y, eps=0.05, norm=norm, stop=False, **THOROUGH.get(name, {"steps": 100}))
    rise = (margin(model(points), y) - margin(model(x), y)).detach()
    best = 2 * 0.05 * torch.linalg.vector_norm(model.weight.detach(), ord=DUAL[norm]).item()
    assert (rise >= FALLS_SHORT.get((name, norm), 0.99) * best).all()
    assert (rise <= best * (1 + 1e-4)).all()


@pytest.mark.parametrize("name", MINIMUM_NORM)
@every_norm
def test_the_boundary_of_a_linear_model_is_reached(name: str, norm: Norm) -> None:
    model = Linear(torch.randn(1, 5, 5, generator=generator(1, "w")))
    x = images(16) * 0.4 + 0.3
    y = model(x).argmax(1)
    points = attack(name, model, x, y, eps=9.0, norm=norm, stop=False, **THOROUGH.get(name, {"steps": 100}))
    found = distances(model, points, x, y, norm=norm)
    best = -margin(model(x), y).detach() / (2 * torch.linalg.vector_norm(model.weight.detach(), ord=DUAL[norm]))
    assert (found <= best / 0.99 + 1e-6).all()
    assert (found >= best - 1e-5).all()


@every_attack
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.3), ("L2", 4.0)])
def test_the_undefended_falls(name: str, norm: Norm, eps: float, plain: nn.Module, digits: Dataset) -> None:
    x, y = digits.test.images()[:60], digits.test.labels[:60]
    points = attack(name, plain, x, y, eps=eps, norm=norm, steps=100, queries=2000, stop=True)
    assert (plain(x).argmax(1) == y).float().mean() > 0.85
    assert (plain(points).argmax(1) == y).float().mean() <= STANDING[ATTACKS[name].access]


@given(seed=st.integers(0, 99), eps=st.integers(0, 255), norm=st.sampled_from(NORMS))
@settings(max_examples=100, deadline=None)
def test_pixels_keep_to_every_ball(seed: int, eps: int, norm: Norm) -> None:
    x = images(4, seed)
    points = BALLS[norm].start(x, eps / 255, generator(seed, "start"))
    pixels = to_pixels(points, x)
    for ball in BALLS.values():
        assert (ball.length(pixels.float() / 255 - x) <= ball.length(points - x) + 1e-5).all()
    assert ((pixels.float() / 255 - points).abs() < 1.001 / 255).all()
    corner = (x + eps / 255).clamp(0, 1)
    assert torch.equal(to_pixels(corner, x), corner.mul(255).round().to(torch.uint8))


def test_pixels_by_hand() -> None:
    x = torch.tensor([100, 100, 100, 100, 0, 255]).view(1, 1, 2, 3) / 255
    points = torch.tensor([100.9, 99.1, 102, 97.5, 0.9, 254.1]).view(1, 1, 2, 3) / 255
    assert to_pixels(points, x).flatten().tolist() == [100, 100, 102, 98, 0, 255]


class TestMinimumNorm:
    def test_nothing_further_than_eps_is_returned(self) -> None:
        model = Linear(torch.ones(1, 1, 2))
        x, y = torch.tensor([[0.6, 0.6], [0.9, 0.9]]).view(2, 1, 1, 2), torch.tensor([1, 1])
        shifted = nn.Sequential(Shift(), model)
        far = fmn(FMN(steps=100), shifted, x, y, generator=generator(0))
        assert distances(shifted, far, x, y).tolist() == pytest.approx([0.1, 0.4], rel=0.01)
        near = fmn(FMN(steps=100, eps=0.2), shifted, x, y, generator=generator(0))
        assert torch.equal(near[0], far[0])
        assert torch.equal(near[1], x[1])

    def test_a_whole_curve_comes_from_one_run(self, robust: nn.Module, digits: Dataset) -> None:
        x, y = digits.test.images()[:60], digits.test.labels[:60]
        found = distances(robust, fmn(FMN(steps=100), robust, x, y, generator=generator(0)), x, y)
        assert torch.equal(found > 0, robust(x).argmax(1) == y)
        strong = attack("pgd", robust, x, y, eps=0.1, steps=100, stop=True)
        assert accuracy_at(found, [0.1])[0] <= (robust(strong).argmax(1) == y).float().mean().item() + 0.02

    def test_curve_by_hand(self) -> None:
        assert accuracy_at(torch.tensor([0, 0.1, 0.3, math.inf]), [0, 0.1, 0.2, 9]) == [0.75, 0.5, 0.5, 0.25]


class Shift(nn.Module):
    """Move the boundary from 0 to 0.5."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - 0.5
