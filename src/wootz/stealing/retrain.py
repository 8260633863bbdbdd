"""Extraction by retraining (Tramer et al. 2016; Orekondy et al., arXiv 1812.02766): learn from the victim's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from wootz import checks
from wootz.data import Share
from wootz.stealing.ledger import Ledger, ask_all
from wootz.training import Execution, Hook, Recipe, train

_VALIDATION_PART = 20  # the thief keeps every 20th image to choose an epoch by


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain:
    """How the thief learns.

    Attributes:
        labels: the victim's scores (`soft`) or its top-1 labels (`hard`).
        model: the thief's architecture: `same` as the victim's, an `other` one, or a name.
        data: the thief's own images of the same kind (`thief`), or the owner's training images (`owner`).
        epochs: passes over the queried images.
        batch_size: images a step.
        lr: peak learning rate of AdamW.
    """

    labels: Literal["soft", "hard"] = "soft"
    model: str = "same"
    data: Literal["thief", "owner"] = "thief"
    epochs: int = 15
    batch_size: int = 128
    lr: float = 2e-3

    def __post_init__(self) -> None:
        checks.at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        checks.positive(lr=self.lr)


def retrain(
    cfg: Retrain,
    victim: Ledger,
    queries: Share,
    model: nn.Module,
    *,
    seed: int,
    execution: Execution | None = None,
) -> nn.Module:
    """Ask the victim about every image once, and train `model` on what it says; true labels are not used.

    Args:
        cfg: how the thief learns.
        victim: the ledger; its access must be `scores` for soft labels.
        queries: images; their labels are ignored.
        model: the thief's fresh model, left as it is; a trained copy is returned.
        seed: of the thief's training.
        execution: device and precision.
    """
    answers = ask_all(victim, queries.images())
    if cfg.labels == "soft":
        targets = answers if _probabilities(answers) else answers.float().softmax(1)
        labels = targets.argmax(1)
    else:
        labels = answers.argmax(1) if answers.dim() == 2 else answers
        targets = None
    answered = Share(queries.pixels, labels)
    kept = torch.arange(len(answered)) % _VALIDATION_PART == 0
    recipe = Recipe(loss="natural", epochs=cfg.epochs, batch_size=cfg.batch_size, lr=cfg.lr)
    hook = Hook(targets=targets[~kept] if targets is not None else None)
    return train(
        recipe, model, answered.take(~kept), answered.take(kept), seed=seed, hook=hook, execution=execution
    ).model


def _probabilities(answers: torch.Tensor) -> bool:
    sums = answers.sum(1)
    return bool(answers.min() >= 0) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
