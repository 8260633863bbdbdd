"""Neural attention distillation (Li et al., arXiv 2101.05930): look where a fine-tuned copy of yourself looks.

A teacher is fine-tuned on clean images; the student, the marked model again, trains on them too and is drawn to the
teacher's attention maps: the sum over channels of squared activations, scaled to length one. The source takes the maps
at the end of each residual group; we take the last convolution of every map size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext, learn
from wootz.attacks.removal.tuning import Tuning, tune
from wootz.modes import eval_mode
from wootz.rng import derive, generator
from wootz.training import Forward, Hook, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Tuning):
    """How teacher and student train; the student also follows the maps.

    Attributes:
        teacher_epochs: passes over the data of the teacher.
        weight: of the distance between maps, summed over places and map sizes. The authors weigh means over places.
    """

    epochs: int = 10
    lr: float = 5e-3
    teacher_epochs: int = 10
    weight: float = 5.0

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.at_least(1, teacher_epochs=self.teacher_epochs)
        checks.positive(weight=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """The extra loss of a student: squared distances of its attention maps from the teacher's, on images of its own."""

    teacher: nn.Module
    pixels: Tensor
    batch: int
    weight: float
    seed: int

    def __call__(self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float) -> Tensor:
        """Return the weighted distance on a batch that follows from the step."""
        rows = torch.randint(len(self.pixels), (self.batch,), generator=generator(self.seed, step))
        x = self.pixels[rows].to(next(model.parameters()).device).float().div_(255)
        teacher = self.teacher.to(x.device)
        with eval_mode(teacher), torch.no_grad():
            shown = attention_maps(teacher, teacher, x)
        seen = attention_maps(model, forward, x)
        total = torch.stack([(seen[size] - shown[size]).square().sum(1).mean() for size in shown])
        return self.weight * total.sum()


def nad(cfg: Attention, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return the student: a copy of `model` that learned the images and the teacher's attention."""
    recipe = Recipe(loss=cfg.loss, eps=context.eps, epochs=cfg.teacher_epochs, batch_size=cfg.batch_size, lr=cfg.lr)
    teacher = learn(recipe, model, context.data, context, "teacher")
    follow = Follow(
        teacher=teacher,
        pixels=context.data.pixels,
        batch=cfg.batch_size,
        weight=cfg.weight,
        seed=derive(context.seed, "attention"),
    )
    return tune(cfg, model, context, hook=Hook(extra=(follow,)))


def attention_maps(model: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> dict[torch.Size, Tensor]:
    """Return map size -> attention [N, H * W] of the last convolution with that size; `forward` runs `model`."""
    maps: dict[torch.Size, Tensor] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        maps[out.shape[2:]] = F.normalize(out.float().square().sum(1).flatten(1), dim=1)

    handles = [layer.register_forward_hook(look) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    try:
        forward(x)
    finally:
        for handle in handles:
            handle.remove()
    return maps
