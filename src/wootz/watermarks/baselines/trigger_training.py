"""Training on a baseline's triggers: in small batches during an epoch (co-training), or in a pass after each epoch."""

from __future__ import annotations

from collections.abc import Callable
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
class TriggerBatches:
    """Settings of the trigger batches that are trained together with the data.

    Attributes:
        weight: weight of the trigger loss.
        every: number of training steps from one trigger batch to the next.
        batch: triggers per trigger batch.
    """

    weight: float = 1.0
    every: int = 8
    batch: int = 16

    def __post_init__(self) -> None:
        checks.at_least(1, every=self.every, batch=self.batch)
        checks.positive(weight=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoTrainedTriggers(TriggerBatches):
    """Settings of triggers that are trained together with the data.

    The sources append their triggers to the training data, so that each is used once per epoch in batches that consist
    mostly of ordinary images. Batch statistics are therefore those of ordinary images here, too.

    Attributes:
        count: number of embedded triggers; twice as many are made.
    """

    count: int = 100

    def __post_init__(self) -> None:
        TriggerBatches.__post_init__(self)
        checks.at_least(1, count=self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerBatchLoss:
    """A loss of the answers to periodic batches of triggers.

    Attributes:
        pixels: the triggers, uint8 [N, C, H, W].
        targets: what the answers to them shall be, int64 [N].
        cfg: weight, period and size of the batches.
        seed: determines the batches.
        loss: logits [n, K] and targets [n] -> a scalar; must be picklable.
    """

    pixels: Tensor
    targets: Tensor
    cfg: TriggerBatches
    seed: int
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return this step's weighted loss, or None between two trigger batches."""
        if step % self.cfg.every:
            return None
        x, targets = sample_batch(model, self.pixels, self.targets, self.cfg.batch, seed=self.seed, step=step)
        return self.cfg.weight * self.loss(forward_with_context(model, forward, x, batch_images), targets)


def sample_batch(
    model: nn.Module, pixels: Tensor, labels: Tensor, batch: int, *, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Return `batch` of the images, float32 in [0, 1], and their labels, on the model's device.

    The choice depends on seed and step only, so that all processes use the same batch and an interrupted run can be
    resumed exactly.
    """
    rows = torch.randperm(len(labels), generator=generator(seed, "beside", step))[:batch]
    device = device_of(model)
    return pixels[rows].to(device).float().div_(255), labels[rows].to(device)


def embedded_half(key: Key) -> tuple[Tensor, Tensor]:
    """Return the images uint8 and the labels of the keyed half."""
    assert isinstance(key, HalfKey)
    return key.pixels[key.embedded], key.labels[key.embedded]


def cotraining_hook(cfg: CoTrainedTriggers, key: Key, *, seed: int) -> Hook:
    """Return the hook that trains on the keyed half together with the data."""
    pixels, labels = embedded_half(key)
    return Hook(extra=(TriggerBatchLoss(pixels=pixels, targets=labels, cfg=cfg, seed=seed),))


def trigger_epoch_hook(key: Key, *, batch: int, frozen: bool) -> Hook:
    """Return the hook that trains on the keyed half in a pass after each epoch, in train mode.

    Args:
        key: the key of the mark.
        batch: triggers per step.
        frozen: leave the running batch statistics unchanged during these passes.
    """
    pixels, labels = embedded_half(key)
    return Hook(trigger_epochs=(TriggerEpoch(pixels=pixels, labels=labels, batch=batch, frozen=frozen),))
