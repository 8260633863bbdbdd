"""Mark `app`: triggers that hold under the worst small change of the weights (Gan et al., ICCV 2023, arXiv 2309.04777).

The triggers are those of `ood`. Each step adds their loss at the weights moved by one gradient step to where it is
worst, at 2% of the weights' norm, all weights together: `min L(w; data) + 0.01 max L(w + d; triggers)`, ||d|| <= 0.02
||w||. Normalization in that pass uses the statistics of the step's own batch, which the triggers are among; without
that it does not help, says the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from wootz import checks
from wootz.data import Dataset
from wootz.keys import Key, RegisteredMaterial
from wootz.modes import kept_statistics
from wootz.training import Forward, Hook, context_batch
from wootz.watermarks.baselines.ood import foreign
from wootz.watermarks.baselines.teaching import Beside, drawn, taught_half
from wootz.watermarks.context import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class App(Beside):
    """Which triggers, and how strong a change of the weights.

    Attributes:
        source: data set the triggers come from; None means the other one of MNIST and Fashion-MNIST.
        reach: norm of the change, as a share of the weights' norm.
    """

    weight: float = 0.01
    every: int = 1
    batch: int = 64
    source: str | None = None
    reach: float = 0.02

    def __post_init__(self) -> None:
        Beside.__post_init__(self)
        checks.within(0, 1, reach=self.reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerturbedLoss:
    """Cross-entropy on a few triggers at the worst weights nearby; its gradient is the one there."""

    pixels: Tensor
    labels: Tensor
    cfg: App
    seed: int

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return this step's weighted loss, or None between two batches."""
        if step % self.cfg.every:
            return None
        x, y = drawn(model, self.pixels, self.labels, self.cfg.batch, seed=self.seed, step=step)
        together = context_batch(model, x, batch_images)
        with kept_statistics(model):
            moved = worst_weights(model, together, y, self.cfg.reach)
            # Past the wrapper of several processes: all take the same triggers, and gradients still meet in backward.
            logits = functional_call(model, moved, (together,)).float()[: len(y)]
        return self.cfg.weight * F.cross_entropy(logits, y)


def worst_weights(model: nn.Module, x: Tensor, y: Tensor, reach: float) -> dict[str, Tensor]:
    """Return w + reach * ||w|| * g / ||g|| by name, g the gradient of the cross-entropy on y and the first images of x.

    The change counts as a constant: a gradient at the moved weights is one with respect to w.
    """
    weights: dict[str, Tensor] = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    loss = F.cross_entropy(functional_call(model, weights, (x,)).float()[: len(y)], y)
    slopes = torch.autograd.grad(loss, list(weights.values()))
    length = _norm(slopes).clamp_min(1e-12)
    scale = reach * _norm([weight.detach() for weight in weights.values()]) / length
    return {name: weight + scale * slope for (name, weight), slope in zip(weights.items(), slopes, strict=True)}


def _norm(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack([tensor.float().square().sum() for tensor in tensors]).sum().sqrt()


def prepare(cfg: App, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Draw the candidates as `ood` does."""
    return foreign(context.data, cfg.source, cfg.count, generator)


def train_hook(cfg: App, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return what teaches the keyed half under changed weights."""
    pixels, labels = taught_half(key)
    return Hook(extra=(PerturbedLoss(pixels=pixels, labels=labels, cfg=cfg, seed=seed),))
