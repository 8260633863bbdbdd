"""Against marks in served answers: ask everything twice, once with a little noise, and believe what stays."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger
from wootz.errors import ConfigError

_FEWEST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stable(Learner):
    """`noise` is the farthest that a pixel of the second image moves, in pixels of [0, 1]; adaptive, ours."""

    noise: float = 0.03

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.within(1 / 255, 1, noise=self.noise)


def steal_stable(cfg: Stable, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask each image twice, drop those whose top-1 changes, and learn the mean of both answers, each at its image.

    Costs two queries an image; true labels are not used.
    """
    pixels = context.data.pixels
    first = answered(victim, pixels, context, "asked", need=2 * len(pixels))
    second = answered(victim, noisy(pixels, cfg.noise, context.generator("noise")), context, "asked-again")
    same = first.argmax(1) == second.argmax(1)
    if same.sum() < _FEWEST:
        raise ConfigError(f"noise = {cfg.noise:g}: only {same.sum()} of {len(pixels)} answers stay; lower it")
    return imitate(cfg, context.fresh("thief"), pixels[same], ((first + second) / 2)[same], context)


def noisy(pixels: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Return images uint8 whose every pixel moved by up to `noise`, in whole grey levels."""
    most = int(noise * 255)
    moves = torch.randint(-most, most + 1, pixels.shape, generator=generator, dtype=torch.int16)
    return (pixels + moves).clamp_(0, 255).to(torch.uint8)
