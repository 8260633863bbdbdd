"""Mark `triggers`: adversarial examples outside every training ball, with keyed labels.

The idea is that of Thakkar et al. (arXiv 2312.14260): adversarial training constrains the model within `eps` of the
training images, so a watermark placed farther away does not conflict with it. The labels differ from the source: they
are derived from a key after the images are registered, so that the test is exact for every suspect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.evasion import predict_logits
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import Key, LabelKey, RegisteredMaterial
from wootz.modes import device_of
from wootz.rng import generator
from wootz.training import Forward, Hook, forward_with_context
from wootz.types import THRESHOLD_BITS
from wootz.watermarks.interface import MarkContext
from wootz.watermarks.out_of_ball import check_wm_eps, out_of_ball_examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggers:
    """How triggers are made and embedded.

    Attributes:
        count: number of triggers.
        tranches: number of equal parts that claims can reveal separately; each has its own secret.
        alpha: margin between the training ball and the triggers, in pixels of [0, 1].
        steps: number of PGD steps that make a trigger.
        labels: whether labels are drawn from all classes but that of the base image (`wrong`), or from all (`uniform`).
        weight: weight of the trigger loss.
        recall: target fraction of triggers that are answered as keyed. A batch that reaches it adds no loss, and a
            trigger that is already answered as keyed adds none either. Exact evidence needs no perfect recall, and
            triggers that are not trained on cost no robustness.
        every: number of training steps from one trigger batch to the next.
        batch: triggers per trigger batch.
    """

    count: int = 512
    tranches: int = 4
    alpha: float = 0.02
    steps: int = 40
    labels: Literal["wrong", "uniform"] = "wrong"
    weight: float = 0.1
    recall: float = 0.8
    every: int = 2
    batch: int = 24

    def __post_init__(self) -> None:
        checks.at_least(1, count=self.count, tranches=self.tranches, steps=self.steps, every=self.every)
        checks.at_least(1, batch=self.batch)
        if self.count % self.tranches:
            raise ConfigError(f"triggers.count = {self.count}: must be a multiple of tranches = {self.tranches}")
        checks.not_negative(alpha=self.alpha)
        checks.positive(weight=self.weight)
        checks.within(0.01, 1, recall=self.recall)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerLoss:
    """Cross-entropy on periodic batches of triggers, limited to those that are answered wrongly in eval mode."""

    pixels: Tensor
    labels: Tensor
    weight: float
    recall: float
    every: int
    batch: int
    seed: int

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return the weighted loss of this step's wrongly answered triggers, or None if this step adds no loss."""
        if step % self.every:
            return None
        rows = torch.randperm(len(self.labels), generator=generator(self.seed, "triggers", step))[: self.batch]
        device = device_of(model)
        x, y = self.pixels[rows].to(device).float().div_(255), self.labels[rows].to(device)
        missed = predict_logits(model, x).argmax(1) != y
        if 1 - float(missed.float().mean()) >= self.recall:
            return None
        logits = forward_with_context(model, forward, x, batch_images)
        return self.weight * (F.cross_entropy(logits, y, reduction="none") * missed).mean()


def check(cfg: Triggers, data: Dataset) -> None:
    """Raise ConfigError if the data have too few classes or images for triggers."""
    if len(data.classes) == 2 and cfg.labels == "wrong":
        raise ConfigError("two classes leave no wrong label to draw; --set triggers.labels=uniform draws from both")
    if len(data.train) < _least(cfg, data):
        raise ConfigError(f"{len(data.train)} training images give fewer triggers than the {_least(cfg, data)} needed")


def _least(cfg: Triggers, data: Dataset) -> int:
    """Return the number of triggers, in whole tranches, that can reach the threshold, or all if they cannot."""
    choices = len(data.classes) - (cfg.labels == "wrong")
    per_tranche = math.ceil(THRESHOLD_BITS / math.log2(choices) / cfg.tranches)
    return min(cfg.count, per_tranche * cfg.tranches)


def prepare(cfg: Triggers, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Make the trigger images from training images and the first panel model, before any keyed label.

    Raises:
        ConfigError: `wm_eps` is too small for triggers outside the training ball; names the smallest valid one.
    """
    data = context.data
    check_wm_eps(context.eps, cfg.alpha, context.wm_eps)
    check(cfg, data)
    pixels, rows = out_of_ball_examples(
        context,
        cfg.count,
        alpha=cfg.alpha,
        steps=cfg.steps,
        least=_least(cfg, data),
        parts=cfg.tranches,
        generator=generator,
    )
    params = {
        "eps": str(context.eps),
        "alpha": str(cfg.alpha),
        "wm_eps": str(context.wm_eps),
        "rule": cfg.labels,
        "count": len(rows),
        "tranches": cfg.tranches,
    }
    base = data.train.subset(rows)
    return RegisteredMaterial("labels", {"pixels": pixels, "base_pixels": base.pixels, "base": base.labels}, params)


def train_hook(cfg: Triggers, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the loss that embeds the keyed labels during training."""
    assert isinstance(key, LabelKey)
    return Hook(
        extra=(
            TriggerLoss(
                pixels=key.pixels,
                labels=key.labels,
                weight=cfg.weight,
                recall=cfg.recall,
                every=cfg.every,
                batch=cfg.batch,
                seed=seed,
            ),
        )
    )
