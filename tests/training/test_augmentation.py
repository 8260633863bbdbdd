"""Shifts and mirror images in training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import CPU
from wootz.attacks.evasion import predict_logits
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.models import ModelSpec, build
from wootz.rng import generator
from wootz.training import Recipe, train
from wootz.training.epoch import shift_and_mirror


@pytest.fixture
def images() -> Tensor:
    """Return images [400, 2, 5, 7] whose every pixel says where it was, and none is zero."""
    places = torch.arange(1, 71, dtype=torch.uint8).view(1, 2, 5, 7)
    return places.repeat(400, 1, 1, 1)


def moved(images: Tensor, **settings: Any) -> Tensor:
    return shift_and_mirror(Recipe(**settings), images, generator(0, "test"))


def test_nothing_asked_nothing_done_nothing_drawn(images: Tensor) -> None:
    stream = generator(0, "test")
    before = stream.get_state()
    assert shift_and_mirror(Recipe(), images, stream) is images
    assert torch.equal(stream.get_state(), before)


def test_every_shift_comes_and_nothing_else(images: Tensor) -> None:
    rolled = {}
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            shifted = torch.zeros_like(images[0])
            there = (slice(max(0, down), 5 + min(0, down)), slice(max(0, right), 7 + min(0, right)))
            here = (slice(max(0, -down), 5 + min(0, -down)), slice(max(0, -right), 7 + min(0, -right)))
            shifted[:, there[0], there[1]] = images[0][:, here[0], here[1]]
            rolled[down, right] = shifted
    found = moved(images, shift=1)
    assert found.dtype == torch.uint8
    counts = {move: sum(torch.equal(image, want) for image in found) for move, want in rolled.items()}
    assert sum(counts.values()) == len(images)
    assert all(20 <= count <= 75 for count in counts.values())  # 44 expected of each, deviation 6.3


def test_half_are_mirrored(images: Tensor) -> None:
    found = moved(images, mirror=True)
    mirrored = [torch.equal(image, images[0].flip(-1)) for image in found]
    assert sum(mirrored) + sum(torch.equal(image, images[0]) for image in found) == len(images)
    assert 150 <= sum(mirrored) <= 250


def test_floats_move_alike(images: Tensor) -> None:
    assert torch.equal(moved(images.float(), shift=2, mirror=True), moved(images, shift=2, mirror=True).float())


class TestInTraining:
    @pytest.fixture
    def course(self, small_spec: ModelSpec, digits: Dataset) -> Any:
        cfg = Recipe(loss="natural", epochs=30, batch_size=32)
        few, check = digits.train.subset(slice(1024)), digits.validation.subset(slice(50))

        def run(**settings: Any) -> nn.Module:
            return train(replace(cfg, **settings), build(small_spec, 0), few, check, seed=1, execution=CPU).model

        return run

    @pytest.mark.long
    def test_shifted_images_are_answered_better(self, course: Any, digits: Dataset) -> None:
        far = shift_and_mirror(Recipe(shift=4), digits.probes.pixels[:1000], generator(1, "test")).float().div(255)
        right = [
            (predict_logits(course(shift=shift), far).argmax(1) == digits.probes.labels[:1000]).float().mean().item()
            for shift in (0, 4)
        ]
        assert right[1] > right[0] + 0.1

    def test_the_same_seed_moves_alike(self, course: Any) -> None:
        first, again, other = (course(epochs=1, shift=2, mirror=turned) for turned in (False, False, True))
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_what_does_not_fit_is_refused(small_spec: ModelSpec, digits: Dataset) -> None:
    with pytest.raises(ConfigError, match="shift = 28: must be less than the side of the images, which are 28x28"):
        train(Recipe(shift=28), build(small_spec, 0), digits.train, digits.validation, seed=1, execution=CPU)
    with pytest.raises(ConfigError, match="shift = -1: must be at least 0"):
        Recipe(shift=-1)
