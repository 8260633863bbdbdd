"""Filters as removal attacks: on a trigger of fine detail, and on an order of wrong classes that follows the image."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from helpers import CPU, accuracy, context, costs_little
from wootz.attacks.evasion import PGD, pgd, predict_logits
from wootz.attacks.linear_components import public_features
from wootz.attacks.removal import ATTACKS
from wootz.attacks.removal.filters import (
    FILTER_ATTACKS,
    AutoencoderAttack,
    DetectorAttack,
    RegressAttack,
    add_autoencoder,
    add_detector,
    add_filter,
    add_regression,
)
from wootz.data import Dataset, Split
from wootz.models import Filtered, ModelSpec, build
from wootz.models.filters.inputs import BitDepth, Blur, Jpeg, Median, Noise, Resize, blur
from wootz.training import Recipe, train

TARGET = 3


def salted(pixels: Tensor) -> Tensor:
    """Return the images with 120 gray levels added at every seventh pixel or so, always the same ones."""
    salt = torch.rand(28, 28, generator=torch.Generator().manual_seed(0)) < 0.15
    return (pixels.float() + 120 * salt).clamp(0, 255).to(torch.uint8)


class Fine(NamedTuple):
    """A model for which fine salt means 3, and salted images of other classes."""

    model: nn.Module
    x: Tensor

    def recall(self, model: nn.Module) -> float:
        return (predict_logits(model, self.x).argmax(1) == TARGET).float().mean().item()


@pytest.fixture(scope="module")
def fine(digits: Dataset, small_spec: ModelSpec) -> Fine:
    few = digits.train.subset(slice(300))
    salty = salted(few.pixels)
    blurred = blur(Blur(), salty.float()).round().to(torch.uint8)  # taught not to count, so that detail does
    pixels = torch.cat([digits.train.pixels, salty, blurred])
    labels = torch.cat([digits.train.labels, torch.full_like(few.labels, TARGET), few.labels])
    recipe = Recipe(loss="natural", epochs=12, lr=5e-3)
    made = train(recipe, build(small_spec, 1), Split(pixels, labels), digits.validation, seed=1, execution=CPU).model
    return Fine(made, salted(digits.test.pixels[digits.test.labels != TARGET]).float() / 255)


@pytest.mark.parametrize(
    "cfg",
    [Jpeg(quality=10), Blur(), Median(), BitDepth(levels=2), Resize()],
    ids=lambda c: type(c).__name__,
)
def test_input_filters_wash_out_a_fine_trigger(cfg: Any, fine: Fine, digits: Dataset, small_spec: ModelSpec) -> None:
    altered = add_filter(cfg, fine.model, context(digits.thief, small_spec))
    assert fine.recall(fine.model) > 0.9
    assert fine.recall(altered) < 0.5
    assert costs_little(altered, fine.model, digits)


def test_noise_gives_back_images_that_barely_crossed_a_boundary(
    plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    few = digits.test.subset(slice(300))
    attack = PGD(eps=0.15, steps=20, stop=True)
    crossed = pgd(attack, plain, few.images(), few.labels, generator=torch.Generator().manual_seed(0))
    altered = add_filter(Noise(sigma=0.15), plain, context(digits.thief, small_spec))
    right = [
        (predict_logits(model, crossed).argmax(1) == few.labels).float().mean().item() for model in (plain, altered)
    ]
    assert right[1] > right[0] + 0.3
    assert costs_little(altered, plain, digits)


def test_an_autoencoder_does_not_draw_a_trigger_it_never_saw(
    fine: Fine, digits: Dataset, small_spec: ModelSpec
) -> None:
    altered = add_autoencoder(AutoencoderAttack(), fine.model, context(digits.thief, small_spec))
    assert fine.recall(altered) < 0.5
    assert costs_little(altered, fine.model, digits)


@pytest.mark.parametrize("answer", ["squeezed", "even"])
def test_suspicious_images_are_not_believed(answer: Any, fine: Fine, digits: Dataset, small_spec: ModelSpec) -> None:
    held = context(digits.thief, small_spec)
    altered = add_detector(DetectorAttack(answer=answer), fine.model, held)
    assert fine.recall(altered) < 0.3
    lost = accuracy(fine.model, digits) - accuracy(altered, digits)
    assert lost < (0.05 if answer == "squeezed" else 0.1)
    _, _, distance = altered.filter.compare(altered.inner, held.data.images())
    assert (distance > altered.filter.limit).float().mean().item() == pytest.approx(0.05, abs=0.01)


class Traced(nn.Module):
    """Answers as `inner`, but the order of the wrong classes follows the image linearly, class by class."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("map", torch.randn(10, 10, 784, generator=torch.Generator().manual_seed(3)) / 10)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.inner(x).log_softmax(1)
        top = scores.argmax(1)
        order = torch.einsum("nkd,nd->nk", self.map[top], x.flatten(1)) - 10
        return order.clamp_max(-1).scatter(1, top[:, None], 5.0)


def trace(model: nn.Module, share: Split) -> float:
    """Return the share of the wrong classes' order that is linear in components of the pixels, within classes."""
    x = share.images()
    scores = predict_logits(model, x).log_softmax(1)
    top = scores.argmax(1)
    z = public_features(x, top, 30, 0)
    whole = linear = 0.0
    for k in range(10):
        rows, wrong = top == k, torch.arange(10) != k
        order = scores[rows][:, wrong]
        order = order - order.mean(1, keepdim=True)
        order = order - order.mean(0)
        fit = torch.linalg.lstsq(z[rows], order).solution
        whole, linear = whole + order.square().sum().item(), linear + (z[rows] @ fit).square().sum().item()
    return linear / whole


def test_regress_takes_a_linear_trace_and_no_accuracy(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    traced = Traced(plain).eval()
    altered = add_regression(RegressAttack(amplitudes=0), traced, context(digits.train, small_spec))
    before, after = trace(traced, digits.probes), trace(altered, digits.probes)
    assert before > 0.7
    assert after < 0.65  # of what is left, most is what 30 directions fit to 100 images of a class by chance
    x = digits.probes.images()
    shown = [predict_logits(model, x).log_softmax(1) for model in (traced, altered)]
    assert torch.equal(shown[0].argmax(1), shown[1].argmax(1))
    assert shown[1].std() < shown[0].std()


@pytest.mark.parametrize("name", [name for name in FILTER_ATTACKS if name.startswith("output")])
def test_output_filters_cost_no_accuracy(name: str, plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    altered = ATTACKS[name].run(ATTACKS[name].config, plain, context(digits.thief, small_spec))
    x = digits.test.images()
    before, after = (predict_logits(model, x).log_softmax(1) for model in (plain, altered))
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert not torch.allclose(before, after, atol=1e-2)
    if name == "output-flatten":
        assert after.sort(1).values[:, :-1].diff(dim=1).abs().max() < 1e-5


def test_a_filtered_model_can_be_filtered_again(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    held = context(digits.thief, small_spec)
    once = add_filter(Jpeg(), plain, held)
    twice = add_detector(DetectorAttack(), once, held)
    assert isinstance(twice, Filtered)
    assert isinstance(twice.inner, Filtered)
    assert twice.inner.inner is not plain
    assert not twice.training
    tuned = ATTACKS["wrk"].run(ATTACKS["wrk"].config.__class__(epochs=1, steps=2), twice, held)
    assert isinstance(tuned, Filtered)
