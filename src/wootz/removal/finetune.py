"""Fine-tuning of all layers on labeled data (FTAL of Adi et al., arXiv 1802.04633)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from wootz import checks
from wootz.data import Share
from wootz.training import Execution, Recipe, train

_VALIDATION_PART = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune:
    """How the thief trains on.

    Attributes:
        data: the thief's own labeled images (`thief`), or the owner's training images (`owner`).
        epochs: passes over them.
        batch_size: images a step.
        lr: peak learning rate of AdamW.
        label_smoothing: mass taken from the true class.
    """

    data: Literal["thief", "owner"] = "thief"
    epochs: int = 3
    batch_size: int = 128
    lr: float = 1e-3
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        checks.at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        checks.positive(lr=self.lr)
        checks.within(0, 0.9, label_smoothing=self.label_smoothing)


def finetune(
    cfg: Finetune, model: nn.Module, data: Share, *, seed: int, execution: Execution | None = None
) -> nn.Module:
    """Return a copy of `model`, trained on with plain cross-entropy, every layer free."""
    kept = torch.arange(len(data)) % _VALIDATION_PART == 0
    recipe = Recipe(
        loss="natural",
        epochs=cfg.epochs,
        batch_size=cfg.batch_size,
        lr=cfg.lr,
        label_smoothing=cfg.label_smoothing,
    )
    return train(recipe, model, data.take(~kept), data.take(kept), seed=seed, execution=execution).model
