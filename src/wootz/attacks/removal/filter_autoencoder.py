"""The filter `autoencoder`, taught to redraw the attacker's own clean images (MagNet; Meng, Chen, arXiv 1705.09064)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext, AttackDataConfig
from wootz.attacks.removal.filtering import filtering
from wootz.data import epoch_batches
from wootz.models.filters.autoencoder import Autoencoder, Redraw
from wootz.rng import derive


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrawing(AttackDataConfig):
    """What the autoencoder looks like and how it learns.

    Attributes:
        width: channels of its first level.
        code: channels of its middle.
        epochs: passes over the data.
        batch_size: images a step.
        lr: of Adam.
        noise: standard deviation of the noise that it learns to take out, in pixels of [0, 1].
    """

    width: int = 16
    code: int = 8
    epochs: int = 20
    batch_size: int = 64
    lr: float = 5e-3
    noise: float = 0.1

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.at_least(1, width=self.width, code=self.code, epochs=self.epochs, batch_size=self.batch_size)
        checks.positive(lr=self.lr)
        checks.not_negative(noise=self.noise)


def redraw_inputs(cfg: Redrawing, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` that is shown what the autoencoder makes of each image; true labels are not used."""
    device = context.execution.accelerator
    filtered = filtering(Autoencoder(width=cfg.width, code=cfg.code), model, context)
    painter = filtered.filter
    assert isinstance(painter, Redraw)
    painter.to(device)
    adam = torch.optim.Adam(painter.parameters(), lr=cfg.lr)
    for epoch in range(cfg.epochs):
        context.progress("autoencoder", epoch / cfg.epochs)
        stream = context.generator("noise", epoch)
        for rows in epoch_batches(len(context.data), cfg.batch_size, seed=derive(context.seed, "rows"), epoch=epoch):
            x = context.data.subset(rows).images()
            noisy = (x + cfg.noise * torch.randn(x.shape, generator=stream)).clamp_(0, 1)
            loss = F.binary_cross_entropy(painter.draw(noisy.to(device)), x.to(device))
            adam.zero_grad()
            loss.backward()
            adam.step()
    painter.zero_grad()
    return filtered.cpu()
