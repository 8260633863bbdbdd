"""The marks as one loss term, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import DirectionKey, Key, OwnerKeys
from wootz.logs import warn_once
from wootz.training import ExtraLoss, Marking
from wootz.watermarks import MARKS, RunnerUp, keyed_targets
from wootz.workflows.mark_strength import MarkStrength
from wootz.workflows.reference_models import ReferenceModels

_MARGIN = 1.2


class MarkLoss:
    """What the marks add to the loss of one training step: `loss = loss + marks(model, (images, labels))`.

    Triggers add their cross-entropy. `runner-up` adds the cross-entropy to its keyed targets less that to the labels,
    both on the given images: a loss that is the cross-entropy to the labels becomes that to the keyed targets.

    The bits in the model are measured every `check_every` steps, in eval mode. When there are a fifth more than are
    wanted, since later steps take some back, the marks are enough and add nothing, until there are fewer again.

    Args:
        settings: each mark's config, by name.
        keys: the owner's keys.
        panel: the reference models.
        data: the owner's data set.
        cfg: the bits that are wanted, how evenly, and when they are measured.
        seed: of the choice of triggers per step.

    Attributes:
        steps: the steps that were trained so far.

    Raises:
        ConfigError: a mark that needs more than a loss term, or no mark that a model carries.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        keys: OwnerKeys,
        panel: ReferenceModels,
        data: Dataset,
        cfg: Marking,
        *,
        seed: int,
    ) -> None:
        self.steps, self._cfg = 0, cfg
        self._strength = MarkStrength(keys, panel, replace(cfg, bits=_MARGIN * cfg.bits))
        self._lacking = self._strength.marks
        self._losses: dict[str, tuple[ExtraLoss, ...]] = {}
        self._directions: dict[str, tuple[RunnerUp, DirectionKey]] = {}
        for name, mark in settings.items():
            key = keys.by_mark[name]
            if isinstance(mark, RunnerUp) and isinstance(key, DirectionKey):
                self._directions[name] = mark, key
            else:
                self._losses[name] = loss_terms(name, mark, key, data, seed=seed)

    def __str__(self) -> str:
        return f"{self.bits:.0f} bits after {self.steps} steps ({self._strength})"

    @property
    def bits(self) -> float:
        """The bits of all marks together when they were last measured; 0 before that."""
        return self._strength.bits

    @property
    def by_mark(self) -> Mapping[str, float]:
        """The bits of each mark when it was last measured."""
        return self._strength.by_mark

    @property
    def enough(self) -> bool:
        """Whether the last measurement found enough bits, so that the marks add no loss."""
        return not self._lacking

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss term of this training step; 0 where gradients are off, as they are in evaluations.

        Args:
            model: images in [0, 1] -> logits [N, K], in train mode.
            batch: the (images, labels) of this step, images float [N, C, H, W] in [0, 1], labels int64 [N]; or a
                mapping with `pixel_values` and `labels`.

        Raises:
            ModelError: the model returns NaN or infinity.
        """
        x, y = (batch["pixel_values"], batch["labels"]) if isinstance(batch, Mapping) else batch
        total = torch.zeros((), device=x.device)
        if not torch.is_grad_enabled():
            return total
        if directions := [pair for name, pair in self._directions.items() if name in self._lacking]:
            log_p = model(x).float().log_softmax(1)
            for cfg, key in directions:
                images, labels = x.detach().cpu(), y.cpu()
                targets = keyed_targets(cfg, key, images, labels).to(x.device)
                total = total - ((targets - F.one_hot(y, log_p.shape[1])) * log_p).sum(1).mean()
        for loss in [loss for name, losses in self._losses.items() if name in self._lacking for loss in losses]:
            added = loss(model, model, batch_images=x, step=self.steps, done=0.0)
            total = total if added is None else total + added
        self.steps += 1
        if self.steps % self._cfg.check_every == 0:
            self._lacking = self._strength.lacking(model, self.steps)
        return total

    def warn_if_weak(self, model: nn.Module) -> None:
        """Measure `model` as it is, and log a warning if its marks give fewer bits than are wanted."""
        if self._strength.measure(model) < self._cfg.bits:
            warn_once(
                f"the marks give {self}, less than the {self._cfg.bits:g} wanted; train for more steps, give the marks "
                "more weight (settings triggers.weight, runner_up.lam), or ask for fewer (train_hook, bits)"
            )


def loss_terms(name: str, cfg: Any, key: Key, data: Dataset, *, seed: int) -> tuple[ExtraLoss, ...]:
    """Return what a mark adds to the loss of a training that is not `wootz.training.train`.

    Raises:
        ConfigError: the mark needs more than a loss term.
    """
    hook = MARKS[name].train_hook(cfg, key, data, seed=seed)
    if hook.targets is not None or hook.trigger_epochs or hook.left_out is not None:
        raise ConfigError(f"mark {name!r}: needs training from the start (wootz protect); leave it out")
    return hook.extra
