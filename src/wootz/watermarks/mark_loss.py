"""The marks as one loss term, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import DirectionKey, Key
from wootz.training import ExtraLoss
from wootz.watermarks.marks import MARKS
from wootz.watermarks.runner_up import RunnerUp, keyed_targets


class MarkLoss:
    """What the marks add to the loss of one training step: `loss = loss + marks(model, (images, labels))`.

    Triggers add their cross-entropy. `runner-up` adds the cross-entropy to its keyed targets less that to the labels,
    both on the given images: a loss that is the cross-entropy to the labels becomes that to the keyed targets.

    Args:
        settings: each mark's config, by name.
        keys: each mark's key, by name.
        data: the owner's data set.
        seed: of the choice of triggers per step.

    Raises:
        ConfigError: a mark that needs more than a loss term.
    """

    def __init__(self, settings: Mapping[str, Any], keys: Mapping[str, Key], data: Dataset, *, seed: int) -> None:
        self._step = 0
        self._losses: list[ExtraLoss] = []
        self._directions: list[tuple[RunnerUp, DirectionKey]] = []
        for name, cfg in settings.items():
            key = keys[name]
            if isinstance(cfg, RunnerUp) and isinstance(key, DirectionKey):
                self._directions.append((cfg, key))
                continue
            hook = MARKS[name].train_hook(cfg, key, data, seed=seed)
            if hook.targets is not None or hook.trigger_epochs or hook.left_out is not None:
                raise ConfigError(f"mark {name!r}: needs the training loop of wootz (wootz.protect); leave it out")
            self._losses.extend(hook.extra)

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss term of this training step; the model is in train mode.

        Args:
            model: images in [0, 1] -> logits [N, K].
            batch: the (images, labels) of this step, images float [N, C, H, W] in [0, 1], labels int64 [N]; or a
                mapping with `pixel_values` and `labels`.
        """
        x, y = (batch["pixel_values"], batch["labels"]) if isinstance(batch, Mapping) else batch
        total = torch.zeros((), device=x.device)
        if self._directions:
            log_p = model(x).float().log_softmax(1)
            for cfg, key in self._directions:
                images, labels = x.detach().cpu(), y.cpu()
                targets = keyed_targets(cfg, key, images, labels).to(x.device)
                total = total - ((targets - F.one_hot(y, log_p.shape[1])) * log_p).sum(1).mean()
        for loss in self._losses:
            added = loss(model, model, batch_images=x, step=self._step, done=0.0)
            total = total if added is None else total + added
        self._step += 1
        return total
