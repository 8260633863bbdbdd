"""Attacks against closed forms, against each other, and against models that must keep no trace of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import Linear
from wootz.attacks.evasion import (
    BALLS,
    PGD,
    accuracy_curve,
    cross_entropy,
    evaluate,
    margin,
    pgd,
    reference_autoattack,
    second_margin,
)
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.rng import generator
from wootz.types import Norm

NORMS: tuple[Norm, ...] = ("Linf", "L2")
DUAL = {"Linf": 1, "L2": 2}


def images(count: int, seed: int = 0, low: float = 0.3, high: float = 0.7) -> torch.Tensor:
    return torch.rand(count, 1, 5, 5, generator=generator(seed, "images")) * (high - low) + low


def gap(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -margin(model(x), y).detach()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("keep", "restarts"), [("best", 1), ("best", 3), ("last", 1)])
@pytest.mark.parametrize("targeted", [False, True])
def test_the_optimum_of_a_linear_model_is_reached(norm: Norm, restarts: int, targeted: bool, keep: str) -> None:
    model = Linear(torch.randn(1, 5, 5, generator=generator(1, "w")))
    x, y = images(16), torch.arange(16) % 2
    cfg = PGD(eps=0.05, norm=norm, steps=40, restarts=restarts, targeted=targeted, keep=keep)
    points = pgd(cfg, model, x, 1 - y if targeted else y, generator=generator(0, "a"))
    fall = gap(model, x, y) - gap(model, points, y)
    best = 2 * 0.05 * torch.linalg.vector_norm(model.weight.detach(), ord=DUAL[norm]).item()
    assert (fall >= 0.99 * best).all()
    assert (fall <= best * (1 + 1e-4)).all()


@pytest.mark.parametrize("norm", NORMS)
@given(eps=st.floats(0.001, 0.9), seed=st.integers(0, 9), steps=st.integers(1, 4), stop=st.booleans())
@settings(max_examples=50, deadline=None)
def test_points_stay_in_the_ball_and_in_the_picture(norm: Norm, eps: float, seed: int, steps: int, stop: bool) -> None:
    model = Linear(torch.randn(1, 5, 5, generator=generator(seed, "w")))
    x, y = images(6, seed, 0, 1), torch.arange(6) % 2
    points = pgd(PGD(eps=eps, norm=norm, steps=steps, stop=stop), model, x, y, generator=generator(seed, "a"))
    assert (BALLS[norm].length(points - x) <= eps * (1 + 1e-5) + 1e-6).all()
    assert points.min() >= 0
    assert points.max() <= 1


def test_eps_zero_is_the_identity() -> None:
    x = images(4)
    assert torch.equal(pgd(PGD(eps=0), Linear(torch.randn(1, 5, 5)), x, torch.zeros(4).long(), generator=None), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_no_trace_is_left(keep: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(), nn.Linear(27, 4)).train()
    state = {name: t.clone() for name, t in model.state_dict().items()}
    x = images(8)
    before, seed = x.clone(), torch.random.get_rng_state()
    pgd(PGD(eps=0.1, steps=3, keep=keep), model, x, torch.arange(8) % 4, generator=generator(0, "a"))
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), seed)


def test_the_order_of_a_batch_does_not_matter(plain: nn.Module, digits: Dataset) -> None:
    x, y = digits.test.images()[:20], digits.test.labels[:20]
    order = torch.randperm(20, generator=generator(0, "order"))
    cfg = PGD(eps=0.1, steps=5, random_start=False)
    straight = pgd(cfg, plain, x, y, generator=generator(0, "a"))
    mixed = pgd(cfg, plain, x[order], y[order], generator=generator(0, "a"))
    assert torch.allclose(straight[order], mixed, atol=1e-6)


def test_the_undefended_falls_and_the_defended_stands(plain: nn.Module, robust: nn.Module, digits: Dataset) -> None:
    x, y = digits.test.images()[:300], digits.test.labels[:300]
    weak, strong = (evaluate(model, x, y, eps=0.1) for model in (plain, robust))
    assert weak.clean > 0.85
    assert weak.accuracy < 0.25
    assert strong.accuracy > 0.5
    assert evaluate(plain, x, y, eps=0.6).accuracy == 0


@pytest.mark.long
def test_more_effort_never_finds_less(robust: nn.Module, digits: Dataset) -> None:
    x, y = digits.test.images()[:200], digits.test.labels[:200]
    few = evaluate(robust, x, y, eps=0.1, attack="pgd-40x2")
    many = evaluate(robust, x, y, eps=0.1, attack="pgd-50x10")
    assert many.accuracy <= few.accuracy + 0.01
    curve = accuracy_curve(robust, x, y, eps=[0, 0.05, 0.1, 0.2, 0.5])
    assert curve == sorted(curve, reverse=True)
    assert curve[0] == pytest.approx(few.clean)
    assert curve[-1] < 0.02


def test_best_is_at_least_as_good_as_last(robust: nn.Module, digits: Dataset) -> None:
    x, y = digits.test.images()[:100], digits.test.labels[:100]
    reached = []
    for keep in ("best", "last"):
        points = pgd(PGD(eps=0.1, steps=6, keep=keep), robust, x, y, generator=generator(0, "a"))
        reached.append((robust(points).argmax(1) != y).sum().item())
    assert reached[0] >= reached[1] > 0


def test_objectives_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    assert margin(logits, torch.tensor([1, 0])).tolist() == [-2.0, 0.0]
    assert second_margin(logits, torch.tensor([1, 2])).tolist() == [-3.0, 0.0]
    assert second_margin(logits[:, :2], torch.tensor([1, 0])).tolist() == [-2.0, 0.0]  # two classes: the plain margin
    assert cross_entropy(logits, torch.tensor([1, 0]))[1].item() == pytest.approx(1.0986, abs=1e-4)


def test_refused_combinations() -> None:
    with pytest.raises(ConfigError, match="keep = 'last': one restart and no stop"):
        PGD(eps=0.1, keep="last", restarts=2)
    with pytest.raises(ConfigError, match="unknown evaluation 'pdg-40x2': did you mean 'pgd-40x2'"):
        evaluate(Linear(torch.ones(1, 5, 5)), images(1), torch.zeros(1).long(), eps=0.1, attack="pdg-40x2")


class TestReference:
    def test_raises_its_flags(self, digits: Dataset) -> None:
        class Coarse(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return (x.flatten(1)[:, 300:310] * 4).round() + 0 * x.sum()

        x = digits.test.images()[:4]
        found = reference_autoattack(Coarse(), x, Coarse()(x).argmax(1), eps=0.1, batch_size=4)
        assert "zero-gradient" in found.flags

    def test_is_repeatable_and_leaves_the_stream_of_others(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
        with torch.no_grad():
            weight = torch.randn(3, 25, generator=generator(2, "w"))
            model[1].weight.copy_(weight - weight.mean(1, keepdim=True))
        x = images(24)
        y, stream = model(x).argmax(1), torch.random.get_rng_state()
        one, two = (evaluate(model, x, y, eps=0.02, attack="autoattack", seed=3) for _ in range(2))
        assert 0 < one.robust.sum() < 24
        assert torch.equal(one.robust, two.robust)
        assert torch.equal(torch.random.get_rng_state(), stream)

    def test_two_classes_have_no_targeted_attack(self) -> None:
        model = Linear(torch.ones(1, 5, 5))
        x = images(4)
        found = reference_autoattack(model, x, model(x).argmax(1), eps=0.9)
        assert "few-classes" in found.flags
        assert not found.robust.any()
