"""Bounds: sound for every kind of layer, exact where they can be, never above what an attack leaves standing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import CPU
from wootz.attacks.evasion import certified, evaluate, linear_margins, margins, record_batchnorm
from wootz.attacks.evasion.bounds import Interval, propagate
from wootz.data import Dataset
from wootz.errors import ConfigError, ModelError
from wootz.models import MODELS, ModelSpec, build
from wootz.models.architectures import Normalize, PreActBlock
from wootz.rng import generator, global_seed
from wootz.training import Recipe, train

LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "Normalize": lambda: Normalize((0.4, 0.6), (0.3, 0.2)),
    "Conv2d": lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1),
    "Conv2d, groups": lambda: nn.Conv2d(2, 4, 2, dilation=2, groups=2, bias=False),
    "ReLU": nn.ReLU,
    "Tanh": nn.Tanh,
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "MaxPool2d, overlapping": lambda: nn.MaxPool2d(3, stride=1, padding=1),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(2),
    "BatchNorm2d": lambda: shaken(nn.BatchNorm2d(2)),
    "Dropout": nn.Dropout,
    "Identity": nn.Identity,
    "PreActBlock": lambda: shaken(PreActBlock(2, 3, 2)),
    "PreActBlock, same shape": lambda: shaken(PreActBlock(2, 2, 1)),
}
"""One layer each, for images [2, 6, 6]."""

NO_LINES = {"Tanh", "AdaptiveAvgPool2d", "PreActBlock", "PreActBlock, same shape"}


def shaken(layer: nn.Module) -> nn.Module:
    """Give statistics and weights of normalization values of both signs, as training would."""
    for part in layer.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.2, 2)
    return layer


def net(name: str, seed: int) -> nn.Module:
    """Return that layer between others, as a classifier of images [2, 6, 6]."""
    with global_seed(seed, name):
        layer = LAYERS[name]().eval()
        inner = layer(torch.rand(1, 2, 6, 6)).numel()
        head = [nn.Flatten(), nn.Linear(inner, 8), shaken(nn.BatchNorm1d(8)), nn.ReLU(), nn.Linear(8, 4)]
        return nn.Sequential(layer, *head).eval()


def apart(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, None, :] - logits[:, :, None]


def points(x: torch.Tensor, eps: float, seed: int, count: int) -> torch.Tensor:
    """Return points of the ball, corners among them [count, N, C, H, W]."""
    noise = 2 * torch.rand(count, *x.shape, generator=generator(seed, "points")) - 1
    noise[::2] = noise[::2].sign()
    return (x + eps * noise).clamp(0, 1)


@pytest.mark.parametrize("name", LAYERS)
@given(seed=st.integers(0, 10_000), eps=st.floats(0, 0.6))
@settings(max_examples=25, deadline=None)
def test_no_point_of_the_ball_is_beyond_the_bounds(name: str, seed: int, eps: float) -> None:
    model, x = net(name, seed), torch.rand(3, 2, 6, 6, generator=generator(seed, "x"))
    y = torch.arange(3)
    with torch.no_grad():
        bounds = margins(model, x, eps)
        lines = bounds[torch.arange(3), y] if name in NO_LINES else linear_margins(model, x, y, eps)
        box = propagate(model[0], Interval((x - eps).clamp(0, 1), (x + eps).clamp(0, 1)), {})
        for point in points(x, eps, seed, 30):
            inner, reached = model[0](point), apart(model(point))
            slack = 1e-5 * (1 + reached.abs().max())
            assert (inner >= box.lower - slack).all()
            assert (inner <= box.upper + slack).all()
            assert (reached <= bounds + slack).all()
            assert (reached[torch.arange(3), y] <= lines + slack).all()


@pytest.mark.parametrize("architecture", MODELS)
def test_bounds_of_every_architecture_close_on_its_answer(architecture: str) -> None:
    classes = tuple("0123456789")
    model = build(ModelSpec(architecture=architecture, settings={"width": 4}, shape=(1, 28, 28), classes=classes), 0)
    shaken(model.eval())
    x = torch.rand(4, 1, 28, 28, generator=generator(0, "x"))
    with torch.no_grad():
        answer, size = apart(model(x)), 1 + apart(model(x)).abs().max()
        assert torch.allclose(margins(model, x, 0), answer, atol=1e-5 * size)
        for eps in (0.001, 0.03):
            bounds = margins(model, x, eps)
            for point in points(x, eps, 1, 20):
                assert (apart(model(point)) <= bounds + 1e-5 * size).all()


def test_exact_for_a_linear_model_and_cut_at_black_and_white() -> None:
    model = nn.Sequential(Normalize((0.5,), (0.5,)), nn.Flatten(), nn.Linear(9, 3))
    x, eps, y = torch.rand(50, 1, 3, 3, generator=generator(0, "x")), 0.2, torch.arange(50) % 3
    weight = (model[2].weight[None] - model[2].weight[:, None]).view(3, 3, 1, 1, 3, 3)
    with torch.no_grad():
        bounds, lines = margins(model, x, eps), linear_margins(model, x, y, eps)
        for k in range(3):
            for j in range(3):
                worst = torch.where(weight[k, j] > 0, x + eps, x - eps).clamp(0, 1)
                reached = model(worst)[:, j] - model(worst)[:, k]
                assert torch.allclose(bounds[:, k, j], reached, atol=1e-5)
                assert torch.allclose(lines[y == k, j], reached[y == k], atol=1e-5)


def test_lines_are_tighter_than_intervals(plain: nn.Module, digits: Dataset) -> None:
    few = digits.test.subset(slice(50))
    x, y = few.images(), few.labels
    with torch.no_grad():
        intervals, lines = margins(plain, x, 0.02)[torch.arange(50), y], linear_margins(plain, x, y, 0.02)
    assert lines.mean() < 0.7 * intervals.mean()
    assert lines.gather(1, y[:, None]).abs().max() < 1e-6


class TestTrainMode:
    def test_normalization_of_the_batch_itself_is_bounded(self) -> None:
        with global_seed(0, "net"):
            model = nn.Sequential(
                nn.Conv2d(2, 4, 3),
                shaken(nn.BatchNorm2d(4)),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(64, 8),
                shaken(nn.BatchNorm1d(8)),
                nn.ReLU(),
                nn.Linear(8, 3),
            ).train()
        x = torch.rand(6, 2, 6, 6, generator=generator(0, "x"))
        with record_batchnorm(model) as affine:
            logits = model(x)
        assert torch.allclose(margins(model, x, 0, affine=affine), apart(logits), atol=1e-4)
        assert not any(module._forward_pre_hooks for module in model.modules())
        frozen = [model[i] for i in (1, 5)]
        for norm in frozen:
            factor, summand = (value.detach().flatten() for value in affine[norm])
            norm.load_state_dict(norm.state_dict() | {"weight": factor, "bias": summand})
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
        bounds = margins(model, x, 0.05, affine=affine)
        model.eval()
        for point in points(x, 0.05, 0, 30):
            assert (apart(model(point)) <= bounds + 1e-4).all()

    def test_without_the_batch_there_are_none(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
        with pytest.raises(ModelError, match="BatchNorm1d in train mode has bounds only with statistics"):
            margins(model, torch.rand(3, 1, 2, 2), 0.1)

    def test_dropout_draws_one_mask_for_the_box(self) -> None:
        model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(9, 3)).train()
        x = torch.rand(4, 1, 3, 3, generator=generator(0, "x"))
        affine: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        bounds = margins(model, x, 0.1, affine=affine)
        dropped = model[1:](x * affine[model[0]][0])
        assert (apart(dropped) <= bounds + 1e-6).all()
        assert set(affine[model[0]][0].unique().tolist()) == {0.0, 2.0}


@pytest.fixture(scope="module")
def sure(digits: Dataset, small_spec: ModelSpec) -> nn.Module:
    """Return a net trained by bounds."""
    recipe = Recipe(loss="ibp", eps=0.1, epochs=6, lr=5e-3, ramp=0.5)
    return train(recipe, build(small_spec, 1), digits.train, digits.validation, seed=1, execution=CPU).model


class TestCertificates:
    @pytest.mark.parametrize("eps", [0.005, 0.1])
    def test_what_is_certified_no_attack_fells(
        self, eps: float, plain: nn.Module, robust: nn.Module, sure: nn.Module, digits: Dataset
    ) -> None:
        x, y = digits.test.images()[:100], digits.test.labels[:100]
        for model in (plain, robust, sure):
            proven, attacked = (evaluate(model, x, y, eps=eps, attack=name) for name in ("ibp", "pgd-40x2"))
            assert not (proven.robust & ~attacked.robust).any()
            assert torch.equal(proven.correct, attacked.correct)
            assert (dict(proven.first_success), proven.flags) == ({}, ())

    def test_they_are_learned(self, robust: nn.Module, sure: nn.Module, digits: Dataset) -> None:
        x, y = digits.test.images()[:500], digits.test.labels[:500]
        proven = [evaluate(model, x, y, eps=0.1, attack="ibp").accuracy for model in (robust, sure)]
        assert proven[0] < 0.05
        assert proven[1] > 0.25

    def test_wrong_answers_are_certified_as_such_only_for_what_they_say(self, sure: nn.Module, digits: Dataset) -> None:
        x = digits.test.images()[:100]
        said = sure(x).argmax(1)
        assert certified(sure, x, said, 0.01).float().mean() > 0.5
        assert not certified(sure, x, (said + 1) % 10, 0.01).any()

    def test_other_norms_and_layers_without_bounds_are_refused(self, sure: nn.Module) -> None:
        x, y = torch.rand(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64)
        with pytest.raises(ConfigError, match="norm = 'L2': bounds are for Linf only"):
            evaluate(sure, x, y, eps=0.1, norm="L2", attack="ibp")

        class Odd(nn.ReLU):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return -x

        for layer, match in (
            (nn.Softplus(), "no bounds are known for the layer Softplus; known: Normalize, "),
            (Odd(), "for the layer Odd"),
            (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), "padding_mode 'circular'; known: 'zeros'"),
        ):
            with pytest.raises(ModelError, match=match):
                margins(nn.Sequential(layer, nn.Flatten(), nn.Linear(784, 2)), x, 0.1)
        with pytest.raises(ModelError, match="no linear bounds are known for the layer Tanh"):
            linear_margins(nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(784, 2)), x, y, 0.1)


def test_the_papers_own_figure_is_its_training_attack(robust: nn.Module, digits: Dataset) -> None:
    x, y = digits.test.images()[:200], digits.test.labels[:200]
    weak, quick = (evaluate(robust, x, y, eps=0.1, attack=name) for name in ("pgd-25", "pgd-40x2"))
    assert quick.accuracy < weak.accuracy < weak.clean
