"""What a mark adds to training: targets for the training images, an extra loss now and then, or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from wootz.errors import ConfigError
from wootz.modes import kept_statistics, normalizes_batches
from wootz.training.losses import Forward


class ExtraLoss(Protocol):
    """A loss beside the main one. Must be picklable: training may run in several processes."""

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return a scalar to add at this step, or None.

        `batch_images` are the images [N, C, H, W] of the current training step; `done` is the completed fraction of
        training, 0 to 1.
        """
        ...


def context_batch(model: nn.Module, x: Tensor, batch_images: Tensor) -> Tensor:
    """Return the images to pass through a net so that it meets x in train mode: x first, then what it must be among.

    A net that normalizes batches meets x among the images that it was just trained on, normalized by the batch of both.
    Taught alone by running statistics that stand still, extra images pull the weights along the scale that ordinary
    batches leave free: they are hardly learned, and robustness goes (docs/results/frontier.md).
    """
    return torch.cat([x, batch_images]) if normalizes_batches(model) else x


def forward_with_context(model: nn.Module, forward: Forward, x: Tensor, batch_images: Tensor) -> Tensor:
    """Return the logits float32 [N, K] of x from `context_batch`; running statistics are left as they were."""
    with kept_statistics(model):
        return forward(context_batch(model, x, batch_images)).float()[: len(x)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerEpoch:
    """Images uint8 with labels, taught by plain cross-entropy steps of their own after every epoch."""

    pixels: Tensor
    labels: Tensor
    batch: int
    frozen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """What is added, and what is left out.

    Attributes:
        targets: probabilities [N, K] for the training images in order.
        extra: losses to add.
        trigger_epochs: after every epoch.
        left_out: training images, bool [N], that no batch holds.
    """

    targets: Tensor | None = None
    extra: tuple[ExtraLoss, ...] = ()
    trigger_epochs: tuple[TriggerEpoch, ...] = ()
    left_out: Tensor | None = None


def join(*hooks: Hook) -> Hook:
    """Return one hook that does what all do; at most one may set targets."""
    targets = [hook.targets for hook in hooks if hook.targets is not None]
    if len(targets) > 1:
        raise ConfigError("two marks want to set the training targets; only one can")
    left_out = [hook.left_out for hook in hooks if hook.left_out is not None]
    return Hook(
        targets=targets[0] if targets else None,
        extra=tuple(loss for hook in hooks for loss in hook.extra),
        trigger_epochs=tuple(taught for hook in hooks for taught in hook.trigger_epochs),
        left_out=torch.stack(left_out).any(0) if left_out else None,
    )


def plain_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Return one-hot targets [N, K], smoothed."""
    return torch.nn.functional.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes
