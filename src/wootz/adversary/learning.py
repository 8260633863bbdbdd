"""How an attacker trains: the library's one loop, an epoch chosen on images held out, checkpoints in the attempt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wootz.adversary.means import Means
from wootz.data import Share
from wootz.rng import derive
from wootz.training import Hook, Recipe, train

_HELD_OUT = 20  # every 20th image is kept to choose an epoch by


def learn(
    recipe: Recipe,
    model: nn.Module,
    share: Share,
    means: Means,
    name: str,
    *,
    targets: Tensor | None = None,
    hook: Hook | None = None,
) -> nn.Module:
    """Return a copy of `model` trained on `share`, in eval mode on the CPU; goes on from the attempt's checkpoint.

    Args:
        recipe: how; a parameter that does not require gradients stays as it is.
        model: where to start.
        share: images and labels; the labels choose the epoch.
        means: execution, seed, folder.
        name: of this training within the attempt; different trainings need different names.
        targets: probabilities [N, K] to learn instead of the labels.
        hook: losses or passes to add; its targets must be None.
    """
    kept = held_out(len(share))
    hook = hook or Hook()
    return train(
        recipe,
        model,
        share.take(~kept),
        share.take(kept),
        seed=derive(means.seed, name),
        hook=Hook(targets=None if targets is None else targets[~kept], extra=hook.extra, passes=hook.passes),
        execution=means.execution,
        folder=None if means.folder is None else means.folder / name,
        resume=True,
        progress=lambda done, _: means.tell(f"training ({name})", done),
    ).model


def held_out(count: int) -> Tensor:
    """Return a mask [count] of the images that are kept to choose an epoch by."""
    return torch.arange(count) % _HELD_OUT == 0
