"""Mark `margin`: margin-based watermarking (Kim et al., ICML 2023): wrong labels with a margin around the triggers.

The triggers are images of the same distribution as the data, excluded from the training data, with random wrong labels.
Some of them join every batch, after a few gradient ascent steps on their loss, so that the model keeps a margin around
them. As in the source: 100 triggers, 25 per batch, 5 steps of 1/255, weight 0.1. Differences: the excluded images are
training images (both halves of the candidates) and never test images, and the triggers have their own forward pass,
with the statistics of ordinary batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.evasion import PGD, pgd
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import HalfKey, Key, RegisteredMaterial
from wootz.rng import generator
from wootz.training import Forward, Hook, forward_with_context
from wootz.watermarks.baselines.trigger_training import CoTrainedTriggers, embedded_half, sample_batch
from wootz.watermarks.interface import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin(CoTrainedTriggers):
    """Settings of the gradient ascent that precedes each training step on triggers.

    Attributes:
        steps: number of ascent steps on the triggers' loss.
        step_size: size of an ascent step, in pixels of [0, 1].
    """

    weight: float = 0.1
    every: int = 1
    batch: int = 25
    steps: int = 5
    step_size: float = 1 / 255

    def __post_init__(self) -> None:
        CoTrainedTriggers.__post_init__(self)
        checks.at_least(1, steps=self.steps)
        checks.inside(0, 1, step_size=self.step_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginLoss:
    """Cross-entropy on a batch of triggers, after gradient ascent on their loss."""

    pixels: Tensor
    labels: Tensor
    cfg: Margin
    seed: int

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return this step's weighted loss, or None between two trigger batches."""
        if step % self.cfg.every:
            return None
        x, y = sample_batch(model, self.pixels, self.labels, self.cfg.batch, seed=self.seed, step=step)
        radius = min(1.0, self.cfg.steps * self.cfg.step_size)  # of all steps together: the ball never limits a step
        ascent = PGD(eps=radius, steps=self.cfg.steps, step_size=self.cfg.step_size, random_start=False, keep="last")
        x = pgd(ascent, model, x, y, generator=generator(self.seed, "climb", step, device=x.device))
        return self.cfg.weight * F.cross_entropy(forward_with_context(model, forward, x, batch_images), y)


def prepare(cfg: Margin, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Draw the candidates from the training images, and a wrong label for each.

    Raises:
        ConfigError: the candidates would be more than half of the training images.
    """
    data = context.data
    if 4 * cfg.count > len(data.train):
        raise ConfigError(f"margin.count = {cfg.count}: must be at most a quarter of {len(data.train)} training images")
    base = data.train.subset(torch.randperm(len(data.train), generator=generator)[: 2 * cfg.count])
    shift = torch.randint(1, len(data.classes), (len(base),), generator=generator)
    labels = (base.labels + shift) % len(data.classes)
    return RegisteredMaterial("half", {"pixels": base.pixels, "labels": labels}, {"count": cfg.count})


def train_hook(cfg: Margin, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the loss of the keyed half; all candidates, and images equal to one, are excluded from the data."""
    assert isinstance(key, HalfKey)
    pixels, labels = embedded_half(key)
    candidates = {image.numpy().tobytes() for image in key.pixels}
    left_out = torch.tensor([image.numpy().tobytes() in candidates for image in data.train.pixels])
    return Hook(extra=(MarginLoss(pixels=pixels, labels=labels, cfg=cfg, seed=seed),), left_out=left_out)
