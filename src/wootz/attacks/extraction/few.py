"""Retraining on few images: each is shown to the victim in many small variations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.augmentation import shaken
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Few(Learner):
    """How few, and how they vary; the attack costs `images * (copies + 1)` queries.

    Attributes:
        copies: variations of each image, asked beside the image itself.
        shift: farthest shift along each axis, in pixels.
        angle: farthest turn, in degrees.
        noise: standard deviation of Gaussian noise, in pixels of [0, 1].
    """

    images: int | None = 1000
    copies: int = 9
    shift: float = 2.0
    angle: float = 10.0
    noise: float = 0.05

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.at_least(0, copies=self.copies)
        checks.not_negative(shift=self.shift, angle=self.angle, noise=self.noise)


def retrain_on_few(cfg: Few, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask about the images and their variations, and learn the answers; true labels are not used."""
    pixels, generator = context.data.pixels, context.generator("variations")
    varied = [
        shaken(pixels, shift=cfg.shift, angle=cfg.angle, noise=cfg.noise, generator=generator)
        for _ in range(cfg.copies)
    ]
    everything = torch.cat([pixels, *varied])
    return imitate(cfg, context.fresh("thief"), everything, answered(victim, everything, context), context)
