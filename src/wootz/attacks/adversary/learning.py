"""How an attacker trains: the library's one loop, an epoch chosen on images held out, checkpoints in the attempt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wootz.attacks.adversary.context import AttackContext
from wootz.data import Split
from wootz.rng import derive
from wootz.training import Hook, Recipe, train

_HELD_OUT = 20  # every 20th image is kept to choose an epoch by


def learn(
    recipe: Recipe,
    model: nn.Module,
    share: Split,
    context: AttackContext,
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
        context: execution, seed, folder.
        name: of this training within the attempt; different trainings need different names.
        targets: probabilities [N, K] to learn instead of the labels.
        hook: losses or passes to add; its targets must be None.
    """
    kept = held_out(len(share))
    hook = hook or Hook()
    return train(
        recipe,
        model,
        share.subset(~kept),
        share.subset(kept),
        seed=derive(context.seed, name),
        hook=Hook(
            targets=None if targets is None else targets[~kept], extra=hook.extra, trigger_epochs=hook.trigger_epochs
        ),
        execution=context.execution,
        folder=None if context.folder is None else context.folder / name,
        resume=True,
        progress=lambda done, _: context.progress(f"training ({name})", done),
    ).model


def held_out(count: int) -> Tensor:
    """Return a mask [count] of the images that are kept to choose an epoch by."""
    return torch.arange(count) % _HELD_OUT == 0
