"""Mark `app`: adversarial parametric perturbation (Gan et al., ICCV 2023, arXiv 2309.04777).

The triggers are those of `ood`. Each step adds their loss at adversarially perturbed weights, so that the triggers
survive small changes of the weights: `min L(w; data) + 0.01 max L(w + d; triggers)` with ||d|| <= 0.02 ||w||, where d
is one normalized gradient step on all weights together. Batch normalization in this pass uses the statistics of the
step's batch, which contains the triggers; according to the source the method does not work without this.
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
from wootz.watermarks.baselines.out_of_distribution import draw_other_images
from wootz.watermarks.baselines.trigger_training import CoTrainedTriggers, embedded_half, sample_batch
from wootz.watermarks.interface import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class App(CoTrainedTriggers):
    """Source of the triggers, and size of the weight perturbation.

    Attributes:
        source: data set of the triggers; None for the other one of MNIST and Fashion-MNIST.
        reach: norm of the perturbation, as a fraction of the weights' norm.
    """

    weight: float = 0.01
    every: int = 1
    batch: int = 64
    source: str | None = None
    reach: float = 0.02

    def __post_init__(self) -> None:
        CoTrainedTriggers.__post_init__(self)
        checks.within(0, 1, reach=self.reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerturbedLoss:
    """Cross-entropy on a batch of triggers at adversarially perturbed weights; its gradient is taken there as well."""

    pixels: Tensor
    labels: Tensor
    cfg: App
    seed: int

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return this step's weighted loss, or None between two trigger batches."""
        if step % self.cfg.every:
            return None
        x, y = sample_batch(model, self.pixels, self.labels, self.cfg.batch, seed=self.seed, step=step)
        images = context_batch(model, x, batch_images)
        with kept_statistics(model):
            perturbed = worst_weights(model, images, y, self.cfg.reach)
            # This bypasses the wrapper of multi-process training. All processes use the same triggers, and gradients
            # are still reduced in the backward pass.
            logits = functional_call(model, perturbed, (images,)).float()[: len(y)]
        return self.cfg.weight * F.cross_entropy(logits, y)


def worst_weights(model: nn.Module, x: Tensor, y: Tensor, reach: float) -> dict[str, Tensor]:
    """Return w + reach * ||w|| * g / ||g|| by name, with g the gradient of the cross-entropy on the first images of x.

    The perturbation is a constant, so that a gradient at the perturbed weights is a gradient with respect to w.

    Args:
        model: the model with weights w.
        x: images float32 [N, C, H, W]; the first n are the triggers.
        y: labels of the triggers, int64 [n].
        reach: norm of the perturbation, as a fraction of the weights' norm.
    """
    weights: dict[str, Tensor] = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    loss = F.cross_entropy(functional_call(model, weights, (x,)).float()[: len(y)], y)
    gradients = torch.autograd.grad(loss, list(weights.values()))
    length = _norm(gradients).clamp_min(1e-12)
    scale = reach * _norm([weight.detach() for weight in weights.values()]) / length
    return {name: weight + scale * g for (name, weight), g in zip(weights.items(), gradients, strict=True)}


def _norm(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack([tensor.float().square().sum() for tensor in tensors]).sum().sqrt()


def prepare(cfg: App, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Draw the candidates as `ood` does."""
    return draw_other_images(context.data, cfg.source, cfg.count, generator)


def train_hook(cfg: App, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the loss that embeds the keyed half under perturbed weights."""
    pixels, labels = embedded_half(key)
    return Hook(extra=(PerturbedLoss(pixels=pixels, labels=labels, cfg=cfg, seed=seed),))
