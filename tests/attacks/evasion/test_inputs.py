"""What attacks and evaluations refuse, since their figures would flatter the model; and models that need a flag."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import wootz
from helpers import CPU
from wootz.attacks.evasion import ATTACKS, EVALUATIONS, NAMES, evaluate, reliability
from wootz.data import Dataset
from wootz.errors import ConfigError, DataError, ModelError
from wootz.models import range_warnings
from wootz.rng import generator


@pytest.fixture
def images(digits: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    return digits.test.images()[:16], digits.test.labels[:16]


WRONG = {
    "normalized": lambda x: (x - 0.13) / 0.31,
    "levels": lambda x: x * 255,
    "NaN": lambda x: x.where(x > 0, float("nan")),
    "infinite": lambda x: x.where(x < 1, float("inf")),
    "slightly below": lambda x: x - 1e-4,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_on_images_outside_the_range(plain: nn.Module, images, attack: str, wrong: str) -> None:
    cfg = replace(ATTACKS[attack].config, eps=0.1)
    with pytest.raises(DataError, match=r"images from .* must be in \[0, 1\]"):
        ATTACKS[attack].run(cfg, plain, WRONG[wrong](images[0]), images[1], generator=generator(0, "a"))


@pytest.mark.parametrize("wrong", WRONG)
def test_evaluation_on_images_outside_the_range(plain: nn.Module, images, wrong: str) -> None:
    with pytest.raises(DataError, match=r"images from .* must be in \[0, 1\]"):
        evaluate(plain, WRONG[wrong](images[0]), images[1], eps=0.1)


@pytest.mark.parametrize("attack", ["pgd", "ibp", "autoattack"])
@pytest.mark.parametrize(
    ("eps", "norm"), [(8, "Linf"), (1.01, "Linf"), (28.1, "L2"), (float("nan"), "Linf"), (-1, "L2")]
)
def test_budgets_beyond_the_range(plain: nn.Module, images, attack: str, eps: float, norm) -> None:
    with pytest.raises(ConfigError, match=r"eps = .*: must be from 0 to"):
        evaluate(plain, *images, eps=eps, norm=norm, attack=attack)


def test_rounding_passes(plain: nn.Module, images) -> None:
    x, y = images
    assert evaluate(plain, x * (1 + 1e-7) - 1e-7, y, eps=0.0).clean == evaluate(plain, x, y, eps=0.0).clean


@pytest.mark.parametrize("attack", [name for name in NAMES if name not in ("hop-skip-jump", "nes", "square", "fmn")])
def test_nobody_right(plain: nn.Module, images, attack: str) -> None:
    x = images[0][:1]
    wrong = (plain(x).argmax(1) + 1) % 10
    result = evaluate(plain, x, wrong, eps=0.1, attack=attack)
    assert (result.clean, result.accuracy) == (0, 0)


def test_no_images_and_foreign_labels(plain: nn.Module, images) -> None:
    x, y = images
    with pytest.raises(DataError, match="0 images and 0 labels"):
        evaluate(plain, x[:0], y[:0], eps=0.1)
    with pytest.raises(DataError, match="labels from 10 to 10, but the model has 10 classes"):
        evaluate(plain, x, y * 0 + 10, eps=0.1)


def test_evaluations_have_the_names_of_the_command_line(plain: nn.Module, digits: Dataset) -> None:
    assert wootz.evaluate(plain, digits, eps=0.1, n=5, attack="pgd", execution=CPU).attack == "pgd-40x2"
    assert set(EVALUATIONS) < set(NAMES)


class Answering(nn.Module):
    """A model with its answers changed."""

    def __init__(self, model: nn.Module, change) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: torch.Tensor):
        return self.change(self.model(x))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_answers_that_are_no_numbers(plain: nn.Module, images, value: float) -> None:
    with pytest.raises(ModelError, match="NaN or infinity for 16 of 16 images"):
        evaluate(Answering(plain, lambda logits: logits + torch.tensor([value] + [0.0] * 9)), *images, eps=0.1)


@pytest.mark.parametrize(
    "change", [lambda logits: (logits,), lambda logits: {"logits": logits}, lambda logits: logits[0]]
)
def test_answers_that_are_no_logits(plain: nn.Module, digits: Dataset, change) -> None:
    with pytest.raises(ModelError, match=r"must return logits \[N, K\]"):
        wootz.evaluate(Answering(plain, change), digits, eps=0.1, n=5, execution=CPU)


def test_probabilities_are_flagged(plain: nn.Module, digits: Dataset) -> None:
    model = Answering(plain, lambda logits: logits.softmax(1))
    assert "probabilities" in wootz.evaluate(model, digits, eps=0.1, n=20, attack="pgd", execution=CPU).flags


def test_a_model_of_another_range_is_flagged(plain: nn.Module, digits: Dataset) -> None:
    levels = nn.Sequential(Scale(1 / 255), plain)
    assert "range" in wootz.evaluate(levels, digits, eps=0.1, n=20, attack="pgd", execution=CPU).flags
    few = digits.test.subset(slice(50))
    assert range_warnings(plain, few.images(), few.labels) == ()
    (warning,) = range_warnings(levels, few.images(), few.labels)
    assert warning.startswith("range: ")
    assert range_warnings(nn.Sequential(Strict(), levels), few.images(), few.labels) == ()


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class Strict(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.max() > 1:
            raise ValueError("images must be in [0, 1]")
        return x


class AlwaysTraining(nn.BatchNorm1d):
    """Batch normalization that ignores eval mode."""

    def train(self, mode: bool = True):
        return super().train(True)


class TestBatches:
    def flags(self, layer: nn.Module, images) -> tuple[str, ...]:
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), layer)
        x = images[0]
        return reliability(model.eval(), x, model(x).argmax(1))

    def test_statistics_of_the_batch(self, images) -> None:
        assert "batch-dependent" in self.flags(nn.BatchNorm1d(10, track_running_stats=False), images)

    def test_statistics_that_keep_moving(self, images) -> None:
        assert {"batch-dependent", "stateful"} <= set(self.flags(AlwaysTraining(10), images))

    @pytest.mark.parametrize("layer", [nn.BatchNorm1d(10), nn.LayerNorm(10), nn.Dropout(0.5)])
    def test_ordinary_layers(self, images, layer: nn.Module) -> None:
        assert not {"batch-dependent", "stateful"} & set(self.flags(layer, images))
