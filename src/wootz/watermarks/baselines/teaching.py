"""How a mark's own images are taught: a few of them beside batches of training images, or in passes after an epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.keys import HalfKey, Key
from wootz.modes import device_of
from wootz.rng import generator
from wootz.training import Forward, Hook, TriggerEpoch, forward_with_context


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """How images are taught beside training batches.

    Sources that append their images to the training data see each of them once an epoch, in batches that are almost
    all ordinary; so batch statistics stay those of ordinary images.

    Attributes:
        count: triggers taught; twice as many are made.
        weight: of their loss.
        every: training steps between two batches of triggers.
        batch: triggers in such a batch.
    """

    count: int = 100
    weight: float = 1.0
    every: int = 8
    batch: int = 16

    def __post_init__(self) -> None:
        checks.at_least(1, count=self.count, every=self.every, batch=self.batch)
        checks.positive(weight=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideLoss:
    """Cross-entropy on a few of a mark's images now and then."""

    pixels: Tensor
    labels: Tensor
    weight: float
    every: int
    batch: int
    seed: int

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return this step's weighted loss, or None between two batches."""
        if step % self.every:
            return None
        x, y = drawn(model, self.pixels, self.labels, self.batch, seed=self.seed, step=step)
        return self.weight * F.cross_entropy(forward_with_context(model, forward, x, batch_images), y)


def drawn(
    model: nn.Module, pixels: Tensor, labels: Tensor, batch: int, *, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Return `batch` of the images, float32 in [0, 1], and their labels, on the model's device.

    Which ones follows from seed and step alone, so that every process takes the same and a killed run goes on exactly.
    """
    rows = torch.randperm(len(labels), generator=generator(seed, "beside", step))[:batch]
    device = device_of(model)
    return pixels[rows].to(device).float().div_(255), labels[rows].to(device)


def taught_half(key: Key) -> tuple[Tensor, Tensor]:
    """Return the images uint8 and labels of the keyed half."""
    assert isinstance(key, HalfKey)
    return key.pixels[key.embedded], key.labels[key.embedded]


def beside(cfg: Beside, key: Key, *, seed: int) -> Hook:
    """Return what teaches the keyed half beside training batches."""
    pixels, labels = taught_half(key)
    loss = BesideLoss(pixels=pixels, labels=labels, weight=cfg.weight, every=cfg.every, batch=cfg.batch, seed=seed)
    return Hook(extra=(loss,))


def after_epochs(key: Key, *, batch: int, frozen: bool) -> Hook:
    """Return the passes over the keyed half that follow each epoch, with the net in train mode.

    `frozen` keeps the batch statistics of these passes out of the model.
    """
    pixels, labels = taught_half(key)
    return Hook(trigger_epochs=(TriggerEpoch(pixels=pixels, labels=labels, batch=batch, frozen=frozen),))
