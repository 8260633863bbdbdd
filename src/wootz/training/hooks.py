"""Hooks by which marks change training: soft targets, extra losses, trigger epochs, and training images left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from wootz.errors import ConfigError
from wootz.modes import kept_statistics, normalizes_batches
from wootz.training.inner_maximization import Forward


class ExtraLoss(Protocol):
    """A loss that is added to the main one. Must be picklable: training may run in several processes."""

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return a scalar to add to the loss at this step, or None.

        Args:
            model: the raw module in training.
            forward: the same module, wrapped as it is called in training.
            batch_images: the images [N, C, H, W] of the current training step.
            step: the number of the step, from 0, over all epochs.
            done: the completed fraction of training, 0 to 1.
        """
        ...


def context_batch(model: nn.Module, x: Tensor, batch_images: Tensor) -> Tensor:
    """Concatenate x with the current training batch if the model normalizes by the batch in its mode, else return x.

    So x is normalized with the statistics of an ordinary batch. Extra images trained on their own, with frozen running
    statistics, change the weights along the scale that batch normalization leaves undetermined: they are hardly
    learned, and robustness is lost (docs/results/frontier.md).
    """
    return torch.cat([x, batch_images]) if model.training and normalizes_batches(model) else x


def forward_with_context(model: nn.Module, forward: Forward, x: Tensor, batch_images: Tensor) -> Tensor:
    """Return the logits float32 [N, K] of x within its `context_batch`; running statistics are not updated."""
    with kept_statistics(model):
        return forward(context_batch(model, x, batch_images)).float()[: len(x)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerEpoch:
    """A mark's images, trained after every epoch by cross-entropy steps of their own.

    Attributes:
        pixels: images uint8 [N, C, H, W].
        labels: labels int64 [N].
        batch: images per step.
        frozen: whether batch normalization uses its running statistics and does not update them.
    """

    pixels: Tensor
    labels: Tensor
    batch: int
    frozen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """The changes to a training run.

    Attributes:
        targets: probabilities [N, K] for the training images in order; None means their labels.
        extra: losses that are added to the main one.
        trigger_epochs: images that are trained after every epoch.
        left_out: a mask bool [N] of training images to exclude.
    """

    targets: Tensor | None = None
    extra: tuple[ExtraLoss, ...] = ()
    trigger_epochs: tuple[TriggerEpoch, ...] = ()
    left_out: Tensor | None = None


def join(*hooks: Hook) -> Hook:
    """Combine hooks into one.

    Raises:
        ConfigError: more than one sets the targets.
    """
    targets = [hook.targets for hook in hooks if hook.targets is not None]
    if len(targets) > 1:
        raise ConfigError("two marks set the training targets; only one can")
    left_out = [hook.left_out for hook in hooks if hook.left_out is not None]
    return Hook(
        targets=targets[0] if targets else None,
        extra=tuple(loss for hook in hooks for loss in hook.extra),
        trigger_epochs=tuple(triggers for hook in hooks for triggers in hook.trigger_epochs),
        left_out=torch.stack(left_out).any(0) if left_out else None,
    )


def plain_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Return one-hot targets [N, K] with label smoothing: `smoothing` spread evenly over all classes."""
    return torch.nn.functional.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes
